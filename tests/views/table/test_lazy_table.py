"""Tables: columns, order, types, what they carry, how they are cut, and their names."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pandas as pd
import pytest

import daskbroker
from daskbroker.core.errors import BadQuery, ConfigError, FieldNotFound, StreamNotFound
from daskbroker.core.schema import TIME_DTYPE
from daskbroker.testing import RunBuilder, make_run, rewound_run
from daskbroker.testing.base import insert_run


@pytest.fixture
def header(db):
    run = RunBuilder("run-abc", time=1e9, sample={"name": "Ag"}, scan_id=7)
    units = {"source": "PV", "dtype": "number", "shape": [], "units": "mm"}
    descriptor = run.descriptor({"x": units, "n": 1, "label": "a", "on": True, "v": [0.5, 0.5]})
    for n in range(6):
        row = {"x": n / 2, "n": n, "label": f"l{n}", "on": n > 2, "v": [float(n), 0.5]}
        run.event(descriptor, row)
    return insert_run(db, run.stop())


def test_columns_and_types(header):
    frame = header.table().compute()
    assert frame.index.name == "seq_num"
    assert frame.index.tolist() == [1, 2, 3, 4, 5, 6]
    assert frame.dtypes.astype(str).to_dict() == {
        "time": "datetime64[us, UTC]",
        "x": "float64",
        "n": "int64",
        "label": "str",
        "on": "bool",
        "v": "object",
    }
    assert frame["v"].iloc[2].tolist() == [2.0, 0.5]
    assert frame["v"].iloc[2].dtype == np.float64


def test_nothing_is_lost_of_where_it_comes_from(header):
    descriptor = header.descriptors["primary"][0]["uid"]
    wanted = {
        "stream": "primary",
        "runs": ["run-abc"],
        "descriptors": [descriptor],
        "units": {"x": "mm"},
    }
    table = header.table()
    shown = [table, table.compute(), table[["x"]].compute(), table["x"].compute(), table.head(2)]
    assert [one.attrs for one in shown] == [wanted] * 5
    assert header.table(fields=["uid", "descriptor", "run"]).compute().iloc[0, 1:].tolist() == [
        next(doc["uid"] for name, doc in header.documents() if name == "event"),
        descriptor,
        "run-abc",
    ]


def test_times(header):
    first = header.table(timestamps=True).compute().iloc[0]
    event = next(doc for name, doc in header.documents() if name == "event")
    assert first["time"] == pd.Timestamp(event["time"], unit="s", tz="UTC")
    assert first["ts_x"] == event["timestamps"]["x"]


def test_the_zone_of_the_broker_is_for_what_is_computed(tmp_path):
    with daskbroker.connect(tmp_path, timezone="Europe/Berlin") as db:
        header = insert_run(db, make_run(3))
        empty = insert_run(db, make_run(0))
        buffer = daskbroker.stream_to_table(header.documents())
        results = db().table("primary")
        for table in (header.table(), empty.table(), results, buffer, results[results.x < 0]):
            computed = table.compute()
            assert str(table.dtypes["time"]) == str(computed["time"].dtype) == TIME_DTYPE
            local = db.tz_convert(computed)
            assert str(local["time"].dtype) == "datetime64[us, Europe/Berlin]"
            assert local.attrs == computed.attrs
            assert local["time"].equals(computed["time"].dt.tz_convert("Europe/Berlin"))
        assert str(header.dataset()["time"].dtype) == "datetime64[us]"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stream_name": "absent"}, StreamNotFound, "has no stream 'absent'; it has: primary"),
        ({"fields": ["absent"]}, FieldNotFound, "the field 'absent' matches no data key"),
        ({"format": "excel"}, BadQuery, "format must be one of dataframe, dataset, not 'excel'"),
        ({"duplicates": "first"}, BadQuery, "duplicates must be 'last' or 'all'"),
        ({"timezone": "Nowhere/Land"}, ConfigError, "no time zone 'Nowhere/Land'"),
        ({"timezone": "Asia/Tokyo"}, BadQuery, "compute first, then convert"),
        ({"timezone": "Asia/Tokyo", "format": "dataset"}, BadQuery, "compute first, then convert"),
    ],
    ids=repr,
)
def test_mistakes_are_told_at_once(header, arguments, error, message):
    with pytest.raises(error, match=message):
        header.table(**arguments)


@pytest.mark.parametrize("size", ["1 kB", "3 kB", "1 GB"])
def test_the_cut_changes_nothing(tmp_path, size):
    documents = make_run(200, keys=("x", "n"))
    with (
        dask.config.set({"daskbroker.seal-rows": 20, "daskbroker.partition-size": size}),
        daskbroker.connect(tmp_path) as db,
    ):
        table = insert_run(db, documents).table()
        frame = table.compute()
        assert frame["n"].tolist() == [n * 3 for n in range(200)]
        assert (table.npartitions == 1) is (size == "1 GB")
        assert table.divisions[0] == 1
        assert table.divisions[-1] == 200
        parts = [table.get_partition(n).compute() for n in range(table.npartitions)]
        for part, first in zip(parts, table.divisions, strict=False):
            assert part.index[0] == first
            assert part.dtypes.to_dict() == table.dtypes.to_dict()
        assert table.loc[50:59].compute().index.tolist() == list(range(50, 60))


def test_rewound_rows_over_several_chunks(tmp_path):
    """A long rewind: the latest of each seq_num, whichever chunk holds it."""
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    numbers = [*range(1, 31), *range(11, 41)]
    for place, number in enumerate(numbers):
        run.event(descriptor, {"x": float(place)}, number)
    with dask.config.set({"daskbroker.seal-rows": 7}), daskbroker.connect(tmp_path) as db:
        header = insert_run(db, run.stop())
        table = header.table()
        frame = table.compute()
        latest = dict(zip(numbers, range(60), strict=True))
        assert frame["x"].to_dict() == {number: latest[number] for number in range(1, 41)}
        assert len(table) == 40
        everything = header.table(duplicates="all").compute()
        assert sorted(everything["x"]) == list(range(60))
        assert everything.index.is_monotonic_increasing
        assert header.dataset()["x"].values.tolist() == frame["x"].tolist()


def test_names_follow_the_content(db):
    documents = make_run(4)
    for pair in documents[:3]:
        db.insert(*pair)
    header = db[-1]
    first = header.table()
    assert header.table()._name == first._name
    assert pickle.loads(pickle.dumps(first))._name == first._name
    names = {first._name}
    for pair in documents[3:-1]:
        db.insert(*pair)
        names.add(header.table()._name)
    options = [
        {"fields": ["x"]},
        {"timestamps": True},
        {"duplicates": "all"},
        {"fields": ["x", "start:uid"]},
    ]
    names |= {header.table(**option)._name for option in options}
    assert len(names) == 4 + len(options)


def test_a_projection_of_stop_is_new_after_the_stop(db):
    documents = make_run(3)
    insert_run(db, documents[:-1])
    before = db[-1].table(fields=["x", "stop:exit_status"])
    assert before.compute()["stop:exit_status"].isna().all()
    db.insert(*documents[-1])
    after = db[-1].table(fields=["x", "stop:exit_status"])
    assert after._name != before._name
    assert after.compute()["stop:exit_status"].tolist() == ["success"] * 3


def test_a_table_of_an_open_run_stays_as_it_was_planned(db):
    documents = make_run(4)
    insert_run(db, documents[:4])
    table = db[-1].table()
    for pair in documents[4:]:
        db.insert(*pair)
    assert len(table.compute()) == len(table) == 2
    assert len(db[-1].table()) == 4


def test_short_runs_give_one_writable_column(db):
    runs = [
        make_run(keys={"x": [run / 2, 1.0], "n": [run, 7], "b": [True, False], "j": cells})
        for run, cells in enumerate(([[1], [2, 3]], [[4], [5, 6]], [{"a": 1}, {}]))
    ]
    for run in runs:
        insert_run(db, run)
    frame = db().table().compute()
    for key in ("x", "n", "b", "j"):
        cells = [doc["data"][key] for run in runs for name, doc in run if name == "event"]
        assert [np.asarray(cell).tolist() for cell in frame[key]] == cells
    frame.iloc[0, frame.columns.get_loc("x")] = 5.5
    assert frame["x"].iloc[0] == 5.5


def test_runs_of_differing_types_share_a_table(db):
    insert_run(db, make_run(keys={"x": [1, 2], "only": [0.5, 1.5]}, uid="run-a"))
    insert_run(db, make_run(keys={"x": [0.5]}, uid="run-b"))
    insert_run(db, rewound_run())
    frame = db().table("primary").compute()
    assert frame["x"].dtype == "float64"
    assert frame[frame["run"] == "run-b"]["only"].isna().all()
    assert frame[frame["run"] == "run-a"]["only"].tolist() == [0.5, 1.5]
    assert len(frame) == 6
