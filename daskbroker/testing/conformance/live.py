"""Conformance of runs in progress: their stop, streams that end while read, following."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from ...connect import connect
from ...core.documents import ALL
from ...core.errors import BadQuery, FieldNotFound, StreamNotFound
from ...work.copying import copy
from ...work.reprocess import reprocess
from ..base import Conformance, check_run, insert_all, insert_run
from ..compare import assert_documents_equal, assert_references_first
from ..detector_runs import datum_run, stream_run
from ..files import frames, write_npys
from ..processes import PROCESSES
from ..runs import Documents, RunBuilder, external_run, make_run, stream_datum_run


class Writer:
    """Process that inserts documents into a store, one by one, when it is told to."""

    def __init__(self, place: Any, documents: Documents, pause: float) -> None:
        self._ready, self._begin = PROCESSES.Event(), PROCESSES.Event()
        self._process = PROCESSES.Process(
            target=_write, args=(str(place), documents, pause, self._ready, self._begin)
        )
        self._process.start()
        assert self._ready.wait(60)

    def begin(self) -> None:
        """Let the process insert."""
        self._begin.set()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._process.join(60)
        ended = self._process.exitcode
        self._process.kill()
        self._process.join()
        assert error[0] is not None or ended == 0


def _write(place: str, documents: Documents, pause: float, ready: Any, begin: Any) -> None:
    with connect(place) as db:
        ready.set()
        begin.wait()
        for name, doc in documents:
            db.insert(name, doc)
            time.sleep(pause)


def summed(header: Any) -> Any:
    """Return the sum of ``x`` as a table; a function for ``reprocess``."""
    return header.table().compute()[["x"]].sum().to_frame().T


class LiveConformance(Conformance):
    """A Header finds its stop once stored; no view has a stop later than its events."""

    def halves(self, broker: Any, docs: Documents | None = None) -> tuple[Any, Documents]:
        """Insert the first half of a run; return its header and the other half."""
        docs = make_run(6) if docs is None else docs
        half = len(docs) // 2
        insert_all(broker, docs[:half])
        return broker[docs[0][1]["uid"]], docs[half:]

    def looks(self, broker: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Return a list that collects the uids that are looked up in the header store."""
        store, looks = broker.header_source.store, list[str]()
        find_uid = store.find_uid

        def noted(uid: str) -> Any:
            looks.append(uid)
            return find_uid(uid)

        monkeypatch.setattr(store, "find_uid", noted)
        return looks

    # -- the stop ----------------------------------------------------------------------------

    def test_stop_comes_by_itself(self, broker: Any) -> None:
        header, rest = self.halves(broker)
        assert header.stop is None
        insert_all(broker, rest)
        until = time.monotonic() + 10
        while header.stop is None:
            assert time.monotonic() < until
        assert header.stop == rest[-1][1]
        assert "exit_status='success'" in repr(header)

    def test_it_is_looked_for_by_the_attribute_only(
        self, broker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        header, rest = self.halves(broker)
        looks = self.looks(broker, monkeypatch)
        insert_all(broker, rest)
        looks.clear()
        time.sleep(0.21)
        assert "exit_status='open'" in repr(header)
        assert pickle.loads(pickle.dumps(header)).known_stop is None
        assert header.portable().known_stop is None
        assert header.known_stop is None
        assert not looks
        assert header.stop is not None
        assert [header.stop, header["stop"], header.stop] == [rest[-1][1]] * 3
        assert len(looks) == 1

    def test_looks_have_a_pause(self, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        header, _ = self.halves(broker)
        looks = self.looks(broker, monkeypatch)
        began = time.monotonic()
        for _ in range(1000):
            assert header.stop is None
        assert len(looks) <= (time.monotonic() - began) / 0.2 + 1

    def test_refresh(self, broker: Any) -> None:
        header, rest = self.halves(broker)
        insert_all(broker, rest)
        assert header.refresh() is header
        assert header.known_stop == rest[-1][1]

    def test_views_know_that_a_run_has_ended(self, broker: Any) -> None:
        header, rest = self.halves(broker)
        insert_all(broker, rest)
        fields = ["x", "stop:exit_status"]
        assert set(header.table(fields=fields).compute()["stop:exit_status"]) == {"success"}
        header = broker()[0]
        assert list(header.documents())[-1][0] == "stop"

    # -- a run that ends while it is read ----------------------------------------------------

    @pytest.mark.parametrize("stream", ["documents", "stream", "results", "source"])
    def test_it_ends_while_it_is_streamed(self, broker: Any, stream: str) -> None:
        header, rest = self.halves(broker)
        coming = {
            "documents": lambda: header.documents(),
            "stream": lambda: header.stream("primary"),
            "results": lambda: broker(uid=header.uid).documents(),
            "source": lambda: header.es_given_stream("primary").documents_given_header(header),
        }[stream]()
        first = list(islice(coming, 3))
        insert_all(broker, rest)
        given = [*first, *coming]
        assert "stop" not in [name for name, _ in given]
        events = [doc["seq_num"] for name, doc in given if name == "event"]
        assert events == [1, 2]

    def test_it_ends_while_it_is_copied(self, broker: Any, tmp_path: Path) -> None:
        docs = make_run(2200)  # progress is told after a thousand
        header, rest = self.halves(broker, docs)
        stopped: list[bool] = []

        def stop(_: Any, documents: int) -> None:
            if not stopped:
                stopped.append(True)
                insert_all(broker, rest)

        with connect(tmp_path / "copy") as other:
            report = copy(header, other, progress=stop)
            assert report.copied == [header.uid]
            assert stopped
            assert other[header.uid].stop is None
            check_run(other[header.uid], docs[: len(docs) - len(rest)])
            copy(header, other)
            check_run(other[header.uid], docs)

    def test_it_ends_while_it_is_exported(self, broker: Any, tmp_path: Path) -> None:
        header, rest = self.halves(broker)
        (path,) = header.export(tmp_path, "jsonl")
        assert '"stop"' not in path.read_text()
        insert_all(broker, rest)
        (path,) = header.export(tmp_path, "jsonl")
        assert '["stop"' in path.read_text()

    def test_it_ends_while_it_is_reprocessed(self, broker: Any, tmp_path: Path) -> None:
        """The derived run of an open run differs from that of the whole run."""
        header, rest = self.halves(broker)

        def ends(run: Any) -> Any:
            insert_all(broker, rest)
            time.sleep(0.2)
            assert run.stop is None
            return summed(run)

        with connect(tmp_path / "derived") as other, dask.config.set(scheduler="synchronous"):
            options: Any = {"name": "sum", "progress": False}
            early = reprocess([header], ends, other, unfinished=True, **options)
            assert not early.failed
            late = reprocess([header], summed, other, **options)
            assert not late.failed
            assert early.done.keys() == late.done.keys() == {header.uid}
            assert early.done[header.uid] != late.done[header.uid]

    # -- following ---------------------------------------------------------------------------

    @pytest.mark.parametrize("stream", [ALL, "primary"])
    @pytest.mark.parametrize("seal", [False, True])
    @pytest.mark.parametrize("late", [False, True])
    def test_each_document_comes_once(
        self, broker: Any, stream: Any, seal: bool, late: bool
    ) -> None:
        """Each document comes once, whatever is sealed meanwhile, and after its references."""
        docs = external_run(8, late=late)
        insert_all(broker, docs[:1])
        header, place = broker[docs[0][1]["uid"]], 1
        given = []
        for pair in header.follow(stream, interval=0):
            given.append(pair)
            step = docs[place : place + 3]
            insert_all(broker, step)
            place += len(step)
            if seal and place % 2:
                broker.seal()
        expected = list(header.stream(stream, fill=False))
        assert_documents_equal(expected, given)
        assert [name for name, _ in given][:: len(given) - 1] == ["start", "stop"]
        if not late:
            assert_references_first(given)

    @pytest.mark.parametrize("seal", [False, True])
    def test_values_that_differ_in_kind(self, broker: Any, seal: bool) -> None:
        """Integers beside floats, None, and keys that some events lack, in chunks that grow."""
        run = RunBuilder()
        cells: list[Any] = [1, 2.5, None, 3.0, 4]
        rows = [
            {"x": cells[number % 5], **({"y": cells[number % 3]} if number % 2 else {})}
            for number in range(24)
        ]
        descriptor = run.descriptor({"x": 1.0, "y": 1.0})
        for row in rows:
            run.event(descriptor, row)
        docs = run.stop()
        insert_all(broker, docs[:1])
        coming = iter(docs[1:])
        header, given = broker[run.uid], []
        for pair in header.follow(interval=0):
            given.append(pair)
            insert_all(broker, islice(coming, 2))
            if seal and len(given) % 5 == 0:
                broker.seal()
        assert_documents_equal(docs, given)

    @pytest.mark.parametrize("with_events", [True, False])
    def test_frames_of_stream_datums(self, broker: Any, tmp_path: Path, with_events: bool) -> None:
        docs, _ = stream_run(tmp_path, with_events=with_events)
        insert_all(broker, docs[:1])
        coming = iter(docs[1:])
        header, given = broker[docs[0][1]["uid"]], []
        for pair in header.follow(interval=0):
            given.append(pair)
            insert_all(broker, islice(coming, 1))
        assert_documents_equal(docs, given)
        assert_references_first(given)

    def test_a_run_that_has_ended(self, broker: Any) -> None:
        docs = external_run(3)
        header = insert_run(broker, docs)
        assert_documents_equal(header.documents(fill=False), header.follow())
        assert_documents_equal(header.documents(fill=False), header.portable().follow())

    def test_fields(self, broker: Any) -> None:
        docs = make_run(4)
        insert_all(broker, docs[:3])
        coming = iter(docs[3:])
        header, given = broker[docs[0][1]["uid"]], []
        for pair in header.follow("primary", fields=["x"], interval=0):
            given.append(pair)
            insert_all(broker, islice(coming, 1))
        assert_documents_equal(header.stream("primary", fields=["x"]), given)

    def test_filled(self, broker: Any, tmp_path: Path) -> None:
        """The detector writes one file per frame, each before its event."""
        data = frames(4)
        run = RunBuilder()
        claim = {"source": "x", "dtype": "array", "shape": [6, 8], "dtype_numpy": "<u2"}
        descriptor = run.descriptor({"img": {**claim, "external": "FILESTORE:"}})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        for index in range(4):
            run.event(descriptor, {"img": run.datum(resource, index=index)})
        docs = run.stop()
        write_npys(tmp_path / "f", data)
        insert_all(broker, docs[:1])
        coming = iter(docs[1:])
        header, given = broker[docs[0][1]["uid"]], []
        for pair in header.follow(fill=True, interval=0):
            given.append(pair)
            insert_all(broker, islice(coming, 2))
        images = [doc["data"]["img"] for name, doc in given if name == "event"]
        np.testing.assert_array_equal(images, data)

    def test_tables(self, broker: Any) -> None:
        docs = make_run(20)
        insert_all(broker, docs[:5])
        header, place, parts = broker[docs[0][1]["uid"]], 5, []
        for part in header.follow("primary", format="dataframe", interval=0):
            parts.append(part)
            insert_all(broker, docs[place : place + 4])
            place += 4
            if place % 8 == 1:
                broker.seal()
        assert len(parts) > 3
        whole = header.table().compute()
        assert [seq for part in parts for seq in part.index] == whole.index.tolist()
        assert all(list(part.columns) == list(whole.columns) for part in parts)
        assert np.concatenate([part["x"] for part in parts]).tolist() == whole["x"].tolist()

    def test_tables_of_frames_alone(self, broker: Any) -> None:
        docs = stream_datum_run(6, 2)
        insert_all(broker, docs[:1])
        coming = iter(docs[1:])
        header, seen = broker[docs[0][1]["uid"]], []
        insert_all(broker, islice(coming, 3))
        for part in header.follow("primary", format="dataframe", interval=0):
            seen.append(part.index.tolist())
            insert_all(broker, islice(coming, 1 if len(seen) < 3 else 2))
        assert seen == [[1, 2], [3, 4], [5, 6]]

    def test_what_never_comes(self, broker: Any) -> None:
        docs = make_run(2)
        header = insert_run(broker, docs)
        with pytest.raises(StreamNotFound, match="has ended and has no stream 'nowhere'"):
            list(header.follow("nowhere"))
        with pytest.raises(FieldNotFound, match="nothing"):
            list(header.follow("primary", fields=["nothing"]))
        with pytest.raises(BadQuery, match="'documents' or 'dataframe'"):
            header.follow("primary", format="dataset")
        with pytest.raises(
            BadQuery, match="needs a stream_name; not 'dataframe' with stream_name ALL"
        ):
            header.follow(format="dataframe")
        open_run = make_run(2, stop=False)
        insert_all(broker, open_run)
        with pytest.raises(TimeoutError, match="no stop"):
            list(broker[open_run[0][1]["uid"]].follow(timeout=0.05, interval=0.01))

    # -- another process ---------------------------------------------------------------------

    @pytest.fixture
    def place(self, broker: Any) -> Any:
        """Return the place by which another process opens the broker."""
        return broker.uri

    def test_a_run_that_another_process_writes(
        self, broker: Any, place: Any, tmp_path: Path
    ) -> None:
        docs = external_run(10)
        insert_all(broker, make_run(2))
        coming = broker.watch(interval=0.02, timeout=60)
        with Writer(place, docs, 0.01) as writer:
            writer.begin()
            header = next(coming)
            given = list(header.follow("primary", interval=0.02, timeout=60))
        assert header.uid == docs[0][1]["uid"]
        assert header.stop == docs[-1][1]
        assert_documents_equal(header.stream("primary", fill=False), given)
        assert_references_first(given)
        check_run(header, docs)

    # -- watching ----------------------------------------------------------------------------

    def test_new_runs_are_seen_once(self, broker: Any) -> None:
        old = make_run(2)
        insert_all(broker, old)
        coming: Iterator[Any] = broker.watch(interval=0.01, timeout=0.1)
        new = [make_run(2, plan_name=name, stop=False) for name in ("scan", "count", "scan")]
        for docs in new:
            insert_all(broker, docs)
        uids = [docs[0][1]["uid"] for docs in new]
        assert [header.uid for header in coming] == uids

    def test_a_run_whose_clock_is_behind(self, broker: Any) -> None:
        """However many runs are newer, before and meanwhile."""
        insert_all(broker, [make_run(1, time=2e9 + number)[0] for number in range(60)])
        coming = broker.watch(interval=0.01, timeout=0.1)
        insert_all(broker, make_run(1, uid="behind", time=1e9))
        assert next(coming).uid == "behind"
        insert_all(broker, make_run(1, uid="ahead", time=3e9)[:1])
        insert_all(broker, make_run(1, uid="behind too", time=1e9 + 1)[:1])
        assert [header.uid for header in coming] == ["behind too", "ahead"]

    def test_watching_what_a_search_finds(self, broker: Any) -> None:
        scans = broker.watch(interval=0.01, timeout=0.1, plan_name="scan")
        stopped = broker.watch(interval=0.01, timeout=0.1, stop={"exit_status": "success"})
        one, other = make_run(1, plan_name="scan"), make_run(1, plan_name="count")
        insert_all(broker, [*one[:-1], *other])
        assert [header.start["plan_name"] for header in scans] == ["scan"]
        assert next(stopped).uid == other[0][1]["uid"]
        insert_all(broker, one[-1:])
        assert next(stopped).uid == one[0][1]["uid"]
        with pytest.raises(BadQuery, match="no time"):
            broker.watch(since="no time")

    def test_filled_again_in_another_store(self, broker: Any, tmp_path: Path) -> None:
        """A followed run is copied to another store, filled."""
        docs, _ = datum_run(tmp_path, 3)
        header = insert_run(broker, docs)
        with connect(tmp_path / "copy") as other:
            insert_all(other, header.follow(fill=True))
            check_run(other[header.uid], docs)
