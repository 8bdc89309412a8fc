"""Small sessions whose system calls are made to fail one after the other; see :mod:`.faults`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import dask
import numpy as np

from ..broker import DataBroker
from ..connect import connect, temp
from ..core import page_parts
from ..core.errors import StoreError, StoreExists
from ..exporting.runs import export
from ..header import Header
from ..stores.embedded import sealing
from ..stores.embedded.database import Database
from ..stores.embedded.events import EmbeddedEventStore
from ..stores.embedded.headers import EmbeddedHeaderStore
from ..stores.embedded.packing import pack_small_chunks
from ..stores.spool import SpooledEventStore
from ..work.backup import backup
from ..work.checking import check
from ..work.copying import copy
from ..work.ingest import ingest
from ..work.reprocess import reprocess
from .compare import assert_documents_equal
from .detector_runs import stacked, stream_run
from .files import frames
from .runs import RunBuilder, make_run

Steps = Iterator[tuple[str, Callable[[], Any]]]

SIZES: dict[ModuleType, dict[str, int]] = {
    page_parts: {"CHUNK_ROWS": 32},
    sealing: {"INLINE_BYTES": 4096},
}
"""Sizes that are small in the sessions, so that few bytes are written in as many ways as ever."""


class Session(NamedTuple):
    """Sequence of steps that are done in a folder.

    Attributes
    ----------
    name
        Name of the session.
    steps
        Function of the folder that returns named steps; a step that failed may be repeated.
    check
        Function of the folder and the names of the steps done; returns a list of errors.
    prepare
        Function of the folder that is called before calls fail.
    """

    name: str
    steps: Callable[[Path], Steps]
    check: Callable[[Path, Sequence[str]], Iterator[str]]
    prepare: Callable[[Path], None] = lambda folder: None


@contextmanager
def small_sizes() -> Iterator[None]:
    """Return a context in which a few rows make a chunk, a file, or a large page."""
    before = {module: {name: vars(module)[name] for name in SIZES[module]} for module in SIZES}
    try:
        for module, sizes in SIZES.items():
            vars(module).update(sizes)
        with dask.config.set({"daskbroker.seal-rows": 12, "scheduler": "synchronous"}):
            yield
    finally:
        for module, sizes in before.items():
            vars(module).update(sizes)


# -- stores ----------------------------------------------------------------------------------


def _made_runs() -> tuple[list[tuple[str, dict[str, Any]]], ...]:
    """Return runs whose events and pages become small chunks, files, and files at once."""
    paged = RunBuilder("run-pages")
    descriptor = paged.descriptor(_row(0))
    for rows in (4, 15, 5, 50):  # waits, is sealed with what waits, waits, makes two files at once
        paged.event_page(descriptor, [_row(number) for number in range(rows)])
    spectra = {"x": [np.full(100, number * 1.0) for number in range(14)]}
    return make_run(keys=spectra), paged.stop(), make_run(4)


def _row(number: int) -> dict[str, Any]:
    return {"x": number * 0.5, "w": [number * 1.0] * 8, "v": np.full(50, number * 1.0)}


RUNS = _made_runs()
"""Of this process and those that it forks."""


def _documents() -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    for run, documents in enumerate(RUNS):
        for index, pair in enumerate(documents):
            yield f"run {run}, document {index}", pair


class _Stored:
    """Steps on a broker that is opened when it is first needed."""

    def __init__(self, folder: Path, open_it: Callable[[Path], DataBroker]) -> None:
        self._folder, self._open = folder, open_it
        self._broker: DataBroker | None = None

    def broker(self) -> DataBroker:
        if self._broker is None:
            self._broker = self._open(self._folder)
        return self._broker

    def steps(self) -> Steps:
        yield "open", self.broker
        for name, pair in _documents():
            yield name, partial(self._insert, *pair)
        yield "seal", lambda: self.broker().seal()
        yield "pack", lambda: pack_small_chunks(Database.of(self._folder / "store"))
        yield "close", self._close

    def _insert(self, name: str, doc: dict[str, Any]) -> None:
        self.broker().insert(name, doc)

    def _close(self) -> None:
        self.broker().close()


def _embedded(folder: Path) -> Steps:
    return _Stored(folder, lambda folder: connect(folder / "store")).steps()


def _spooled(folder: Path) -> Steps:
    return _Stored(folder, _open_spooled).steps()


def _open_spooled(folder: Path) -> DataBroker:
    database = Database.of(folder / "store")
    events = SpooledEventStore(EmbeddedEventStore(database), folder / "spool")
    return DataBroker(EmbeddedHeaderStore(database), {"embedded": events})


def _check_embedded(folder: Path, done: Sequence[str]) -> Iterator[str]:
    with connect(folder / "store") as db:
        yield from _missing(db, done)


def _check_spooled(folder: Path, done: Sequence[str]) -> Iterator[str]:
    db = _open_spooled(folder)
    db.flush()
    yield from _missing(db, done)
    db.close()


def _missing(db: DataBroker, done: Sequence[str]) -> Iterator[str]:
    """Yield what a store lacks of the steps done or has twice, also after inserting all again."""
    yield from _lacking(db, set(done))
    for _, pair in _documents():
        db.insert(*pair)
    db.seal()
    for expected in RUNS:
        header = db[expected[0][1]["uid"]]
        documents = list(header.documents())
        try:
            assert_documents_equal(expected, documents)
        except AssertionError as error:
            yield f"inserted again: {error}"
        events = sum(1 for name, _ in documents if name == "event")
        if len(header.table().compute()) != events:
            yield f"run {header.uid}: table and documents differ"


def _lacking(db: DataBroker, done: set[str]) -> Iterator[str]:
    have: set[Any] = set()
    for header in db:
        documents = list(header.documents())
        have |= {doc["uid"] for _, doc in documents}
        rows = len(header.table().compute()) if header.streams else 0
        if rows != sum(1 for name, _ in documents if name == "event"):
            yield f"run {header.uid}: table and documents differ"
    for name, (_, doc) in _documents():
        uids = doc["uid"] if isinstance(doc["uid"], list) else [doc["uid"]]
        if name in done and not have.issuperset(uids):
            yield f"{name} was stored and is lost"


# -- files -----------------------------------------------------------------------------------


def _exported(folder: Path) -> Steps:
    with temp() as db, TemporaryDirectory(prefix="daskbroker-source-") as name:
        source = Path(name)
        for name, doc in stream_run(source)[0]:
            db.insert(name, doc)
        for format, files in (("jsonl", folder / "files"), ("parquet", None)):
            made = partial(_export, db, folder / format, format, files)
            yield format, made


def _export(db: DataBroker, folder: Path, format: str, files: Path | None) -> None:
    list(export(db, folder, format, files=files))


def _check_exported(folder: Path, done: Sequence[str]) -> Iterator[str]:
    for format in done:
        if not list((folder / format).rglob(f"*.{format}")):
            yield f"{format}: no file"
    found = list((folder / "files").rglob("*.h5"))
    if "jsonl" in done and len(found) != 1:
        yield "jsonl: no detector file"
    with temp() as db:
        ingest(db, (folder / "jsonl").glob("*.jsonl"))
        for header in db:
            cells = stacked(header.table()["img"].compute())
            if not np.array_equal(cells.reshape(frames(6).shape), frames(6)):
                yield "jsonl: the frames are not those that were copied"


# -- work on a store -------------------------------------------------------------------------


def _make_source(folder: Path) -> None:
    """Make a store with a run of detector data, and a folder of recordings."""
    source = folder / "source"
    with connect(folder / "store") as db:
        source.mkdir()
        for run in (RUNS[0], stream_run(source)[0]):
            for name, doc in run:
                db.insert(name, doc)
        list(export(db, folder / "recordings", "jsonl"))


def _worked(folder: Path) -> Steps:
    yield "check", partial(_check_all, folder / "store")
    yield "backup", partial(_back_up, folder)
    yield "copy", partial(_copy, folder)
    yield "ingest", partial(_ingest, folder)
    yield "reprocess", partial(_reprocess, folder)


def _check_all(place: Path) -> None:
    with connect(place, create=False, mode="r") as db:
        for damage in check(db, files=True):
            raise StoreError(str(damage))


def _back_up(folder: Path) -> None:
    target = folder / "backup"
    with connect(folder / "store", create=False, mode="r") as db, suppress(StoreExists):
        for damage in backup(db, target).damages:
            rmtree(target)
            raise StoreError(str(damage))


def _copy(folder: Path) -> None:
    with connect(folder / "store", create=False, mode="r") as db, connect(folder / "copy") as into:
        for reason in copy(db, into, files=folder / "copied").failed.values():
            raise StoreError(reason)


def _ingest(folder: Path) -> None:
    with connect(folder / "ingested") as db:
        for refusal in ingest(db, folder / "recordings").refusals:
            raise StoreError(refusal.reason)


def _reprocess(folder: Path) -> None:
    with connect(folder / "store", create=False) as db:
        for error in reprocess(db, _mean, db, name="mean").failed.values():
            raise error


def _mean(header: Header) -> Any:
    return header.table()[["time"]].compute().astype("int64")


def _check_worked(folder: Path, done: Sequence[str]) -> Iterator[str]:
    places = {"check": "store", "backup": "backup", "copy": "copy", "ingest": "ingested"}
    for name in (name for name in done if name in places):
        with connect(folder / places[name], create=False) as db:
            yield from (f"{name}: {damage}" for damage in check(db))
            runs = len(db(derived=False))
            if runs != 2:
                yield f"{name}: {runs} runs"
            try:
                assert_documents_equal(RUNS[0], db[RUNS[0][0][1]["uid"]].documents())
            except AssertionError as error:
                yield f"{name}: {error}"
    with connect(folder / "store", create=False) as db:
        if "reprocess" in done and len(db(derived=True)) != 2:
            yield f"reprocess: {len(db(derived=True))} runs"


SESSIONS = (
    Session("embedded", _embedded, _check_embedded),
    Session("spool", _spooled, _check_spooled),
    Session("export", _exported, _check_exported),
    Session("work", _worked, _check_worked, _make_source),
)
