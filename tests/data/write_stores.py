"""Write stores in the format that the checked out daskbroker has, as fixtures for later ones.

``PYTHONPATH=. python tests/data/write_stores.py`` writes ``format-<n>/<fixture>/`` beside this
script, for those fixtures of ``FIXTURES`` that are not there yet; ``<n>`` is the number of the
format. What is there is never overwritten: it stands for stores that people have. So whoever
changes a format raises its number, runs this after the change is committed, and commits the new
folders; nothing else is to be done, as ``tests/test_older_stores.py`` takes every folder that it
finds. Where what is written changes in a way that older versions read too, the number stays, and
``--suffix checksums embedded-parquet`` writes ``format-<n>/embedded-parquet-checksums``.

A fixture has four files:

``store.tar.gz``
    The store. Of an embedded one its folder; of MongoDB, for each collection, its documents one
    after the other as BSON, in the order of insertion, and its indexes as extended JSON; in the
    folder ``spool`` the file that a killed process has left.
``documents.jsonl.gz``
    What was inserted and is in it, as lines ``[name, document]``, written from the documents
    themselves by ``json`` alone.
``rest.jsonl.gz``
    What completes the run that is still open.
``origin.json``
    The last commit that changed ``daskbroker/``, and the versions of what wrote the files.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pyarrow
import pymongo
from bson import json_util
from bson.raw_bson import RawBSONDocument

import daskbroker
from daskbroker.stores.embedded import format as embedded_format
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.stores.mongodb import database as mongo_database
from daskbroker.stores.mongodb import sealing
from daskbroker.stores.spool import file as spool
from daskbroker.stores.spool import sender
from daskbroker.testing import RunBuilder
from daskbroker.testing.mongod import mongod

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

Documents = list[tuple[str, Any]]
Written = tuple[Documents, Documents]
"""The documents that a store holds, and those that complete its open run."""

# -- documents -------------------------------------------------------------------------------

FIRST_TIME = 1_700_000_000.0


def begin(scan_id: int, purpose: str, **extra: Any) -> RunBuilder:
    """Begin a run that is found by its scan_id and by the words of its purpose."""
    time = FIRST_TIME + 1000.0 * scan_id
    return RunBuilder(time=time, scan_id=scan_id, purpose=f"fixture {purpose}", **extra)


def streams_run() -> Documents:
    """Two streams with alternating events of numbers, texts and arrays, with configuration."""
    run = begin(1, "streams", sample={"name": "Größe 銀 🔬", "mass": 0.5}, plan_name="scan")
    row = {"x": 0.5, "n": 1, "label": "a", "spectrum": [1.0, 2.0, 3.0]}
    settings = {"det": {"data": {"gain": 2}, "timestamps": {"gain": 1.5}, "data_keys": {}}}
    primary = run.descriptor(row, configuration=settings)
    baseline = run.descriptor({"temperature": 0.5}, "baseline")
    run.event(baseline, {"temperature": 4.2})
    for n in range(5):
        data = {"x": n / 2, "n": n, "label": f"µ{n}", "spectrum": [n / 4, math.inf, -0.0]}
        run.event(primary, data)
    run.event(baseline, {"temperature": 4.5})
    return run.stop()


def references_run() -> Documents:
    """Resources and datums, also those of streams; the files do not exist."""
    run = begin(2, "references", plan_name="fly")
    old = {"source": "x", "dtype": "array", "shape": [4, 4], "external": "FILESTORE:"}
    new = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    primary = run.descriptor({"img": old, "x": 0.5})
    frames = run.descriptor({"eiger": new}, "frames")
    resource = run.resource(resource_kwargs={"frame_per_point": 2})
    for n in range(4):
        datum = run.datum(resource, f"{resource}/{n}", point_number=n)
        run.event(primary, {"img": datum, "x": n / 2}, filled={"img": False})
    ids = [f"{resource}/page-{n}" for n in range(3)]
    kwargs = {"point_number": [4, 5, 6]}
    run.add("datum_page", {"resource": resource, "datum_id": ids, "datum_kwargs": kwargs})
    for datum in ids:
        run.event(primary, {"img": datum, "x": -1.0}, filled={"img": False})
    stream_resource = run.stream_resource("eiger")
    for first in (0, 2, 4):
        run.stream_datum(stream_resource, frames, (first, first + 2))
    return run.stop()


def rewound_run() -> Documents:
    """Events that are taken again, with the same numbers."""
    run = begin(3, "rewound", plan_name="scan")
    primary = run.descriptor({"x": 1})
    for seq_num, x in ((1, 1), (2, 2), (2, 20), (3, 3)):
        run.event(primary, {"x": x}, seq_num)
    return run.stop()


def descriptors_run() -> Documents:
    """A stream whose descriptor changed: other keys, another type."""
    run = begin(4, "descriptors", plan_name="scan")
    first = run.descriptor({"x": 1, "y": 0.5})
    for n in range(3):
        run.event(first, {"x": n, "y": n / 2})
    second = run.descriptor({"x": 0.5, "z": "a"})
    for n in range(3):
        run.event(second, {"x": n / 4, "z": f"z{n}"})
    return run.stop()


def edges_run() -> Documents:
    """Values at the edges, among them those that BSON cannot hold, in each kind of document."""
    odd = {
        "large": [2**63, -(2**70), 10**30],
        "numbers": [math.nan, -math.inf, -0.0, 5e-324, 1],
        "texts": ["", "nul\0l", "\ud800", "Ω", "line\nbreak"],
        "$where": {"a.b": None, "": True},
    }
    run = begin(5, "edges", odd=odd, number=2**70, plan_name="größe", tags=[])
    columns: dict[str, list[Any]] = {
        "nothing": [None, None, None],
        "flag": [True, None, False],
        "int": [1, -(2**53), 2**53],
        "long": [2**53 + 1, -(2**63), 2**63 - 1],
        "uint": [2**63, 2**64 - 1, 0],
        "big": [2**64, -(2**70), 1],
        "float": [math.nan, math.inf, -0.0],
        "number": [1, 1.5, None],
        "text": ["", "\U0001f52c", "a'b\"c"],
        "surrogate": ["\ud800", "b", None],
        "block": [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 0], [1, 2]]],
        "ragged": [[0.5], [], [1.5, 2.5]],
        "names": [["a", "b"], ["ü", ""], ["c", "d"]],
        "anything": [{"a": [1, None]}, [1, "x"], 2.5],
        "key.with dots $": [1, 2, 3],
    }
    primary = run.descriptor({key: values[0] for key, values in columns.items()}, odd=odd)
    for n in range(3):
        run.event(primary, {key: values[n] for key, values in columns.items()}, beside=odd)
    run.event(primary, {"int": 4, "text": "all others are missing"}, filled={"int": True})
    resource = run.resource(resource_kwargs={"odd": odd})
    run.datum(resource, f"{resource}/odd", odd=odd)
    return run.stop("abort", reason="größe", odd=odd)


def paged_run(scan_id: int = 6, rows: int = 1050) -> Documents:
    """Two pages, a short one, and one that MongoDB stores as a chunk at once."""
    run = begin(scan_id, "paged", plan_name="fly")
    primary = run.descriptor({"n": 1, "v": [1, 2]})
    run.event_page(primary, [{"n": n, "v": [n, -n]} for n in range(60)])
    page = run.event_page(primary, [{"n": 60 + n, "v": [n % 2, 0]} for n in range(rows)])
    page["uid"] = [f"{primary}/{n}" for n in range(rows)]  # small when compressed
    return run.stop()


def open_run(scan_id: int, *, pages: bool = False) -> Written:
    """A run that has not stopped, and what completes it: in both, events and references."""
    run = begin(scan_id, "open", sample={"name": "silver", "n": 2**70}, plan_name="grid")
    spec = {"source": "x", "dtype": "array", "shape": [4, 4], "external": "FILESTORE:"}
    primary = run.descriptor({"x": 0.5, "n": 1, "label": "a", "img": spec})
    dark = run.descriptor({"y": 1}, "dark")
    resource = run.resource()
    half = 0
    for n in range(12):
        if n == 6:
            if pages:
                run.event_page(dark, [{"y": 100 + row} for row in range(70)])
                run.event_page(dark, [{"y": 200 + row} for row in range(55)])
            half = len(run.documents)
        datum = run.datum(resource, f"{resource}/{n}", point_number=n)
        data = {"x": n / 2, "n": n, "label": f"l{n % 3}", "img": datum}
        run.event(primary, data, filled={"img": False})
        run.event(dark, {"y": n})
    documents = run.stop()
    return documents[:half], documents[half:]


def stopped_runs() -> Documents:
    """Return one run of each kind."""
    makers = (
        streams_run,
        references_run,
        rewound_run,
        descriptors_run,
        edges_run,
        paged_run,
    )
    return [pair for make in makers for pair in make()]


# -- embedded stores -------------------------------------------------------------------------


def insert(place: str, documents: Documents, **options: Any) -> None:
    """Insert into a store, and close it."""
    with dask.config.set(options), daskbroker.connect(place) as db:
        for name, doc in documents:
            db.insert(name, doc)


def embedded_sealed(folder: Path) -> Written:
    """All rows in chunks inside SQLite, those of the open run too."""
    documents, rest = open_run(7)
    documents = [*stopped_runs(), *documents]
    insert(str(folder), documents)
    with daskbroker.connect(folder) as db:
        db.seal()
    return documents, rest


def embedded_journal(folder: Path) -> Written:
    """An open run: rows in the journal, and some in chunks."""
    documents, rest = open_run(2)
    documents = [*rewound_run(), *documents]
    insert(str(folder), documents, **{"daskbroker.seal-rows": 4})
    return documents, rest


def embedded_pages(folder: Path) -> Written:
    """An open run: pages, which have one line each, and single rows, in the journal."""
    documents, rest = open_run(2, pages=True)
    insert(str(folder), documents)
    return documents, rest


def embedded_packed(folder: Path) -> Written:
    """Chunks in two packs; of the open run also rows in the journal."""
    documents = stopped_runs()
    more, rest = open_run(7)
    insert(str(folder), documents)
    for some in ([], more[:8]):
        insert(str(folder), some)
        with daskbroker.connect(folder) as db:
            db.seal()
            pack_small_chunks(db.event_sources["embedded"].store._database)
    insert(str(folder), more[8:])
    return [*documents, *more], rest


def embedded_parquet(folder: Path) -> Written:
    """A chunk in a Parquet file, of a stopped run and of the open one."""
    run = begin(1, "large", plan_name="scan")
    row = {"n": 1, "label": "a", "spectrum": [0] * 1000}
    primary = run.descriptor(row)
    for n in range(12):
        run.event(primary, {**row, "n": n, "label": f"l{n}"})
    documents = run.stop()
    more, rest = open_run(2)
    run = begin(3, "paged and large", plan_name="fly")
    large = run.descriptor({"v": [0] * 100})
    run.event_page(large, [{"v": [n] * 100} for n in range(100)])
    documents += [*more, *run.stop()]
    insert(str(folder), documents)
    with daskbroker.connect(folder) as db:
        db.seal()
    return documents, rest


def embedded_killed(folder: Path) -> Written:
    """A part is in SQLite's write-ahead log, as its writer was killed."""
    before = rewound_run()
    documents, rest = open_run(2)
    insert(str(folder), before)
    in_killed_process(insert_and_die, str(folder), documents)
    Path(folder, "daskbroker.sqlite-shm").unlink()  # made anew from the log
    return [*before, *documents], rest


# -- MongoDB ---------------------------------------------------------------------------------


def mongodb_journal(uri: str, folder: Path) -> Written:
    """An open run: rows in the journal, and some in chunks."""
    documents, rest = open_run(2)
    documents = [*rewound_run(), *documents]
    insert(uri, documents, **{"daskbroker.seal-rows": 4})
    return documents, rest


def mongodb_sealed(uri: str, folder: Path) -> Written:
    """All rows in chunks, those of the open run too; one chunk has a binary for each column."""
    documents, rest = open_run(7)
    run = begin(8, "large", plan_name="scan")
    large = run.descriptor({"v": [0] * 100, "n": 1})
    run.event_page(large, [{"v": [n] * 100, "n": n} for n in range(100)])
    documents = [*stopped_runs(), *run.stop(), *documents]
    insert(uri, documents)
    with daskbroker.connect(uri) as db:
        db.seal()
    return documents, rest


def mongodb_kept(uri: str, folder: Path) -> Written:
    """Rows in chunks and in the journal as well, for databroker."""
    documents, rest = open_run(7)
    documents = [*stopped_runs(), *documents]
    insert(uri, documents, **{"daskbroker.mongo-keep-journal": True})
    with daskbroker.connect(uri) as db:
        db.seal(keep_journal=True)
    return documents, rest


def mongodb_killed(uri: str, folder: Path) -> Written:
    """Rows in a chunk and in the journal as well, as their sealer was killed."""
    documents, rest = open_run(2)
    documents = [*rewound_run(), *documents]
    insert(uri, documents)
    in_killed_process(seal_and_die, uri)
    return documents, rest


def mongodb_spool(uri: str, folder: Path) -> Written:
    """An open run whose last events are in the spool of a process that was killed."""
    documents, rest = open_run(2)
    before = [*rewound_run(), *documents[:4]]
    events = [pair for pair in documents[4:] if pair[0] == "event"]
    datums = [pair for pair in documents[4:] if pair[0] != "event"]
    page = [pair for pair in paged_run(1) if pair[0] != "stop"]
    before += [*datums, *page[:2]]
    insert(uri, before)
    spooled = [*events, *page[2:]]
    in_killed_process(spool_and_die, uri, str(folder / "spool"), spooled)
    return [*before, *spooled], rest


# -- processes that are killed ---------------------------------------------------------------


def in_killed_process(target: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a new process, which it ends by SIGKILL."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise SystemExit(f"the writer ended with {process.exitcode} before it was killed")


def insert_and_die(place: str, documents: Documents) -> None:
    """Insert, and be killed before the store is closed."""
    db = daskbroker.connect(place)
    for name, doc in documents:
        db.insert(name, doc)
    os.kill(os.getpid(), signal.SIGKILL)


def seal_and_die(uri: str) -> None:
    """Seal, and be killed when the chunk is stored and its rows are still in the journal."""

    def die(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    sealing._remove_rows = die
    with daskbroker.connect(uri) as db:
        db.seal()


def spool_and_die(uri: str, folder: str, documents: Documents) -> None:
    """Insert into a spool, and be killed before any of it is sent."""
    sender.COLLECT_SECONDS = 600.0
    with dask.config.set({"daskbroker.mongo-spool": folder, "daskbroker.seal-rows": 10**6}):
        insert_and_die(uri, documents)


# -- files -----------------------------------------------------------------------------------


def dump_database(uri: str, folder: Path) -> None:
    """Write the documents and the indexes of each collection."""
    with pymongo.MongoClient(uri, document_class=RawBSONDocument) as client:
        database = client.get_default_database()
        for name in sorted(database.list_collection_names()):
            found = database[name].find().sort("$natural", 1)
            Path(folder, f"{name}.bson").write_bytes(b"".join(doc.raw for doc in found))
            indexes = [one for one in database[name].list_indexes() if one["name"] != "_id_"]
            Path(folder, f"{name}.indexes.json").write_text(json_util.dumps(indexes, indent=1))


def packed(data: bytes) -> bytes:
    """Return compressed bytes, the same for the same input."""
    return gzip.compress(data, 9, mtime=0)


def archive(folder: Path) -> bytes:
    """Return an archive of the files below a folder."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            info = tar.gettarinfo(path, path.relative_to(folder).as_posix())
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if path.is_dir() else 0o644
            if path.is_dir():
                tar.addfile(info)
            else:
                with path.open("rb") as file:
                    tar.addfile(info, file)
    return packed(sink.getvalue())


def lines(documents: Iterable[tuple[str, Any]]) -> bytes:
    """Return documents as JSON lines; NaN and Infinity are written by these names."""
    return packed("".join(json.dumps(pair) + "\n" for pair in documents).encode())


def git(*arguments: str) -> str:
    """Return the output of a command of git."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def origin() -> dict[str, str]:
    """Return the commit and the versions that write the fixture.

    Raises
    ------
    SystemExit
        If it is not the daskbroker of a commit.
    """
    if not Path(daskbroker.__file__).is_relative_to(ROOT):
        raise SystemExit(f"this is the daskbroker of {daskbroker.__file__}; set PYTHONPATH={ROOT}")
    if git("status", "--porcelain", "--", "daskbroker"):
        raise SystemExit(
            "daskbroker/ has changes that are not committed: no commit has this format"
        )
    return {
        "commit": git("rev-list", "-1", "HEAD", "--", "daskbroker"),
        "python": sys.version.split()[0],
        "pyarrow": pyarrow.__version__,
        "pymongo": pymongo.version,
        "sqlite": sqlite3.sqlite_version,
    }


EMBEDDED = {
    "embedded-journal": embedded_journal,
    "embedded-killed": embedded_killed,
    "embedded-packed": embedded_packed,
    "embedded-pages": embedded_pages,
    "embedded-parquet": embedded_parquet,
    "embedded-sealed": embedded_sealed,
}
MONGODB = {
    "mongodb-journal": mongodb_journal,
    "mongodb-kept": mongodb_kept,
    "mongodb-killed": mongodb_killed,
    "mongodb-sealed": mongodb_sealed,
    "mongodb-spool": mongodb_spool,
}
FIXTURES = (*EMBEDDED, *MONGODB)


def folder_of(name: str, suffix: str = "") -> Path:
    """Return the folder of a fixture, by the present number of its format."""
    if name.endswith("-spool"):
        number = spool.FORMAT_VERSION
    else:
        number = (embedded_format if name in EMBEDDED else mongo_database).FORMAT_VERSION
    return HERE / f"format-{number}" / (f"{name}-{suffix}" if suffix else name)


@contextmanager
def new_fixture(final: Path, facts: dict[str, str]) -> Any:
    """Yield a folder for a store, and write the fixture afterwards, with its documents."""
    with tempfile.TemporaryDirectory(prefix="daskbroker-fixture-") as place:
        written: list[Written] = []
        yield Path(place), written.append
        ((documents, rest),) = written
        final.mkdir(parents=True)
        Path(final, "store.tar.gz").write_bytes(archive(Path(place)))
        Path(final, "documents.jsonl.gz").write_bytes(lines(documents))
        Path(final, "rest.jsonl.gz").write_bytes(lines(rest))
        Path(final, "origin.json").write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    """Write the fixtures that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="fixture", help=f"of {', '.join(FIXTURES)}")
    parser.add_argument("--suffix", default="", help="after the names of the folders")
    options = parser.parse_args()
    if unknown := set(options.names) - set(FIXTURES):
        parser.error(f"there are no fixtures {sorted(unknown)}")
    places = {name: folder_of(name, options.suffix) for name in options.names or FIXTURES}
    for final in places.values():
        if options.names and final.exists():
            raise SystemExit(f"{final} exists and is never overwritten")
    facts = origin()
    for name, final in places.items():
        if final.exists():
            continue
        if name in EMBEDDED:
            with new_fixture(final, facts) as (folder, done):
                done(EMBEDDED[name](folder))
        else:
            with new_fixture(final, facts) as (folder, done), mongod() as server:
                uri = f"{server.uri}/fixture"
                done(MONGODB[name](uri, folder))
                dump_database(uri, folder)
        sys.stdout.write(f"{final}\n")


if __name__ == "__main__":
    main()
