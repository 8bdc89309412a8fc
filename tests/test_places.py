"""A copy of a store, or a store that replaces one, is never mistaken for the original."""

from __future__ import annotations

import pickle
import shutil

import dask
import dask.dataframe as dd
import pymongo
import pytest
import xarray as xr
from distributed import Client

import daskbroker
from daskbroker.assets.references.by_run import ReferencesByRun
from daskbroker.core.errors import StoreError
from daskbroker.core.layouts import DATUM
from daskbroker.core.redaction import address_of
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.mongod import mongod

RUN = make_run(keys={"x": [float(row) for row in range(40)]}, uid="the-run")
HEAD, TAIL = RUN[:22], RUN[22:]


def changed(documents):
    """Return the same documents with other values."""
    return [
        (name, {**doc, "data": {"x": -doc["data"]["x"]}} if name == "event" else doc)
        for name, doc in documents
    ]


@pytest.fixture(scope="module")
def other_server():
    with mongod() as server:
        yield server.uri


@pytest.fixture(params=["embedded", "mongo"])
def places(request, tmp_path):
    """Return the place of a store with half of an open run, and that of a copy of all of it."""
    if request.param == "embedded":
        original, copy = tmp_path / "original", tmp_path / "copy"
        with daskbroker.connect(original) as db:
            insert_all(db, HEAD)
        shutil.copytree(original, copy)
        return original, copy
    original = request.getfixturevalue("mongo_database")
    copy = f"{request.getfixturevalue('other_server')}/{original.rpartition('/')[2]}"
    with daskbroker.connect(original) as db:
        insert_all(db, HEAD)
    with pymongo.MongoClient(original) as one, pymongo.MongoClient(copy) as other:
        for name in one.get_default_database().list_collection_names():
            docs = list(one.get_default_database()[name].find())
            if docs:
                other.get_default_database()[name].insert_many(docs)
    return original, copy


@pytest.fixture
def pair(places):
    """The original, and the copy, in which the run went on with other values."""
    with daskbroker.connect(places[0]) as original, daskbroker.connect(places[1]) as copy:
        insert_all(original, TAIL)
        insert_all(copy, changed(TAIL))
        yield original["the-run"], copy["the-run"]


def sums(pair):
    """Return the sum of x in both stores."""
    head = sum(doc["data"]["x"] for name, doc in HEAD if name == "event")
    tail = sum(doc["data"]["x"] for name, doc in TAIL if name == "event")
    return (head + tail, head - tail)


def check_both(pair):
    """Check that both stores give their own values, one by one and in one graph."""
    frames = [header.table() for header in pair]
    sets = [header.dataset() for header in pair]
    assert frames[0]._name != frames[1]._name
    assert dask.compute(*[frame["x"].sum() for frame in frames]) == sums(pair)
    assert dd.concat(frames)["x"].sum().compute() == sum(sums(pair))
    computed = dask.compute(*[found["x"].sum() for found in sets])
    assert tuple(float(found) for found in computed) == sums(pair)
    joined = xr.concat(sets, "copy", join="override", coords="minimal", compat="override")
    assert tuple(joined["x"].sum("time").compute().values) == sums(pair)
    assert_documents_equal(RUN, pair[0].documents())
    assert_documents_equal(HEAD + changed(TAIL), pair[1].documents())


def test_original_and_copy_in_one_graph(pair):
    check_both(pair)


def test_on_a_cluster(pair, cluster):
    with Client(cluster), dask.config.set(scheduler=None):
        check_both(pair)


def test_lazy_arrays_of_xarray(pair):
    sets = [header.dataset(chunks=None).chunk({"time": 10}) for header in pair]
    computed = dask.compute(*[found["x"].sum() for found in sets])
    assert tuple(float(found) for found in computed) == sums(pair)


@pytest.fixture
def lazy():
    """So that small streams, too, are arrays of Dask."""
    with dask.config.set({"daskbroker.loaded-size": 0}):
        yield


@pytest.mark.usefixtures("lazy")
def test_unchanged_copies_too_have_other_tokens(places):
    with daskbroker.connect(places[0]) as original, daskbroker.connect(places[1]) as copy:
        one, other = original["the-run"], copy["the-run"]
        assert one.table()._name != other.table()._name
        assert one.dataset()["x"].data.name != other.dataset()["x"].data.name
        sources = [header.es_given_stream("primary") for header in (one, other)]
        references = [
            ReferencesByRun(source.store.plan_references([DATUM], ["the-run"]))["the-run"]
            for source in sources
        ]
        assert references[0].facts != references[1].facts


@pytest.mark.usefixtures("lazy")
def test_two_clients_of_one_place_have_equal_tokens(pair, places):
    header = pair[0]
    names = header.table()._name, header.dataset()["x"].data.name
    again = pickle.loads(pickle.dumps(header))
    portable = pickle.loads(pickle.dumps(header.portable()))
    with daskbroker.connect(places[0], mode="r") as db:
        for same in (again, portable, db["the-run"]):
            assert (same.table()._name, same.dataset()["x"].data.name) == names


def test_the_copy_goes_on_when_the_original_is_gone(tmp_path):
    with daskbroker.connect(tmp_path / "original") as original:
        insert_all(original, RUN)
        original["the-run"].table().compute()
    copy = shutil.copytree(tmp_path / "original", tmp_path / "copy")
    shutil.rmtree(tmp_path / "original")
    with daskbroker.connect(copy) as db:
        assert db["the-run"].table()["x"].sum().compute() == 780
        assert_documents_equal(RUN, db["the-run"].documents())


def test_a_link_leads_to_the_same_place(tmp_path):
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, RUN)
        (tmp_path / "link").symlink_to(tmp_path / "store")
        with daskbroker.connect(tmp_path / "link", mode="r") as same:
            assert same["the-run"].table()._name == db["the-run"].table()._name


@pytest.mark.parametrize("how", ["made anew", "a copy", "moved away"])
def test_a_folder_that_is_replaced_while_it_is_open(tmp_path, how):
    place, aside = tmp_path / "store", tmp_path / "aside"
    old = daskbroker.connect(place)
    insert_all(old, HEAD)
    shutil.copytree(place, aside)
    insert_all(old, TAIL)
    table = old["the-run"].table()
    assert table["x"].sum().compute() == 780
    if how == "moved away":
        place.rename(tmp_path / "moved")
        with daskbroker.connect(tmp_path / "moved") as db:
            moved = db["the-run"].table()
            assert moved._name != table._name
            assert moved["x"].sum().compute() == 780
    else:
        shutil.rmtree(place)
        if how == "a copy":
            aside.rename(place)
        with daskbroker.connect(place) as db:
            assert db is not old
            insert_all(db, changed(RUN) if how == "made anew" else changed(TAIL))
            replaced = db["the-run"].table()
            assert replaced._name != table._name
            expected = -780 if how == "made anew" else sums(None)[1]
            assert replaced["x"].sum().compute() == expected
    old.close()


def test_small_chunks_of_a_folder_that_was_replaced_are_not_those_of_another(tmp_path):
    old = daskbroker.connect(tmp_path / "store")
    insert_all(old, make_run(keys={"x": [1.0] * 20}))
    table = old[-1].table()
    shutil.rmtree(tmp_path / "store")
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, make_run(keys={"x": [2.0] * 20}))
        with pytest.raises(StoreError, match="was replaced by another one"):
            table.compute()
        assert db[-1].table()["x"].sum().compute() == 40
    old.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mongodb://host/db", "mongodb://HOST:27017/db?w=1", True),
        ("mongodb://me:secret@host/db", "mongodb://host/db", True),
        ("mongodb://a,b:27018/db", "mongodb://b:27018,a/db?replicaSet=rs", True),
        ("mongodb://[::1]/db", "mongodb://[::1]:27017/db", True),
        ("mongodb+srv://host/db", "mongodb://host/db", False),
        ("mongodb://host/db", "mongodb://host/other", False),
        ("mongodb://host:27017/db", "mongodb://host:27018/db", False),
        ("mongodb://host/db", "mongodb://host/DB", False),
    ],
)
def test_addresses_are_the_same_however_they_are_written(one, other, same):
    assert (address_of(one) == address_of(other)) is same
