"""Whatever one document of a store holds, every other run is listed, tabled, sealed and copied."""

from __future__ import annotations

import copy
import itertools
import math
import shutil
import sqlite3
import uuid
import warnings
from contextlib import closing

import pymongo
import pytest
from bson import MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import BSONError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskbroker
from daskbroker import BadRunWarning
from daskbroker.core.errors import DaskbrokerError
from daskbroker.testing import external_run, make_run, stream_datum_run
from daskbroker.testing.base import check_run, insert_all

OTHERS = 3
"""So many runs are sound, the last of four is not."""


def check_others(db, runs, bad, **query):
    """Check all but the run ``bad``; what is said of it names it, or where the store has it."""
    others = {uid: docs for uid, docs in runs.items() if uid != bad}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BadRunWarning)
        listed = [header.uid for header in db(**query)]
        assert set(others) <= set(listed)
        assert len(db(**query)) == len(listed) <= len(runs)
        frame = db(**query).table("primary", fill=False, errors="skip").compute()
        for uid in others:
            expected = db[uid].table("primary", fill=False)
            assert (frame["run"] == uid).sum() == len(expected)
        loaded = db(**query).dataset("primary", fill=False, errors="skip", combine="tree")
        assert set(others) <= set(loaded.children)
        given = list(db(**query).documents(fill=False, errors="skip"))
        assert set(others) <= {doc["uid"] for name, doc in given if name == "start"}
        for docs in others.values():
            assert {doc.get("uid") for _, doc in docs} <= {doc.get("uid") for _, doc in given}
        with daskbroker.temp() as other:
            report = daskbroker.copy(db(**query), other)
            assert set(others) <= set(report.copied)
            for uid, docs in others.items():
                check_run(other[uid], docs)
        assert not set(report.failed) & set(others)
        for header in db(**query):
            try:
                db.seal(header)
                list(header.documents(fill=False))
                header.table("primary", fill=False).compute()
            except DaskbrokerError as error:
                assert header.uid not in others, error
        for uid, docs in others.items():
            check_run(db[uid], docs)
    for warning in caught:
        text = str(warning.message)
        assert issubclass(warning.category, BadRunWarning), text
        assert not any(uid in text for uid in others)
        assert bad in text or "_id" in text


def four_runs(stopped, **start):
    made = [
        make_run(3, uid=str(uuid.uuid4()), stop=stopped, **start),
        external_run(2, stop=stopped),
        stream_datum_run(4, stop=stopped),
        make_run(4, ("x",), streams=("primary", "baseline"), stop=stopped, **start),
    ]
    for docs in made:
        docs[0][1].update(start)
    return {docs[0][1]["uid"]: docs for docs in made}


# -- embedded: bytes that change -------------------------------------------------------------

BLOBS = [("header", "start"), ("header", "stop"), ("descriptor", "body"), ("journal", "body"),
         ("chunk_body", "body"), ("chunk_schema", "body")]  # fmt: skip
RUN_OF = {
    "header": "SELECT uid FROM header WHERE id = ?",
    "descriptor": "SELECT run.uid FROM run JOIN descriptor ON run = run.id WHERE descriptor.id = ?",
    "journal": "SELECT run.uid FROM run JOIN sequence ON run = run.id "
    "WHERE sequence.id = ? / 68719476736",
    "chunk_body": "SELECT run.uid FROM run JOIN sequence ON run = run.id "
    "JOIN chunk ON sequence = sequence.id WHERE chunk.id = ?",
    "chunk_schema": "SELECT run.uid FROM run JOIN sequence ON run = run.id "
    "JOIN chunk ON sequence = sequence.id WHERE chunk.schema = ? AND kind = 'event'",
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Stores of stopped and of open runs, and what they hold."""
    made = []
    for stopped in (True, False):
        folder, runs = tmp_path_factory.mktemp("sound") / "store", four_runs(stopped)
        with daskbroker.connect(folder) as db:
            for docs in runs.values():
                insert_all(db, docs)
        made.append((folder, runs))
    return made


def rows_with_blobs(folder):
    with closing(sqlite3.connect(folder / "daskbroker.sqlite")) as connection:
        return [
            (table, column, number)
            for table, column in BLOBS
            for (number,) in connection.execute(
                f"SELECT id FROM {table} WHERE {column} IS NOT NULL"
            )
        ]


def spoil_row(folder, row, change):
    """Change the bytes in a row; the runs that have it."""
    table, column, number = row
    with closing(sqlite3.connect(folder / "daskbroker.sqlite")) as connection:
        query = f"SELECT {column} FROM {table} WHERE id = ?"
        (body,) = connection.execute(query, (number,)).fetchone()
        is_text = isinstance(body, str)
        changed = change(body.encode() if is_text else body)
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE id = ?",
            (changed.decode("latin-1") if is_text else changed, number),
        )
        connection.commit()
        return {uid for (uid,) in connection.execute(RUN_OF[table], (number,))}


@st.composite
def changes_of_bytes(draw):
    place, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))
    how = draw(st.sampled_from(["flip", "cut", "zeros"]))

    def change(body):
        at = int(place * len(body))
        if how == "flip":
            return body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :]
        return body[:at] if how == "cut" else body[:at] + bytes(len(body) - at)

    return change


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_row_of_an_embedded_store(embedded, tmp_path_factory, data):
    source, runs = data.draw(st.sampled_from(embedded))
    folder = shutil.copytree(source, tmp_path_factory.mktemp("spoilt") / "store")
    try:
        row = data.draw(st.sampled_from(rows_with_blobs(source)))
        having = spoil_row(folder, row, data.draw(changes_of_bytes()))
        if len(having) != 1:  # a list of columns that runs share, or of references
            return
        with daskbroker.connect(folder) as db:
            check_others(db, runs, having.pop())
    finally:
        shutil.rmtree(folder)


# -- MongoDB: documents of another writer ----------------------------------------------------

COLLECTIONS = {"start": "run_start", "stop": "run_stop", "descriptor": "event_descriptor"}
KEEP = {"start": ("batch",)}
"""What a search of this test finds runs by."""
ABSENT = object()
odd_values = st.one_of(
    st.sampled_from([ABSENT, None, True, 5, -1, 2**60, 0.5, math.nan, math.inf, "", "text", b"\0"]),
    st.builds(ObjectId),
    st.sampled_from([MinKey(), MaxKey(), Regex("a"), Timestamp(1, 1), [], {}, [1], {"a": [{}]}]),
)
numbers = itertools.count()


@pytest.fixture(scope="module")
def mongo(mongod_uri):
    place = f"{mongod_uri}/test_{uuid.uuid4().hex}"
    with pymongo.MongoClient(place) as client:
        raw = client.get_default_database()
        with daskbroker.connect(place) as db:
            db.header_source.store.create_indexes()
            yield db, raw
        client.drop_database(raw.name)


@st.composite
def changed(draw, doc, kept):
    """A document with something odd in one place of it."""
    doc = copy.deepcopy(doc)
    place = doc
    while True:
        steps = [key for key in place if key not in kept] if isinstance(place, dict) else []
        if isinstance(place, list):
            steps = list(range(len(place)))
        if not steps:
            return doc
        step = draw(st.sampled_from([*steps, "_daskbroker"] if place is doc else steps))
        inside = place[step] if not isinstance(place, dict) else place.get(step)
        if isinstance(inside, (dict, list)) and inside and draw(st.booleans()):
            place = inside
            continue
        value = draw(odd_values)
        if value is not ABSENT:
            place[step] = value
        elif isinstance(place, dict):
            place.pop(step, None)
        return doc


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_document_of_a_mongodb(mongo, data):
    db, raw = mongo
    batch = next(numbers)
    runs = four_runs(stopped=True, batch=batch)
    bad = data.draw(st.sampled_from(list(runs)))
    place = data.draw(st.integers(0, len(runs[bad]) - 1))
    for uid, docs in runs.items():
        for number, (name, doc) in enumerate(docs):
            if (uid, number) == (bad, place):
                doc = data.draw(changed(doc, KEEP.get(name, ())))
            try:
                raw[COLLECTIONS.get(name, name)].insert_one(dict(doc))
            except (pymongo.errors.PyMongoError, BSONError):
                assert uid == bad  # no writer could have stored it
    check_others(db, runs, bad, batch=batch)
