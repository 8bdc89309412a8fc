"""Conformance, repetition: each document is stored once, even if several processes insert it often.

What is there may lie in several sealed chunks, and in the journal; others may insert it at the
same time, from threads and from processes.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from ...core.errors import DuplicateUID
from ..base import Conformance, check_run, events_of, insert_all
from ..processes import PROCESSES
from ..runs import Documents, RunBuilder, make_run, page_of, stream_datum_run

PARTS = 3
THREADS = 8


def insert_in_chunks(db: Any, documents: Sequence[Any], parts: int) -> None:
    """Insert documents in parts, with a seal after each part except the last."""
    size = -(-len(documents) // parts)
    for begin in range(0, len(documents), size):
        insert_all(db, documents[begin : begin + size])
        if begin + size < len(documents):
            db.seal()


def chunks_of(header: Any) -> int:
    """Return the number of chunks that hold the events of a run."""
    return len(header.es_given_stream("primary").store.plan_runs([header.uid]).events)


def many_kinds(number_of_events: int, cell: int) -> Documents:
    """Return an open run of alternating datums and events with an array of ``cell`` numbers."""
    builder = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [4, 4], "external": "FILESTORE:"}
    descriptor = builder.descriptor({"img": spec, "v": np.zeros(cell), "x": 0.5})
    resource = builder.resource()
    for index in range(number_of_events):
        data = {
            "img": builder.datum(resource, point_number=index),
            "v": [index / 3 + n for n in range(cell)],
            "x": index / 2,
        }
        builder.event(descriptor, data, filled={"img": False})
    return builder.documents


def insert_from_processes(db: Any, parts: Sequence[Sequence[Any]], seal_after: int = 0) -> None:
    """Insert each part from a separate process, all at the same time.

    Each process seals after every ``seal_after`` documents; never if 0. An error in any process
    is raised here.
    """
    together = PROCESSES.Barrier(len(parts))
    with ProcessPoolExecutor(len(parts), PROCESSES, _set_together, (together,)) as pool:
        inserting = [
            pool.submit(_insert_elsewhere, db, list(documents), seal_after) for documents in parts
        ]
        for future in inserting:
            future.result(120)


OWN_UIDS = {"start", "descriptor", "stop"}
"""Documents whose uids are never those of another run."""

_together: Any = None


def _set_together(barrier: Any) -> None:
    """Take the barrier, which is given to a process when it is started."""
    global _together
    _together = barrier


def _insert_elsewhere(db: Any, documents: Sequence[Any], seal_after: int) -> None:
    _together.wait(120)
    for number, pair in enumerate(documents, 1):
        db.insert(*pair)
        if seal_after and number % seal_after == 0:
            db.seal()
    db.close()


class RepeatConformance(Conformance):
    """The same documents again are stored once."""

    @pytest.mark.parametrize("cell", [1, 2000], ids=["small", "large"])
    @pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
    def test_a_run_in_several_chunks_is_inserted_again(
        self, broker: Any, reopen: Callable[[], Any], backwards: bool, cell: int
    ) -> None:
        """The broker that stored the run inserts it again, and so does a new one."""
        docs = many_kinds(40, cell)
        insert_in_chunks(broker, docs, 5)
        uid = docs[0][1]["uid"]
        assert chunks_of(broker[uid]) >= 5
        again = [*docs[:3], *docs[:2:-1]] if backwards else docs
        for open_store in (lambda: broker, reopen):
            db = open_store()
            insert_all(db, copy.deepcopy(again))
            db.flush()
            check_run(db[uid], docs)
            assert len(db[uid].table(fill=False, duplicates="all").compute()) == 40

    def test_a_page_of_events_from_several_chunks_is_inserted_again(self, broker: Any) -> None:
        """The page may have more events, before and after the known ones."""
        docs = make_run(4800, stop=False)
        head, rows = docs[:2], [doc for _, doc in docs[2:]]
        insert_all(broker, head)
        for begin in (0, 1200, 2400):
            insert_all(broker, [("event_page", page_of(rows[begin : begin + 1200]))])
            broker.seal()
        for begin, end in ((0, 3600), (600, 1800), (2300, 2500), (1199, 1201), (2390, 4800)):
            insert_all(broker, [("event_page", page_of(rows[begin:end]))])
        check_run(broker[-1], docs)
        assert len(broker[-1].table(duplicates="all").compute()) == 4800

    def test_other_content_under_the_uid_of_an_event_in_any_chunk(self, broker: Any) -> None:
        docs = many_kinds(40, 1)
        insert_in_chunks(broker, docs, 5)
        for name in ("event", "datum"):
            for number, doc in enumerate([doc for kind, doc in docs if kind == name]):
                if number % 5 == 0:
                    with pytest.raises(DuplicateUID, match=name):  # noqa: PT012
                        broker.insert(name, {**doc, "other": 1})
                        broker.flush()
        check_run(broker[-1], docs)

    # -- at once -----------------------------------------------------------------------------

    def test_processes_insert_into_one_run_at_once(self, broker: Any) -> None:
        """Each process inserts a part of the run and a run of its own, while all of them seal."""
        shared = make_run(240, stop=False)
        own = [make_run(40) for _ in range(PARTS)]
        insert_all(broker, shared[:2])
        broker.flush()
        events = shared[2:]
        parts = []
        for number, docs in enumerate(own):
            mine = [events[number::PARTS][n :: len(docs)] for n in range(len(docs))]
            parts.append([pair for one, some in zip(docs, mine) for pair in (one, *some)])
        insert_from_processes(broker, parts, seal_after=25)
        assert len(broker) == 1 + PARTS
        for docs in own:
            check_run(broker[docs[0][1]["uid"]], docs)
        self.check_events(broker[shared[0][1]["uid"]], events)

    def test_processes_insert_the_same_at_once(self, broker: Any) -> None:
        """The processes are like consumers of a queue that delivers a message more than once."""
        docs = many_kinds(120, 1)
        insert_all(broker, docs[:3])
        broker.flush()
        parts = [docs[begin:] + docs[3:begin] for begin in (3, 43, 83)]
        insert_from_processes(broker, parts)
        check_run(broker[-1], docs)
        self.check_events(broker[-1], [pair for pair in docs if pair[0] == "event"])

    def check_events(self, header: Any, events: Sequence[Any]) -> None:
        """Check that documents and table have these events, each once, in any order."""
        found = [doc["uid"] for doc in events_of(header.documents(fill=False))]
        assert sorted(found) == sorted(doc["uid"] for _, doc in events)
        table = header.table(fields=["x"], duplicates="all").compute()
        assert table["x"].tolist() == [doc["data"]["x"] for _, doc in events]

    def test_threads_insert_at_once(self, broker: Any) -> None:
        """All threads insert the same events, and a run of their own."""
        shared = make_run(60, stop=False)
        own = [make_run(20) for _ in range(THREADS)]
        insert_all(broker, shared[:2])
        errors: list[BaseException] = []
        begin = threading.Barrier(THREADS)

        def insert(number: int) -> None:
            events = shared[2:]
            begin.wait(30)
            try:
                insert_all(broker, events[7 * number :] + events[: 7 * number])
                insert_all(broker, own[number])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=insert, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        broker.flush()
        for docs in own:
            check_run(broker[docs[0][1]["uid"]], docs)
        self.check_events(broker[shared[0][1]["uid"]], shared[2:])

    def test_several_runs_have_the_same_uids_of_references(self, broker: Any) -> None:
        """Recorded documents of tests and simulations repeat them; descriptors tell runs apart."""
        first = stream_datum_run()
        uids = {doc["uid"]: doc["uid"] + "-again" for name, doc in first if name in OWN_UIDS}
        second = copy.deepcopy(first)
        for _, doc in second:
            for key in ("uid", "run_start", "descriptor"):
                doc[key] = uids.get(doc.get(key), doc.get(key))
                if doc[key] is None:
                    del doc[key]
        for docs in (first, second):
            insert_all(broker, docs)
        for docs in (first, second):
            insert_all(broker, copy.deepcopy(docs))  # which are there already
            check_run(broker[docs[0][1]["uid"]], docs)
