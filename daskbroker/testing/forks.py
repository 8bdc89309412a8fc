"""Fork processes while they use a store, as users of ``multiprocessing`` do.

Run by ``python -m daskbroker.testing.forks PLACE``. Parent, children and grandchildren insert into
one run and into runs of their own, read, seal, and end in every way in which a process can end;
threads are running while they fork. Afterwards ``daskbroker seal`` in a new process must end, and
every document must be in every view once.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from ..connect import connect, temp
from .runs import make_run, page_of

SECONDS = 100
"""So long may a child take, where all are busy; one that hangs is killed."""


def _forked(
    work: Callable[..., None], *arguments: Any, leave: Callable[[int], Any] = os._exit
) -> int:
    """Call a function in a forked child, whose exit status says whether it succeeded."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        work(*arguments)
        status = 0
    except BaseException as error:
        sys.stderr.write(f"in a child: {type(error).__name__}: {error}\n")
    sys.stdout.flush()
    leave(status)
    raise AssertionError


def _join(*children: int) -> None:
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"a child ended with status {status:#x}")


def _insert(db: Any, documents: Any) -> None:
    for name, doc in documents:
        db.insert(name, doc)


def _insert_and_flush(db: Any, documents: Any) -> None:
    _insert(db, documents)
    db.flush()


def _check(header: Any, documents: Any) -> None:
    """Check that all views have these events, each once."""
    wanted = sorted(doc["uid"] for name, doc in documents if name == "event")
    views = {
        "documents": [doc["uid"] for name, doc in header.documents() if name == "event"],
        "table": header.table("primary", fields=["uid"], duplicates="all")["uid"].compute(),
    }
    for view, uids in views.items():
        if sorted(uids) != wanted:
            raise SystemExit(f"run {header.uid}: {view} has {len(uids)} of {len(wanted)} events")
    if header.dataset("primary").sizes["time"] != len(wanted):
        raise SystemExit(f"run {header.uid}: the dataset lacks events")


class _Turns:
    """Turns that parent and child take in going on."""

    def __init__(self) -> None:
        self._pipes = [os.pipe(), os.pipe()]

    def give(self, side: int) -> None:
        """Let the other process go on."""
        os.write(self._pipes[side][1], b".")

    def take(self, side: int) -> None:
        """Wait for the other process."""
        os.read(self._pipes[side][0], 1)


def one_run(db: Any) -> list[Any]:
    """Let parent, child and grandchild insert into one run in turns, with sealing in between."""
    documents = make_run(150)
    start, events, stop = documents[:2], documents[2:-1], documents[-1:]
    parts = [events[10 * n : 10 * n + 10] for n in range(8)]
    page = [("event_page", page_of([doc for _, doc in events[80:]]))]
    _insert(db, start + parts[0])
    turns = _Turns()

    def child() -> None:
        turns.take(0)
        _insert_and_flush(db, parts[3])
        turns.give(1)
        turns.take(0)
        _insert(db, page)
        _join(_forked(_insert_and_flush, db, parts[5]))
        _insert(db, parts[6])
        db.seal(documents[0][1]["uid"])
        db.flush()

    number = _forked(child)
    _insert(db, parts[1])
    db.seal(documents[0][1]["uid"])
    _insert(db, parts[2])
    turns.give(0)
    turns.take(1)
    _insert(db, parts[4])
    turns.give(0)
    _join(number)
    _insert(db, parts[7] + stop)
    return documents


def runs_of_children(db: Any) -> list[Any]:
    """Let children insert runs, read their parent's, and end as scripts and libraries do."""
    before = make_run(30)
    _insert(db, before)
    runs = [make_run(40) for _ in range(4)]
    _check(db[-1], before)  # threads of Dask's are there

    def work(documents: Any) -> None:
        _check(db[before[0][1]["uid"]], before)
        _insert(db, documents)
        _check(db[documents[0][1]["uid"]], documents)

    def work_and_close(documents: Any) -> None:
        work(documents)
        db.close()

    _join(_forked(work, runs[0]), _forked(work_and_close, runs[1]))
    _join(_forked(work, runs[2], leave=sys.exit))
    _join(_forked(work_and_close, runs[3], leave=sys.exit))
    after = make_run(20)
    _insert(db, after)
    return [*before, *chain(*runs), *after]


def begun_before(db: Any) -> list[Any]:
    """Check that what was begun in the parent goes on in the child, or raises an error."""
    documents = make_run(50)
    for begin, end in ((0, 20), (20, 40), (40, 60)):
        _insert(db, documents[begin:end])
        db.seal()  # so that some chunks are read ahead
    reading = db[-1].documents()
    begun = [next(reading) for _ in range(5)]

    def go_on() -> None:
        if len(begun) + len(list(reading)) != len(documents):
            raise AssertionError("documents are missing")

    _join(_forked(go_on))
    go_on()
    return documents


def crowd(db: Any) -> list[Any]:
    """Fork children while threads insert, seal and read."""
    runs = [make_run(150) for _ in range(3)]
    theirs = [make_run(20) for _ in range(12)]
    problems: list[BaseException] = []

    def write(documents: Any) -> None:
        for name, doc in documents:
            db.insert(name, doc)
            if name == "event" and doc["seq_num"] % 50 == 0:
                db.seal(documents[0][1]["uid"])

    def read() -> None:
        while any(thread.is_alive() for thread in writers):
            for header in db[-3:]:
                if header.streams:
                    header.table("primary", fields=["uid"]).compute()

    def guarded(work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=guarded, args=(write, run)) for run in runs]
    reader = threading.Thread(target=guarded, args=(read,))
    for thread in (*writers, reader):
        thread.start()
    children = []
    for documents in theirs:
        time.sleep(0.02)
        children.append(_forked(_insert_and_flush, db, documents))
    _join(*children)
    for thread in (*writers, reader):
        thread.join()
    if problems:
        raise problems[0]
    return [*chain(*runs, *theirs)]


@contextmanager
def _temporary_store() -> Iterator[None]:
    """Return a context with a store in a temporary folder that no child removes."""
    with temp() as db:
        documents = make_run(3)
        _insert(db, documents)
        yield
        _check(db[-1], documents)


SCENES = (one_run, runs_of_children, begun_before, crowd)


def main(arguments: list[str] | None = None) -> None:
    """Run all scenes on one store and compare it with what was inserted."""
    parser = argparse.ArgumentParser(prog="python -m daskbroker.testing.forks", description=__doc__)
    parser.add_argument("place")
    parser.add_argument("--scene", choices=[scene.__name__ for scene in SCENES], default=None)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", "This process.*is multi-threaded", DeprecationWarning)
    inserted: list[Any] = []
    with _temporary_store(), connect(options.place) as db:
        for scene in SCENES:
            if options.scene in (None, scene.__name__):
                inserted += scene(db)
                sys.stdout.write(f"{scene.__name__}\n")
                sys.stdout.flush()
    seal = [sys.executable, "-m", "daskbroker", "seal", "--db", options.place]
    subprocess.run(seal, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
    with connect(options.place, mode="r") as db:
        runs: dict[str, list[Any]] = {}
        for name, doc in inserted:
            if name == "start":
                runs[doc["uid"]] = here = []
            here.append((name, doc))
        if {header.uid for header in db} != runs.keys():
            raise SystemExit(f"{len(runs)} runs were inserted, {len(db)} are there")
        for uid, documents in runs.items():
            _check(db[uid], documents)
    sys.stdout.write(f"{len(inserted)} documents, nothing lost or doubled\n")


if __name__ == "__main__":
    main()
