"""``db.v1`` does what databroker's Broker did: computed, unfilled by default, its own words."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import daskbroker
from daskbroker.core.errors import FillError
from daskbroker.testing import RunBuilder, make_run, rewound_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, Squares


def events(pairs):
    return [doc for name, doc in pairs if name == "event"]


# -- tables ------------------------------------------------------------------------------------


def test_a_table_is_computed_with_naive_times(db):
    table = db.v1["configured"].table()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["time", "det", "motor"]
    assert table.index.name == "seq_num"
    assert table.index.tolist() == [1, 2, 3]
    assert table["time"].dtype == "datetime64[ns]"
    assert table["time"].iloc[0] == pd.Timestamp(3000.25, unit="s")
    assert table["det"].tolist() == [1.0, 2.0, 3.0]
    raw = db.v1["configured"].table(convert_times=False, localize_times=False)
    assert raw["time"].iloc[0] == 3000.25


def test_fields_are_expressions_and_metadata(db):
    header = db.v1["configured"]
    table = header.table(fields=["mot.*", "gain", "sample", "exit_status"])
    assert list(table.columns) == ["time", "motor", "gain", "sample", "exit_status"]
    assert list(header.table(fields="motor").columns) == ["time", "motor"]
    assert next(header.events(fields="motor"))["data"].keys() == {"motor"}
    assert table["gain"].tolist() == [1, 1, 2]  # by the descriptor of each event
    assert set(table["sample"]) == {"Ag"}
    (event, *_) = header.events(fields=["gain", "det"])
    assert event["data"] == {"det": 1.0, "gain": 1}
    assert event["timestamps"]["gain"] == 5.0
    assert [d["data_keys"].keys() for n, d in header.documents(fields=["det"]) if n == "descriptor"]


def test_events_without_any_of_the_fields_are_left_out(db):
    header = db.v1["configured"]
    assert len(events(header.documents(fields=["temperature"]))) == 1
    assert header.table("baseline", fields=["det"]).empty


def test_a_stream_that_is_not_there_is_empty(db):
    header = db.v1["configured"]
    assert header.table("nosuch").empty
    assert header.table("nosuch").index.name == "seq_num"
    assert [name for name, _ in header.documents("nosuch")] == ["start", "stop"]
    assert list(header.data("det", "nosuch")) == []


def test_fields_are_no_stream(db):
    with pytest.raises(KeyError, match=r"data keys are given as fields=\['det'\]"):
        db.v1["configured"].table(["det"])


def test_a_uid_is_no_header(db):
    for given in ("configured", ["configured"], db["configured"].start):
        with pytest.raises(TypeError, match=r"a Header is needed, such as db\[uid\], not"):
            db.v1.get_table(given)


def test_events_taken_again_are_all_there(db):
    documents = rewound_run()
    insert_all(db, documents)
    header = db.v1[documents[0][1]["uid"]]
    assert header.table()["x"].tolist() == [1, 2, 20, 3]
    assert [event["data"]["x"] for event in header.events()] == [1, 2, 20, 3]
    assert list(header.data("x")) == [1, 2, 20, 3]


def test_text_lists_and_missing_cells_are_what_numpy_has(db):
    run = RunBuilder()
    first = run.descriptor(
        {"name": "a", "spectrum": {"source": "", "dtype": "array", "shape": [2]}}
    )
    run.event(first, {"name": "a", "spectrum": [1.0, 2.0]}, 1)
    second = run.descriptor({"name": "b", "n": 1})
    run.event(second, {"name": "b", "n": 3}, 2)
    insert_all(db, run.stop())
    table = db.v1[run.uid].table()
    assert {str(dtype) for dtype in table.dtypes} <= {"datetime64[ns]", "object", "str", "float64"}
    assert table["name"].tolist() == ["a", "b"]
    assert np.asarray(table["spectrum"].iloc[0]).tolist() == [1.0, 2.0]
    assert pd.isna(table["n"].iloc[0])


def test_tables_of_several_runs_follow_one_another(db):
    table = db.v1.get_table(db.v1[["plain-run", "configured"]])
    assert len(table) == 6
    assert table["det"].isna().tolist() == [True] * 3 + [False] * 3


# -- external data ---------------------------------------------------------------------------


def test_external_data_are_filled_on_request(db):
    header = db.v1["frames"]
    assert isinstance(header.table()["img"].iloc[0], str)
    assert header.table(fill=True)["img"].iloc[2].shape == SHAPE
    assert all(isinstance(event["data"]["img"], str) for event in header.events())
    filled = list(header.events(fill=True))
    assert [event["data"]["img"][0, 0] for event in filled] == [0, 2, 8, 18]
    assert [frame[0, 0] for frame in header.data("img")] == [0, 2, 8, 18]
    assert all(isinstance(value, str) for value in header.data("img", fill=False))


def test_no_file_is_read_for_fields_that_are_not_external(db):
    class Broken(Squares):
        def __call__(self, n):
            raise OSError("no beam")

    db.register_handler("SQUARES", Broken, overwrite=True)
    header = db.v1["frames"]
    assert list(header.data("x")) == [0.5] * 4
    assert header.table(fields=["x"], fill=True)["x"].tolist() == [0.5] * 4
    assert len(list(header.events(fields=["x"], fill=True))) == 4
    with pytest.raises(FillError, match="no beam"):
        list(header.data("img"))


def test_images_are_a_sequence_over_runs(db):
    images = db.v1.get_images([db.v1["frames"], db.v1["frames"]], "img")
    assert len(images) == 8
    assert images.shape == (8, *SHAPE)
    assert images.frame_shape == SHAPE
    assert [frame[0, 0] for frame in images] == [0, 2, 8, 18] * 2
    assert images[-1][0, 0] == 18
    assert [frame[0, 0] for frame in images[3:6]] == [18, 0, 2]
    with pytest.raises(IndexError, match=r"8|range|outside"):
        images[8]
    assert isinstance(images[0], np.ndarray)


def test_a_handler_that_was_deregistered_is_a_key_error(db):
    assert "SQUARES" in db.v1.reg.handler_reg
    assert db.v1.reg.handler_reg["SQUARES"] is Squares
    for spec in list(db.v1.reg.handler_reg):
        db.v1.reg.deregister_handler(spec)
    assert not db.v1.reg.handler_reg
    header = db.v1["frames"]
    for read in (
        lambda: list(header.events(fill=True)),
        lambda: list(header.data("img")),
        lambda: header.table(fill=True),
        lambda: db.v1.get_images(header, "img"),
        header.xarray,
    ):
        with pytest.raises(KeyError, match="SQUARES"):
            read()
    db.v1.reg.register_handler("SQUARES", Squares)
    assert header.xarray()["img"].shape == (4, *SHAPE)


def test_no_handler_at_all_is_a_key_error(db):
    db.deregister_handler("SQUARES")
    with pytest.raises(KeyError, match="SQUARES"):
        list(db.v1["frames"].events(fill=True))


def test_datasets_are_read_and_have_posix_times(db):
    loaded = db.v1["configured"].xarray()
    assert list(loaded.coords) == ["time"]
    assert set(loaded.data_vars) == {"det", "motor"}
    assert loaded["time"].values.tolist() == [3000.25, 3000.375, 3000.625]
    lazy = db.v1["frames"].xarray_dask()
    assert lazy["img"].dims == ("time", "dim_0", "dim_1")
    assert lazy["img"].chunks is not None


# -- runs and documents ------------------------------------------------------------------------


def test_a_run_is_a_mapping_of_its_documents(db):
    header = db.v1["configured"]
    assert dict(header.items()).keys() == {"start", "descriptors", "stop", "ext"}
    assert header["start"]["uid"] == header.uid == header.get("uid")
    assert [doc["name"] for doc in header.descriptors] == ["baseline", "primary", "primary"]
    assert header.stream_names == ["primary", "baseline"]
    assert header.fields() == {"det", "motor", "temperature"}
    assert header.fields("baseline") == db.v1.get_fields(header, "baseline") == {"temperature"}
    assert header.devices("primary") == {"eiger", "stage"}
    assert header.config_data("eiger") == {"primary": [{"gain": 1}, {"gain": 2}]}
    assert header.config_data("nosuch") == {}
    with pytest.raises(KeyError, match="events"):
        header["events"]
    assert header == db.v1["configured"] != db.v1["frames"]


def test_an_open_run_has_an_empty_stop_until_it_comes(db):
    documents = make_run(2, uid="open-run", time=4000.0)
    insert_all(db, documents[:-1])
    header = db.v1["open-run"]
    assert header.stop == {}
    assert len(header.table(fields=["x", "exit_status"])) == 2
    insert_all(db, documents[-1:])
    assert header.stop["exit_status"] == "success"


def test_a_prepare_hook_gets_a_plain_document_of_each(db):
    names = []

    def hook(name, doc):
        names.append(name)
        assert type(doc) is dict
        doc["seen"] = True
        return doc

    db.v1.prepare_hook = hook
    header = db.v1["configured"]
    given = [*header.descriptors, header.start, header.stop, *header.events()]
    given += [doc for _, doc in header.documents(fields=["det"])]
    assert all(doc["seen"] for doc in given)
    assert set(names) == {"start", "stop", "descriptor", "event"}
    assert all("seen" not in doc for _, doc in db["configured"].documents())


def test_streams_of_documents(db):
    seen = []
    db.v1.process(db.v1[-2:], lambda name, doc: seen.append(name))
    assert seen == [name for name, _ in db.v1.restream(db.v1[-2:])]
    assert seen.count("start") == 2
    with pytest.warns(UserWarning, match="documents"):
        assert list(db.v1[-1].stream()) == list(db.v1[-1].documents())
    with pytest.raises(NotImplementedError, match=r"reg\.register_handler"):
        db.v1.get_events(db.v1[-1], handler_registry={"SQUARES": Squares})
    with pytest.raises(NotImplementedError, match="fill=True"):
        db.v1.fill_event({})


def test_external_fetchers_are_called_for_each_run(db):
    db.v1.external_fetchers["where"] = lambda start, stop: (start["uid"], stop["exit_status"])
    assert db.v1["frames"].ext.where == ("frames", "success")


# -- searching ---------------------------------------------------------------------------------


def uids(headers):
    return [header.uid for header in headers]


def test_words_are_keys_of_the_start_document(db):
    assert uids(db.v1(exit_status=5)) == ["plain-run"]  # which db(...) asks of the stop document
    assert uids(db.v1(sample="Ag")) == uids(db.v1("Ag")) == ["configured"]
    assert uids(db.v1(data_key="img")) == ["frames"]
    assert len(db.v1()) == 3


def test_times_are_first_instants_and_inclusive(db):
    assert uids(db.v1(since=2000.0)) == ["configured", "frames"]
    assert uids(db.v1(since=1500, until=2000)) == ["frames"]
    assert uids(db.v1(until="1970")) == []
    assert uids(db.v1(since="1970", until="1970-02")) == uids(db())
    with pytest.warns(UserWarning, match="since"):
        assert uids(db.v1(start_time=2500)) == ["configured"]
    with pytest.raises(TypeError, match="old name"):
        db.v1(start_time=1, since=1)
    with pytest.raises(ValueError, match="is not a time"):
        db.v1(since="yesterday")


def test_keys(db):
    assert uids(db.v1[-3:]) == ["configured", "frames", "plain-run"]
    assert uids(db.v1[-3:-1]) == ["frames", "plain-run"]
    assert uids(db.v1[slice(-3, 0, 2)]) == ["configured", "plain-run"]
    assert db.v1["con"].uid == db.v1[7].uid == db.v1[-1].uid == "configured"
    assert [uids(one) if isinstance(one, list) else one.uid for one in db.v1["frames", [-1]]] == [
        "frames",
        ["configured"],
    ]
    for key in (slice(1, None), slice(-1, 2), slice(None), slice(None, -1)):
        with pytest.raises(ValueError, match="negative"):
            db.v1[key]
    for key in (-4, slice(-4, None)):
        with pytest.raises(IndexError, match=r"only|[0-9]"):
            db.v1[key]
    for key in ("x", "nosuch-uid", 4500):
        with pytest.raises(KeyError, match=str(key)):
            db.v1[key]
    insert_all(db, make_run(1, uid="frozen", time=5000.0))
    with pytest.raises(ValueError, match="fr"):
        db.v1["fr"]


def test_filters_are_a_mapping_that_narrows_searches_only(db):
    db.v1.add_filter(since=500, scan_id=7)
    db.v1.add_filter(since=1500)
    assert db.v1.filters == {"since": 1500, "scan_id": 7}
    assert uids(db.v1()) == ["configured"]
    assert db.v1[-2].uid == "frames"
    assert len(db()) == 3  # today's own filters are others
    db.v1.clear_filters()
    assert len(db.v1()) == 3


def test_aliases_are_searches(db):
    db.v1.alias("silver", sample="Ag")
    assert uids(db.v1.silver) == ["configured"]
    db.v1.dynamic_alias("silver", lambda: {"scan_id": 6})
    assert uids(db.v1.silver) == ["frames"]
    for key in ("get_events", "filters", "v2"):
        with pytest.raises(ValueError, match="is not a valid alias"):
            db.v1.alias(key, sample="Ag")
    assert not hasattr(db.v1, "gold")


# -- export, files, pickles ------------------------------------------------------------------


class Stored:
    """A handler that names its file."""

    def __init__(self, path, **kwargs):
        self.path = path

    def __call__(self, **kwargs):
        return np.load(self.path)

    def get_file_list(self, datums):
        assert [dict(one) for one in datums] == [{"n": 0}]
        return [self.path]


def test_export_copies_runs_and_files(db, tmp_path):
    (tmp_path / "old" / "day").mkdir(parents=True)
    np.save(tmp_path / "old" / "day" / "a.npy", np.ones((2, 3)))
    run = RunBuilder(time=6000.0)
    image = {"source": "", "dtype": "array", "shape": [2, 3], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": image})
    resource = run.resource(
        "STORED", root=str(tmp_path / "old"), resource_path="day/a.npy", run_start=None
    )
    run.event(descriptor, {"img": run.datum(resource, n=0)})
    insert_all(db, run.stop())
    with daskbroker.temp() as other:
        for broker in (db, other):
            broker.v1.reg.register_handler("STORED", Stored)
        header = db.v1[run.uid]
        size = (tmp_path / "old" / "day" / "a.npy").stat().st_size
        assert db.v1.export_size(header) == pytest.approx(size * 1e-9)
        told = []
        pairs = db.v1.export(
            header,
            other.v1,
            new_root=str(tmp_path / "new"),
            copy_kwargs={"file_rename_hook": lambda *one: told.append(one)},
        )
        assert pairs == [told[0][2:]]
        assert told[0][:2] == (0, 1)
        assert pairs[0][1] == str(tmp_path / "new" / "day" / "a.npy")
        (tmp_path / "old" / "day" / "a.npy").unlink()
        assert other.v1[run.uid] == header
        (frame,) = other.v1[run.uid].data("img")
        assert frame.tolist() == np.ones((2, 3)).tolist()


def test_brokers_and_runs_go_through_pickle_and_copies(db):
    header = db.v1["configured"]
    again = pickle.loads(pickle.dumps(header))
    assert again == header
    assert again.db is db.v1
    assert pickle.loads(pickle.dumps(db.v1)) is db.v1
    assert copy.copy(header) == header
    assert copy.deepcopy(header) == header
    assert header._repr_html_()
    assert "configured" in repr(header)


def test_named_and_from_config(tmp_path):
    from daskbroker.compat.v1 import Broker

    with daskbroker.connect(tmp_path / "store"):
        pass
    broker = Broker.from_config({"uri": str(tmp_path / "store")})
    assert "AD_HDF5" in broker.reg.handler_reg
    assert "AD_HDF5" not in broker.registering(auto_register=False).reg.handler_reg
    assert list(Broker.named("temp")()) == []
