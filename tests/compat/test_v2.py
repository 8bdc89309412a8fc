"""``db.v2`` is what databroker's catalog was: a mapping of runs, which are mappings of streams."""

from __future__ import annotations

import pickle

import dask.array
import event_model
import numpy as np
import pytest

from daskbroker.compat.queries import TextQuery, TimeRange
from daskbroker.core.errors import BadQuery
from daskbroker.testing import make_run, rewound_run, stream_datum_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, Squares


def test_a_catalog_is_a_mapping_of_runs(db):
    catalog = db.v2
    assert list(catalog) == list(catalog()) == ["configured", "frames", "plain-run"]
    assert len(catalog) == 3
    assert [(uid, run.name) for uid, run in catalog.items()] == [(uid, uid) for uid in catalog]
    for key in (-1, 7, "configured", "config"):
        assert catalog[key] == catalog["configured"]
        assert key in catalog
    for key, error in ((-4, IndexError), (4500, KeyError), ("nosuch", KeyError), (None, TypeError)):
        assert key not in catalog
        with pytest.raises(error, match=str(key).lstrip("-")):
            catalog[key]
    assert catalog.v1 is db.v1
    assert catalog.v2 is catalog is db.v1.v2


def test_searches_narrow_one_another(db):
    silver = db.v2.search({"sample": "Ag"})
    assert list(silver) == list(silver.search({"time": {"$gt": 0}})) == ["configured"]
    assert silver[-1].name == "configured"
    with pytest.raises(IndexError, match="2"):
        silver[-2]
    assert "frames" not in silver
    assert list(db.v2.search({})) == list(db.v2)
    assert list(db.v2.search(TextQuery("Ag"))) == ["configured"]
    assert list(db.v2.search({"$text": {"$search": "Ag"}, "scan_id": 6})) == []
    assert pickle.loads(pickle.dumps(silver)) == silver != db.v2


def test_the_two_interfaces_of_a_search_have_its_runs(db):
    one = db.v2.search({"sample": "Ag"})
    v1 = one.v1
    assert v1[-1].uid == v1["confi"].uid == v1["c"].uid == v1[-1:][0].uid == "configured"
    assert [run.uid for run in v1()] == list(v1.v2) == ["configured"]
    for key, error, told in (
        ("frames", KeyError, "frames"),
        (6, KeyError, "has the scan_id 6"),
        (-2, IndexError, "too far back"),
    ):
        with pytest.raises(error, match=told):
            v1[key]
    assert db.v1[6].uid == "frames"
    assert list(v1(plan_name="scan")) == []
    again = pickle.loads(pickle.dumps(v1))
    assert [run.uid for run in again()] == ["configured"]
    assert list(one.search({"scan_id": 6}).v1()) == []
    assert db.v2.v1 is db.v1
    assert db.v1.v2 is db.v2

    def mark(name, doc):
        return {**doc, "mark": 1}

    db.v1.prepare_hook = mark
    assert db.v2.search({"sample": "Ag"}).v1[-1].start["mark"] == 1


def test_queries_of_tiled_are_refused_by_name(db):
    from tiled.queries import Key

    query = Key("plan_name") == "scan"
    with pytest.raises(BadQuery, match=r"a query is a mapping, .*not Eq\(key='plan_name'"):
        db.v2.search(query)
    for given in (query, {"plan_name": "scan"}):
        with pytest.raises(BadQuery, match=r"must be text, not .*; a key is searched by key=…"):
            db(given)


def test_an_empty_text_finds_everything(db):
    assert list(db.v2.search({"$text": ""})) == list(db.v2)
    assert list(db.v2.search({"$text": "Ag"})) == ["configured"]
    with pytest.raises(BadQuery, match="text is the words"):
        db.v2.search({"$text": 3})


def test_time_ranges_are_half_open(db):
    assert list(db.v2.search(TimeRange(since=1000, until=3000))) == ["frames", "plain-run"]
    assert list(db.v2.search(TimeRange(until="1970"))) == []
    asked = TimeRange(since="2026-11", until="2026-12", timezone="UTC")
    assert dict(asked) == {"time": {"$gte": 1793491200.0, "$lt": 1796083200.0}}
    assert asked.replace(until=None).query == {"time": {"$gte": 1793491200.0}}
    assert "2026-11" in repr(asked)
    assert dict(TimeRange()) == {}
    with pytest.raises(ValueError, match="later"):
        TimeRange(since="2027", until="2026")
    with pytest.raises(BadQuery, match=r"milliseconds\?"):
        TimeRange(since=1.7e12)
    for value in ([], b"2026", True, float("nan")):
        with pytest.raises(BadQuery, match="is not a time"):
            TimeRange(until=value)


def test_a_run_is_a_mapping_of_streams(db):
    run = db.v2["configured"]
    assert list(run) == ["primary", "baseline"]
    assert run() is run
    assert run.cat is db.v2
    assert run.metadata["start"]["sample"] == "Ag"
    assert run.metadata["stop"]["exit_status"] == "success"
    assert {"primary", "baseline"} <= set(dir(run))
    assert len(run.primary.metadata["descriptors"]) == 2
    with pytest.raises(AttributeError, match="nosuch"):
        _ = run.nosuch
    with pytest.raises(KeyError, match="primary"):
        run["nosuch"]
    with pytest.raises(KeyError, match=r"no 'data'.*stream\.read\(\)"):
        run["primary"]["data"]
    for read in (run.read, run.to_dask):
        with pytest.raises(NotImplementedError, match="primary"):
            read()
    assert repr(run) == "<BlueskyRun uid='configured'>"
    assert pickle.loads(pickle.dumps(run)) == run
    assert pickle.loads(pickle.dumps(run.primary)).read().sizes == {"time": 3}


def test_an_open_run_has_no_stop_until_it_comes(db):
    documents = make_run(2, uid="open-run", time=4000.0)
    insert_all(db, documents[:-1])
    run = db.v2["open-run"]
    assert run.metadata["stop"] is None
    insert_all(db, documents[-1:])
    assert run.metadata["stop"]["exit_status"] == "success"


def test_an_unknown_attribute_names_the_streams(db):
    with pytest.raises(AttributeError, match=r"'table'; its streams are: .*primary"):
        _ = db.v2[-1].table


def test_streams_are_datasets(db):
    read = db.v2["configured"].primary.read()
    assert list(read.coords) == ["time"]
    assert read["time"].values.tolist() == [3000.25, 3000.375, 3000.625]
    assert read["motor"].values.tolist() == [10, 20, 30]
    frames = db.v2["frames"].primary
    lazy = frames.to_dask()["img"]
    assert lazy.dims == ("time", "dim_0", "dim_1")
    assert isinstance(lazy.data, dask.array.Array)
    assert frames.read()["img"].values[:, 0, 0].tolist() == [0, 2, 8, 18]
    rewound = rewound_run()
    insert_all(db, rewound)
    assert db.v2[rewound[0][1]["uid"]].primary.read()["x"].values.tolist() == [1, 2, 20, 3]


def test_data_keys_are_included_or_excluded(db):
    primary = db.v2["configured"].primary
    assert set(primary(include=["motor"]).read().variables) == {"time", "motor"}
    assert set(primary.read(["motor"]).variables) == {"time", "motor"}
    assert primary(include="motor").read().equals(primary(exclude="det").read())
    assert set(primary(exclude=["motor", "nosuch"]).read().variables) == {"time", "det"}
    with pytest.raises(ValueError, match="not both"):
        primary(include=["motor"], exclude=["det"])


def test_timestamps_and_configuration_are_datasets(db):
    primary = db.v2["configured"].primary
    stamps = primary.timestamps
    assert set(stamps.data_vars) == {"det", "motor"}
    assert stamps["det"].values.tolist() == pytest.approx([3000.24, 3000.365, 3000.615])
    config = primary.config["eiger"].read()
    assert config["gain"].values.tolist() == [1, 1, 2]


def packed(pairs):
    """Numbers of the documents by name."""
    names = [name for name, _ in pairs]
    return {name: names.count(name) for name in names}


def test_documents_come_in_pages_of_one(db):
    run = db.v2["frames"]
    unfilled = list(run.documents(fill="no"))
    assert packed(unfilled) == {
        "start": 1, "resource": 1, "datum_page": 4, "descriptor": 1, "event_page": 4, "stop": 1,
    }  # fmt: skip
    for name, doc in unfilled:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    with event_model.Filler({"SQUARES": Squares}, inplace=False) as filler:
        expected = [filler(name, doc)[1] for name, doc in unfilled]
    for fill in ("yes", "delayed"):
        pages = [doc for name, doc in run.documents(fill=fill) if name == "event_page"]
        wanted = [doc for doc in expected if "seq_num" in doc]
        for page, other in zip(pages, wanted, strict=True):
            assert page["filled"]["img"][0]
            np.testing.assert_array_equal(page["data"]["img"][0], other["data"]["img"][0])
            assert page["data"]["img"][0].shape == SHAPE
    with pytest.raises(ValueError, match="delayed"):
        run.documents(fill="maybe")
    with pytest.warns(UserWarning, match="documents"):
        next(run.canonical(fill="no"))
    with pytest.warns(UserWarning, match="documents"):
        next(run.read_canonical())


def test_delayed_cells_are_lazy(db):
    class Broken(Squares):
        def __call__(self, n):
            raise OSError("no beam")

    db.register_handler("SQUARES", Broken, overwrite=True)
    pages = [doc for name, doc in db.v2["frames"].documents(fill="delayed") if "seq_num" in doc]
    assert all(isinstance(page["data"]["img"][0], dask.array.Array) for page in pages)


def test_documents_of_newer_event_models_pass(db):
    documents = stream_datum_run()
    insert_all(db, documents)
    counted = packed(db.v2[documents[0][1]["uid"]].documents(fill="no"))
    assert counted["stream_datum"] == 3
    assert counted["stream_resource"] == 1


def test_handlers_and_roots_are_those_of_the_broker(db):
    assert db.v2.handler_registry["SQUARES"] is Squares
    db.v2.deregister_handler("SQUARES")
    assert "SQUARES" not in db.v2.handler_registry
    for read in (db.v2["frames"].primary.read, lambda: list(db.v2[6].documents(fill="yes"))):
        with pytest.raises(KeyError, match="SQUARES"):
            read()
    db.v2.register_handler("SQUARES", Squares)
    assert db.v2["frames"].primary.read().sizes["time"] == 4
    db.v2.root_map["/old"] = "/new"
    assert db.root_map == {"/old": "/new"}


def test_file_lists(db, tmp_path):
    (tmp_path / "a_1.npy").touch()
    (tmp_path / "a_2.npy").touch()
    named = {"spec": "NPY_SEQ", "root": str(tmp_path), "resource_path": "a", "resource_kwargs": {}}
    found = db.v2["frames"].get_file_list({"uid": "r", **named})
    assert sorted(found) == [str(tmp_path / "a_1.npy"), str(tmp_path / "a_2.npy")]
