"""Stores that older versions wrote open, read equal and take inserts.

The fixtures and how they are written: ``tests/data/write_stores.py``.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path

import bson
import dask
import numpy as np
import pandas as pd
import pymongo
import pytest
from bson import json_util
from bson.raw_bson import RawBSONDocument

import daskbroker
from daskbroker.core.errors import DuplicateUID, StoreReadOnly
from daskbroker.stores.embedded import format as embedded_format
from daskbroker.stores.mongodb import database as mongo_database
from daskbroker.stores.spool import file as spool
from daskbroker.testing import (
    assert_documents_equal,
    assert_references_first,
    expand_documents,
    make_run,
)
from daskbroker.testing.base import insert_all

DATA = Path(__file__).parent / "data"
FIXTURES = sorted(f"{path.parent.name}/{path.name}" for path in DATA.glob("format-*/*"))
EMBEDDED = [name for name in FIXTURES if "/embedded-" in name]
RAW = bson.CodecOptions(document_class=RawBSONDocument)


# -- fixtures --------------------------------------------------------------------------------


def recorded(name, part):
    with gzip.open(DATA / name / f"{part}.jsonl.gz", "rt") as lines:
        return [tuple(json.loads(line)) for line in lines]


def unpack(name, folder):
    with tarfile.open(DATA / name / "store.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def restore(folder, uri):
    """Put a dump of a database, as :func:`unpack` gives it, into a server."""
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for path in folder.glob("*.bson"):
            collection = database[path.stem]
            documents = bson.decode_all(path.read_bytes(), RAW)
            if documents:
                collection.insert_many(documents)
            indexes = json_util.loads(path.with_suffix(".indexes.json").read_text())
            if indexes:
                database.command("createIndexes", path.stem, indexes=indexes)


@pytest.fixture(params=FIXTURES)
def name(request):
    return request.param


@pytest.fixture
def place(name, tmp_path, mongod_uri):
    """A copy of the store. A spool that it has is in use."""
    folder = unpack(name, tmp_path / "store")
    if name in EMBEDDED:
        yield folder
        return
    uri = f"{mongod_uri}/test_{uuid.uuid4().hex}"
    restore(folder, uri)
    spooled = folder / "spool"
    settings = {"daskbroker.mongo-spool": spooled} if spooled.exists() else {}
    with dask.config.set(settings):
        yield uri
    with pymongo.MongoClient(uri) as client:
        client.drop_database(client.get_default_database().name)


EMBEDDED_KINDS = {"journal", "killed", "packed", "pages", "parquet", "sealed"}
MONGODB_KINDS = {"journal", "kept", "killed", "sealed"}


@pytest.mark.parametrize(
    ("prefix", "known", "kinds"),
    [
        ("embedded", embedded_format.FORMAT_VERSION, EMBEDDED_KINDS),
        ("mongodb", mongo_database.FORMAT_VERSION, MONGODB_KINDS),
        ("mongodb", spool.FORMAT_VERSION, {"spool"}),
    ],
)
def test_every_format_has_its_fixtures(prefix, known, kinds):
    """Else: ``tests/data/write_stores.py``, with the commit that raised the number."""
    for number in range(1, known + 1):
        assert {f"format-{number}/{prefix}-{kind}" for kind in kinds} <= set(FIXTURES)


def test_nothing_is_damaged(place):
    with daskbroker.connect(place, mode="r") as db:
        check = daskbroker.check(db)
        assert list(map(str, check)) == []
        assert check.runs == len(db)


# -- what is expected, from the documents alone ----------------------------------------------


def by_run(documents):
    """The documents of each run, single ones, as ``{uid: [(name, document), …]}``."""
    runs, owners = {}, {}
    for kind, doc in expand_documents(documents):
        refers_to = next(
            (doc[key] for key in ("run_start", "descriptor", "resource") if key in doc),
            doc.get("uid"),
        )
        run = refers_to if kind == "start" else owners[refers_to]
        owners[doc["datum_id"] if kind == "datum" else doc["uid"]] = run
        runs.setdefault(run, []).append((kind, doc))
    return runs


def events_of(documents):
    """The events of each stream by ``seq_num``, the latest under each number."""
    streams = {}
    descriptors = {}
    for kind, doc in documents:
        if kind == "descriptor":
            descriptors[doc["uid"]] = doc["name"]
        elif kind == "event":
            streams.setdefault(descriptors[doc["descriptor"]], {})[doc["seq_num"]] = doc
    return {stream: dict(sorted(rows.items())) for stream, rows in streams.items()}


def is_cell(found, expected, exact=True):
    """Whether a cell of a table, or of a Dataset, is what an event has."""
    if isinstance(expected, list):
        return (found.tolist() if isinstance(found, np.ndarray) else found) == expected
    if isinstance(expected, dict):
        return found == expected
    if expected is None or expected != expected:
        return bool(np.all(pd.isna(found)))  # of an array in a Dataset throughout
    if isinstance(expected, int) and not isinstance(expected, bool) and not exact:
        return float(found) == float(expected)
    return found == expected


def check_table(header, stream, rows):
    table = header.table(stream, fill=False).compute()
    dataset = header.dataset(stream, fill=False)
    times = [event["time"] for event in rows.values()]
    assert table.index.tolist() == dataset["seq_num"].values.tolist() == list(rows)
    for found in (table["time"], dataset["time"].values):
        assert (pd.DatetimeIndex(found).as_unit("us").asi8 / 1e6).tolist() == times
    keys = dict.fromkeys(key for event in rows.values() for key in event["data"])
    assert list(table.columns) == ["time", *keys]
    for key in keys:
        expected = [event["data"].get(key) for event in rows.values()]
        wrong = [p for p in zip(table[key], expected, strict=True) if not is_cell(*p)]
        assert not wrong, (stream, key, wrong[:3])
        cells = zip(dataset[key].values, expected, strict=True)
        wrong = [p for p in cells if not is_cell(*p, exact=False)]
        assert not wrong, (stream, key, wrong[:3])


def check_run(header, documents):
    received = list(header.documents(fill=False))
    assert_references_first(received)
    assert_documents_equal(documents, received)
    assert (header.stop is not None) == (documents[-1][0] == "stop")
    for stream, rows in events_of(documents).items():
        check_table(header, stream, rows)
    frames = sum(
        doc["indices"]["stop"] - doc["indices"]["start"]
        for kind, doc in documents
        if kind == "stream_datum"
    )
    if frames:
        assert len(header.table("frames", fill=False).compute()) == frames


def check_store(db, documents):
    """Check that a store has these documents, in every view, and finds them."""
    runs = by_run(documents)
    starts = sorted((run[0][1] for run in runs.values()), key=lambda doc: -doc["time"])
    assert [header.uid for header in db] == [doc["uid"] for doc in starts]
    for start in starts:
        uid = start["uid"]
        check_run(db[uid], runs[uid])
        assert db[uid[:12]].uid == db[start["scan_id"]].uid == uid
        same_plan = [doc["uid"] for doc in starts if doc["plan_name"] == start["plan_name"]]
        assert [header.uid for header in db(plan_name=start["plan_name"])] == same_plan
        assert [header.uid for header in db(scan_id=start["scan_id"])] == [uid]
        if "purpose" in start:
            assert uid in [header.uid for header in db(start["purpose"])]
            assert [h.uid for h in db(start["purpose"], since=start["time"], until=start["time"])]
    for start in starts:
        if "number" in start:
            assert [header.uid for header in db(number=start["number"])] == [start["uid"]]
    rows = sum(len(events_of(run).get("primary", ())) for run in runs.values())
    assert len(db().table("primary", fill=False).compute()) == rows


# -- tests -----------------------------------------------------------------------------------


def changed(kind, doc):
    """Another document under the same uid; of a page, its last row."""
    other = copy.deepcopy(doc)
    columns = {"event_page": "data", "datum_page": "datum_kwargs"}
    if kind in columns:
        next(iter(other[columns[kind]].values()))[-1] = "something else"
    else:
        other["added"] = "something else"
    return other


def insert(db, *pairs):
    insert_all(db, pairs)
    db.flush()


def test_opens_reads_equal_and_takes_inserts(name, place):
    documents, rest = recorded(name, "documents"), recorded(name, "rest")
    new = make_run(5, scan_id=77, time=2.0e9)
    with daskbroker.connect(place, create=False) as db:
        db.flush()  # whoever only reads does not send what is in a spool
        with daskbroker.connect(place, create=False, mode="r") as reader:
            check_store(reader, documents)
            with pytest.raises(StoreReadOnly, match="was opened to read only"):
                reader.insert(*new[0])

        insert(db, *copy.deepcopy(documents))
        for kind, doc in dict(documents).items():
            row = kind.removesuffix("_page")  # a page is refused for one of its rows
            with pytest.raises(
                DuplicateUID, match=f"{row} .*: a different .* is stored under this uid"
            ):
                insert(db, (kind, changed(kind, doc)))
        insert(db, *rest[:-1])
        uid = rest[-1][1]["run_start"]
        check_run(db[uid], by_run([*documents, *rest[:-1]])[uid])
        insert(db, rest[-1], *new)
        db.seal()
    with daskbroker.connect(place) as db:
        assert db.seal() == 0
        check_store(db, [*documents, *rest, *new])


SPOOLED = [name for name in FIXTURES if "-spool" in name]


@pytest.mark.parametrize("name", SPOOLED, indirect=True)
def test_what_is_in_a_spool_is_sent_by_the_next_process(name, place, tmp_path):
    documents = recorded(name, "documents")
    folder = tmp_path / "store" / "spool"
    (file,) = folder.iterdir()
    before = file.read_bytes()
    with daskbroker.connect(place, mode="r") as db:
        stored = [pair for header in db for pair in header.documents(fill=False)]
    assert 0 < len(stored) < len(list(expand_documents(documents)))
    assert file.read_bytes() == before
    with daskbroker.connect(place) as db:
        check_store(db, documents)
    assert list(folder.iterdir()) == []


AS_NOBODY = """
import importlib.util, os, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("older_stores", sys.argv[1])
older_stores = importlib.util.module_from_spec(spec)
spec.loader.exec_module(older_stores)
older_stores.read_as_nobody(Path(sys.argv[2]))
"""


def read_as_nobody(folder):
    """Check the embedded stores in a folder as a user that may not write there."""
    expected = {name: recorded(name, "documents") for name in EMBEDDED}
    for documents in expected.values():  # what is imported late is, while all can be read
        with daskbroker.temp() as db:
            insert(db, *documents)
            check_store(db, documents)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    for name, documents in expected.items():
        assert not os.access(folder / name, os.W_OK)
        if "-killed" in name:
            with pytest.raises(StoreReadOnly, match="not closed by its last writer"):
                daskbroker.connect(folder / name, mode="r")
            continue
        with daskbroker.connect(folder / name, mode="r") as db:
            check_store(db, documents)
        print(name)


def test_reads_equal_where_nothing_can_be_written():
    with tempfile.TemporaryDirectory(prefix="daskbroker-test-") as place:
        folder = Path(place)
        for name in EMBEDDED:
            unpack(name, folder / name)
        paths = [folder, *folder.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        command = [sys.executable, "-c", AS_NOBODY, __file__, place]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        for path in paths:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name for name in EMBEDDED if "-killed" not in name]
