"""What a newer daskbroker has written is refused by name, and stays as it is."""

from __future__ import annotations

import os
import sqlite3
import zlib

import bson
import dask
import pyarrow as pa
import pymongo
import pytest

import daskbroker
from daskbroker.core.chunks import from_ipc, to_ipc
from daskbroker.core.documents import from_json, to_json
from daskbroker.core.errors import StoreDamaged, StoreVersion
from daskbroker.core.formats import check_format
from daskbroker.stores.spool.file import SIGNATURE, SpoolFile
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all


@pytest.mark.parametrize("found", [1, 2, 3, 2.0])
def test_formats_up_to_the_known_one_are_taken(found):
    assert check_format("the store", found, 3) is None


def test_a_newer_format_is_named():
    with pytest.raises(
        StoreVersion, match=r"^the store is of format 4; .* up to 3: install a newer"
    ):
        check_format("the store", 4, 3)


@pytest.mark.parametrize("found", [None, 0, -1, 1.5, "1", True, float("nan"), [1]])
def test_what_is_no_number_of_a_format_is_damage(found):
    with pytest.raises(StoreDamaged, match="not a format number"):
        check_format("the store", found, 3)


# -- stores ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["a", "r"])
def test_an_embedded_store(tmp_path, mode):
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, make_run(3))
    with sqlite3.connect(tmp_path / "daskbroker.sqlite") as connection:
        connection.execute("PRAGMA user_version=2")
    connection.execute("PRAGMA journal_mode=DELETE")  # it may be of another mind there too
    connection.close()
    before = (tmp_path / "daskbroker.sqlite").read_bytes()
    with pytest.raises(StoreVersion, match=rf"{tmp_path} is of format 2.* up to 1: install"):
        daskbroker.connect(tmp_path, mode=mode)
    assert (tmp_path / "daskbroker.sqlite").read_bytes() == before


@pytest.mark.parametrize("mode", ["a", "r"])
def test_an_sqlite_file_of_another_program(tmp_path, mode):
    path = tmp_path / "daskbroker.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="not one of daskbroker"):
        daskbroker.connect(tmp_path, mode=mode)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("number", [2, 2.0, bson.Int64(2)], ids=repr)
def test_a_database_of_mongodb(mongo_database, mode, number):
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, make_run(3))
    with pymongo.MongoClient(mongo_database) as client:
        database = client.get_default_database()
        database.daskbroker_meta.update_one({}, {"$set": {"format": number}})
        before = {name: list(database[name].find()) for name in database.list_collection_names()}
        with pytest.raises(StoreVersion, match=r"127.*/test_\w+ is of format 2; .* up to 1: inst"):
            daskbroker.connect(mongo_database, mode=mode)
        after = {name: list(database[name].find()) for name in database.list_collection_names()}
    assert after == before


@pytest.mark.parametrize("note", [{}, {"format": "one"}])
def test_a_database_whose_note_has_no_number(mongo_database, note):
    with pymongo.MongoClient(mongo_database) as client:
        database = client.get_default_database()
        database.daskbroker_meta.insert_one({"_id": "store", "store_id": "x", **note})
    with pytest.raises(StoreDamaged, match="not a format number"):
        daskbroker.connect(mongo_database)


def test_a_database_that_became_newer_before_the_first_insert(mongo_database):
    documents = make_run(3)
    with (
        daskbroker.connect(mongo_database) as db,
        pymongo.MongoClient(mongo_database) as client,
    ):
        database = client.get_default_database()
        database.daskbroker_meta.insert_one({"_id": "store", "store_id": "x", "format": 2})
        with pytest.raises(StoreVersion, match="format 2"):
            insert_all(db, documents)
        assert database.list_collection_names() == ["daskbroker_meta"]


# -- spools ----------------------------------------------------------------------------------


@pytest.fixture
def left_behind(mongo_database, tmp_path):
    """The spool of a process that died, with the last events of a run, and its documents."""
    documents = make_run(20)
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, documents[:10])
        store = db.event_sources["mongo"].store._database.store_id
    with dask.config.set({"daskbroker.mongo-spool": tmp_path}):
        source = daskbroker.connect(mongo_database)
        insert_all(source, documents[10:15])
        (path,) = tmp_path.glob(f"{store}-*.spool")
        body = path.read_bytes()
        source.flush()
        source.close()
        path.write_bytes(body)
        with pymongo.MongoClient(mongo_database) as client:
            uids = [doc["uid"] for _, doc in documents[10:15]]
            client.get_default_database().event.delete_many({"uid": {"$in": uids}})
        yield path, documents


def test_the_spool_of_a_newer_daskbroker_is_kept(left_behind, mongo_database, caplog):
    path, documents = left_behind
    other = path.with_name(path.name.replace(".spool", "0.spool"))
    other.write_bytes(path.read_bytes())
    newer = SIGNATURE + (2).to_bytes(4, "little") + path.read_bytes()
    path.write_bytes(newer)
    for _ in range(2):
        with daskbroker.connect(mongo_database) as db:
            assert_documents_equal(documents[:15], db[-1].documents())  # the other was sent
    assert path.read_bytes() == newer
    assert list(path.parent.iterdir()) == [path]
    assert f"the spool {path} is of format 2; this daskbroker knows formats up to 1" in caplog.text


def test_a_spool_that_says_that_it_is_of_format_1(left_behind, mongo_database):
    path, documents = left_behind
    path.write_bytes(SIGNATURE + (1).to_bytes(4, "little") + path.read_bytes())
    with daskbroker.connect(mongo_database) as db:
        assert_documents_equal(documents[:15], db[-1].documents())
    assert not path.exists()


@pytest.mark.parametrize("place", [-1, -40, 4])
def test_what_cannot_be_read_of_a_spool_is_kept(left_behind, mongo_database, caplog, place):
    path, documents = left_behind
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)
    with daskbroker.connect(mongo_database) as db:
        found = [doc["uid"] for name, doc in db[-1].documents() if name == "event"]
    expected = [doc["uid"] for _, doc in documents[2:15]]
    del expected[8 if place == 4 else 12]  # the first record of the spool, or the last one
    assert found == expected
    assert path.with_suffix(".refused").read_bytes() == body
    assert "cannot be read" in caplog.text


def test_a_record_is_never_taken_for_the_signature(tmp_path):
    file = SpoolFile.new(tmp_path, "store")
    length = int.from_bytes(SIGNATURE[:4], "little")
    assert length > 2**30
    file.append(SIGNATURE)
    assert list(file.records()) == [SIGNATURE]
    assert os.path.getsize(file.path) == file.size
    file.close(remove=True)


# -- chunks ----------------------------------------------------------------------------------


def with_note(table, column, note):
    """A chunk whose column says something else of itself."""
    place = table.column_names.index(column)
    field = table.schema.field(place).with_metadata({b"daskbroker": note})
    return pa.Table.from_arrays(table.columns, schema=table.schema.set(place, field))


NOTES = {
    "kind": (b'{"kind":["decimal",0,"",[]]}', "kind 'decimal'"),
    "note": (b'{"kind":["int",0,"",[]],"scale":"3"}', r"notes \(scale\)"),
}


@pytest.mark.parametrize("note", NOTES)
def test_a_chunk_with_values_of_a_kind_that_is_not_known(tmp_path, note):
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, make_run(3))
    with sqlite3.connect(tmp_path / "daskbroker.sqlite") as connection:
        ((number, body),) = connection.execute("SELECT id, body FROM chunk_body").fetchall()
        body = to_ipc(with_note(from_ipc(body), "data:n", NOTES[note][0]))
        connection.execute("UPDATE chunk_body SET body = ? WHERE id = ?", (body, number))
    connection.close()
    with daskbroker.connect(tmp_path) as db:
        for read in (db[-1].table().compute, lambda: list(db[-1].documents())):
            with pytest.raises(StoreVersion, match=rf"column 'data:n' .*{NOTES[note][1]}.*newer"):
                read()
        assert len(db[-1].table(fields=["x"]).compute()) == 3


def change_manifest(body):
    return to_json({**from_json(body), "data:n": ["decimal", 0, "", []]})


def test_a_manifest_of_an_embedded_store(tmp_path):
    strange, good = make_run(3), make_run(2, keys=("x",))
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, [*strange, *good])
    with sqlite3.connect(tmp_path / "daskbroker.sqlite") as connection:
        for number, body in connection.execute("SELECT id, body FROM chunk_schema").fetchall():
            if "data:n" in body:
                values = (change_manifest(body), number)
                connection.execute("UPDATE chunk_schema SET body = ? WHERE id = ?", values)
    connection.close()
    with daskbroker.connect(tmp_path) as db:
        with pytest.raises(StoreVersion, match=r"column 'data:n' .*kind 'decimal'.*newer"):
            db[-2].table()
        assert_documents_equal(good, db[-1].documents())


def test_a_manifest_in_mongodb(mongo_database):
    strange, good = make_run(3), make_run(2, keys=("x",))
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, [*strange, *good])
    with pymongo.MongoClient(mongo_database) as client:
        chunks = client.get_default_database().event_chunk
        (chunk,) = chunks.find({"schema": {"$regex": "data:n"}})
        schema = change_manifest(chunk["schema"])
        sums = chunk["checksums"][:4] + zlib.crc32(schema.encode()).to_bytes(4, "little")
        chunks.update_one({"_id": chunk["_id"]}, {"$set": {"schema": schema, "checksums": sums}})
    with daskbroker.connect(mongo_database) as db:
        with pytest.raises(StoreVersion, match=r"column 'data:n' .*kind 'decimal'.*newer"):
            db[-2].table()
        assert_documents_equal(good, db[-1].documents())
