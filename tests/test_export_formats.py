"""Runs and results as files of each format, read again by the tools that those are for."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from typer.testing import CliRunner

import daskbroker
from daskbroker.cli import app
from daskbroker.core.errors import BadArgument, BadQuery, StreamNotFound
from daskbroker.core.printable import counted
from daskbroker.testing import RunBuilder, difference, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, datum_run, stream_run
from daskbroker.views.table import arrow_cells
from daskbroker.views.table.arrow_cells import claimed_type
from daskbroker.work.ingest import ingest


def two_streams(uid="two-streams", *, values=(0.0, 0.5, 1.0), stop=True, **more):
    run = RunBuilder(uid, sample={"name": "Ag"})
    row = {"x": values[0], "n": 1, "label": "größe", "v": [0.5, 0.5], **more}
    descriptor = run.descriptor(row)
    dark = run.descriptor({"level": 0.5}, "dark")
    for number, value in enumerate(values):
        run.event(descriptor, {**row, "x": value, "n": number, "v": [value, -1.0]})
    run.event(dark, {"level": 9.5})
    return run.stop() if stop else run.documents


@pytest.fixture
def header(db):
    insert_all(db, two_streams())
    return db[-1]


def run_in(db, documents):
    insert_all(db, documents)
    return db[documents[0][1]["uid"]]


# -- where the files go ----------------------------------------------------------------------

NAMES = {
    "jsonl": {"two-streams.jsonl"},
    "parquet": {"two-streams/primary.parquet", "two-streams/dark.parquet"},
    "netcdf": {"two-streams.nc"},
    "zarr": {"two-streams.zarr"},
    "csv": {"two-streams/primary.csv", "two-streams/dark.csv"},
    "nexus": {"two-streams.nxs"},
}


@pytest.mark.parametrize("format", NAMES)
def test_a_folder_of_each_format(db, header, tmp_path, format):
    for number, what in enumerate((header, db())):
        out = tmp_path / str(number)
        files = what.export(out, format, arrays="drop")
        assert {path.relative_to(out).as_posix() for path in files} == NAMES[format]
        assert all(path.exists() for path in files)
        assert not list(out.rglob(".*.part"))
        assert what.export(out, format, arrays="drop") == files  # again, in their place


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".nc", ".zarr", ".csv", ".nxs"])
def test_a_name_with_the_suffix_is_the_file(header, tmp_path, suffix):
    target = tmp_path / f"scan{suffix}"
    options = {} if suffix == ".jsonl" else {"stream": "dark"}
    assert header.export(target, **options) == [target]
    assert list(tmp_path.glob("scan*")) == [target]
    assert header.export(tmp_path / "other.d", "jsonl")[0].parent == tmp_path / "other.d"


def test_a_suffix_of_no_format_is_refused(header, tmp_path):
    """Documents in a folder of that name are not what was meant."""
    for name in ("scan.h5", "scan.HDF5", "scan.xlsx", "scan.msgpack"):
        with pytest.raises(
            BadQuery, match=r"no format has the suffix .*\.nxs, .* or name a folder"
        ):
            header.export(tmp_path / name)
    assert list(tmp_path.glob("scan*")) == []
    assert header.export(tmp_path / "scan.2026")[0].suffix == ".jsonl"
    assert header.export(tmp_path / "scan.h5", "jsonl")[0].parent == tmp_path / "scan.h5"


def test_one_file_for_several_streams_is_refused(header, tmp_path):
    for suffix in ("csv", "parquet"):
        with pytest.raises(BadQuery, match=r"'primary', 'dark': choose one by stream="):
            header.export(tmp_path / f"scan.{suffix}")
    with pytest.raises(StreamNotFound, match="primary"):
        header.export(tmp_path / "scan.csv", stream="drak")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "excel"}, "jsonl, parquet, netcdf, zarr, csv"),
        ({"format": "csv", "arrays": "some"}, "arrays must be one of raise, drop"),
        ({"format": "csv", "fill": True}, "csv cannot hold arrays"),
        ({"format": "netcdf", "partition": "run"}, "needs the format parquet, not netcdf"),
        ({"format": "parquet", "partition": "day"}, "partition must be one of run"),
        ({"format": "jsonl", "stream": "dark"}, "exports whole runs"),
        ({"format": "zarr", "files": "x"}, "detector files can be exported with documents"),
    ],
    ids=str,
)
def test_options_that_a_format_does_not_have_are_refused(db, header, tmp_path, options, words):
    for what in (header, db()):
        with pytest.raises(BadQuery, match=words):
            what.export(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_mistyped_option_is_named(db, header, tmp_path):
    for of in (header, db()):
        with pytest.raises((BadQuery, TypeError), match=r"'filll'") as caught:
            of.export(tmp_path / "out", "netcdf", filll=True)
        assert "ExportOptions" not in str(caught.value)
    with pytest.raises(
        BadQuery, match=r"no option 'filll'; there are: format, stream, fill, .*verify"
    ):
        header.export(tmp_path / "out", "netcdf", filll=True)
    with pytest.raises(BadArgument, match=r"no argument 'fmt'; it has: .*format"):
        db().export(tmp_path / "out", fmt="netcdf")


def test_a_folder_that_is_no_zarr_group_is_not_replaced(header, tmp_path):
    (tmp_path / "scan.zarr").mkdir()
    (tmp_path / "scan.zarr" / "mine").write_text("kept")
    with pytest.raises(BadQuery, match="is not a Zarr group"):
        header.export(tmp_path / "scan.zarr")
    assert (tmp_path / "scan.zarr" / "mine").read_text() == "kept"


@pytest.mark.parametrize("format", NAMES)
def test_runs_without_streams_and_open_runs(db, tmp_path, format):
    insert_all(db, make_run(3, number=1, stop=False, uid="open-run"))
    insert_all(db, RunBuilder("no-streams").stop())
    files = db().export(tmp_path, format)
    assert any("open-run" in str(path) for path in files)
    assert db["no-streams"].export(tmp_path, format) or format in ("parquet", "csv")


# -- netCDF and Zarr -------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "engine"), [("netcdf", "h5netcdf"), ("zarr", "zarr")])
def test_datasets_are_what_xarray_opens_and_come_back(db, header, tmp_path, format, engine):
    (path,) = header.export(tmp_path, format)
    with xr.open_datatree(path, engine=engine) as tree:
        for stream in header.streams:
            expected, found = header.dataset(stream), tree[stream].to_dataset()
            assert set(found.variables) == set(expected.variables)
            for name in expected.variables:
                cells = expected[name].values.astype(found[name].dtype)  # ns for us
                assert found[name].values.tolist() == cells.tolist()
        told = daskbroker.attrs(tree)
    assert (told["run"], told["start"], told["stop"]) == (header.uid, header.start, header.stop)
    (uid,) = ingest(db, [path]).runs
    assert db[uid].start["derived_from"]["runs"] == [header.uid]


@pytest.mark.parametrize("format", ["netcdf", "zarr"])
def test_cells_of_no_common_shape_have_the_form_of_savable(db, tmp_path, format):
    keys = {"ragged": [[1.5], [1.0, 2.0], []], "a/b": [1.0, 2.0, 3.0], "maps": [{"a": 1}, {}, {}]}
    header = run_in(db, make_run(keys=keys))
    assert header.export(tmp_path / "tree", format)
    (uid,) = ingest(db, header.export(tmp_path, format, stream="primary")).runs
    found = db[uid].dataset().compute()
    assert [cell.tolist() for cell in found["ragged"].values] == keys["ragged"]
    assert found["maps"].values.tolist() == keys["maps"]
    assert found["a/b"].values.tolist() == keys["a/b"]


WIDE = {
    "among floats": [2**53 + 1, 1.5, float("inf")],
    "beyond 64 bits": [2**70, 1, -(2**63) - 1],
    "unsigned": [2**63, 1, 2**64 - 1],
    "beside missing": [2**53 + 1, None, 2**63],
    "in arrays": [[1.5], [2**60 + 1], [3.0]],
    "in arrays of any length": [[1.5], [2**60 + 1, 3], []],
}


@pytest.mark.parametrize("format", ["netcdf", "zarr"])
def test_integers_that_no_float_holds_come_back_as_they_are(db, tmp_path, format):
    header = run_in(db, make_run(keys=WIDE))
    (uid,) = ingest(db, header.export(tmp_path, format)).runs
    events = [doc["data"] for name, doc in db[uid].documents() if name == "event"]
    for key, values in WIDE.items():
        assert difference(values, [event[key] for event in events], key) is None


def test_integers_that_no_float_holds_are_text_in_parquet_if_types_differ(db, tmp_path):
    header = run_in(db, make_run(keys=WIDE))
    (path,) = header.export(tmp_path, "parquet")
    found = pq.read_table(path)
    for key, values in WIDE.items():
        if found.schema.field(key).type == pa.string():
            cells = [None if v is None else json.loads(v) for v in found[key].to_pylist()]
        else:
            cells = found[key].to_pylist()
        assert cells == values
    with pytest.raises(BadQuery, match=r"among floats.*have no Arrow type in common"):
        header.table().to_parquet(tmp_path / "table")


@pytest.mark.parametrize(("format", "engine"), [("netcdf", "h5netcdf"), ("zarr", "zarr")])
def test_streams_of_any_name(db, tmp_path, format, engine):
    run = RunBuilder()
    run.event(run.descriptor({"x": 0.5}, "dark field/1"), {"x": 1.5})
    (path,) = run_in(db, run.stop()).export(tmp_path, format)
    found = xr.load_datatree(path, engine=engine)["dark field%2F1"]
    assert (found.attrs["stream"], found["x"].values.tolist()) == ("dark field/1", [1.5])
    (uid,) = ingest(db, [path]).runs
    assert [d["name"] for _, d in db[uid].documents() if "data_keys" in d]


@pytest.mark.parametrize("format", ["netcdf", "zarr", "parquet"])
@pytest.mark.parametrize("make", [datum_run, stream_run])
def test_frames_are_references_unless_asked_for(db, tmp_path, make, format):
    documents, data = make(tmp_path)
    header = run_in(db, documents)
    paths = [header.export(tmp_path / f"{fill}", format, fill=fill)[0] for fill in (False, True)]
    if format == "parquet":
        bare, full = (pq.read_table(path) for path in paths)
        kind = pa.list_(pa.list_(pa.list_(pa.uint16())))
        assert full.schema.field("img").type == kind
        found = np.array(full["img"].to_pylist())
        assert "img" not in bare.column_names or bare.schema.field("img").type == pa.string()
    else:
        engine = "h5netcdf" if format == "netcdf" else "zarr"
        bare, full = (xr.load_datatree(path, engine=engine)["primary"] for path in paths)
        found = full["img"].values
        assert "img" not in bare or bare["img"].ndim == 1
    assert (found.reshape(-1, *SHAPE) == data.reshape(-1, *SHAPE)).all()


# -- CSV -------------------------------------------------------------------------------------


def test_csv_holds_what_the_table_does(header, tmp_path):
    (path,) = header.export(tmp_path / "scan.csv", stream="primary", arrays="drop")
    table = header.table().compute()
    with path.open(encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["seq_num", "time", "x", "n", "label"]
    assert [float(row["x"]) for row in rows] == table["x"].tolist()
    assert [row["label"] for row in rows] == ["größe"] * 3
    assert (pd.to_datetime([row["time"] for row in rows]) == pd.DatetimeIndex(table["time"])).all()


@pytest.mark.parametrize("cells", [[[1.0], [2.0, 3.0]], [{"a": 1}, {}], [1, [1]], [[[1]], [[2]]]])
def test_csv_refuses_arrays_by_name(db, tmp_path, cells):
    header = run_in(db, make_run(keys={"x": [1.0, 2.0], "odd": cells, "w": [[1, 2], [3, 4]]}))
    with pytest.raises(BadQuery, match=r"stream 'primary' has some in 'odd', 'w'.*arrays='drop'"):
        header.export(tmp_path / "out", "csv")
    assert not (tmp_path / "out").exists()
    (path,) = header.export(tmp_path / "scan.csv", arrays="drop")
    assert list(pd.read_csv(path).columns) == ["seq_num", "time", "x"]


def test_csv_holds_mixed_cells_and_gaps(db, tmp_path):
    keys = {"mixed": [1, "a", None, "line\n2"], "half": ["\ud800", "b", "c", "d"]}
    (path,) = run_in(db, make_run(keys=keys)).export(tmp_path / "scan.csv")
    frame = pd.read_csv(path)
    assert frame["mixed"].tolist()[:2] == ["1", "a"]
    assert frame["mixed"].isna().tolist() == [False, False, True, False]
    assert frame["mixed"][3] == "line\n2"
    assert frame["half"][0] == "\\ud800"


def test_the_command_line_writes_each_format(header, tmp_path):
    def export(*arguments):
        return CliRunner().invoke(app, ["export", "--db", header.db.uri, *map(str, arguments)])

    for format, names in NAMES.items():
        done = export(tmp_path / format, "--format", format, "--arrays", "drop")
        assert done.exit_code == 0, done.output
        assert f"{counted(len(names), 'file')} of 1 run in " in done.output
        for name in names:
            assert (tmp_path / format / name).exists()
    done = export(tmp_path / "one", "--format", "netcdf", "--stream", "dark", "--fill")
    assert done.exit_code == 0, done.output
    assert xr.load_dataset(tmp_path / "one/two-streams.nc")["level"].values.tolist() == [9.5]
    refused = export(tmp_path / "csv-2", "--format", "csv")
    assert isinstance(refused.exception, BadQuery)
    assert "'v'" in str(refused.exception)
    assert "--arrays drop" in str(refused.exception)


# -- Parquet ---------------------------------------------------------------------------------


def list_of(kind, depth=1):
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


CELLS = {
    "whole": ([[1, 2], [3, 4], [5, 6]], list_of(pa.int64())),
    "floats": ([[1, 2], [3.5, 4.0], [5, 6]], list_of(pa.float64())),
    "ragged": ([[1.5], [], [2.5, 3.5]], list_of(pa.float64())),
    "matrix": ([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[0, 0], [0, 9]]], list_of(pa.int64(), 2)),
    "ragged matrix": ([[[1, 2]], [[5, 6], [7, 8]], []], list_of(pa.int64(), 2)),
    "cube": ([[[[n, 1]], [[2, 3]]] for n in range(3)], list_of(pa.int64(), 3)),
    "flags": ([[True, False]] * 3, list_of(pa.bool_())),
    "texts": ([["a", "ü"], ["b"], []], list_of(pa.string())),
    "ragged within": ([[[1], [2, 3]], [[], [4]], []], list_of(pa.int64(), 2)),
    "gaps": ([[1.5], None, [2.5]], list_of(pa.float64())),
    "late": ([None, None, [1, 2]], list_of(pa.int64())),
}
JSON_CELLS = {
    "depths": [[1], [[1]], [2]],
    "maps": [{"a": 1}, {"a": [2]}, {}],
    "mixed": [1, "a", [1]],
    "half": [["\ud800"], ["b"], ["c"]],
}


@pytest.fixture(params=[1, 1000], ids=["a row a partition", "one partition"])
def arrays(db, tmp_path, request):
    import dask

    keys = {name: cells for name, (cells, _) in CELLS.items()} | JSON_CELLS
    header = run_in(db, make_run(keys=keys))
    size = {"daskbroker.partition-size": "1 B", "daskbroker.seal-rows": 1}
    with dask.config.set(size if request.param == 1 else {}):
        db.close()
        with daskbroker.connect(tmp_path / "cut") as cut:
            header = run_in(cut, make_run(keys=keys))
            yield header.export(tmp_path / "scan.parquet")[0]


def test_arrays_are_lists_with_the_right_schema(arrays):
    table = pq.read_table(arrays)
    for name, (cells, kind) in CELLS.items():
        assert table.schema.field(name).type == kind, name
        assert table[name].to_pylist() == cells, name
    for name, cells in JSON_CELLS.items():
        assert [json.loads(text) for text in table[name].to_pylist()] == cells


def test_polars_reads_the_arrays(arrays):
    frame = polars.read_parquet(arrays)
    for name, (cells, _) in CELLS.items():
        assert frame[name].to_list() == cells, name


def test_duckdb_reads_the_arrays(arrays):
    for name, (cells, _) in CELLS.items():
        found = duckdb.sql(f"SELECT \"{name}\" FROM '{arrays}' ORDER BY seq_num").fetchall()
        assert [cell for (cell,) in found] == cells, name
    query = f"SELECT sum(matrix[2][1]), max(len(ragged)), bool_and(flags[1]) FROM '{arrays}'"
    assert duckdb.sql(query).fetchall() == [(10, 2, True)]


def test_whole_numbers_that_floats_do_not_hold_are_not_made_floats(db, tmp_path):
    cells = [[2**63 + 1], [-1]]
    (path,) = run_in(db, make_run(keys={"v": cells})).export(tmp_path / "scan.parquet")
    found = pq.read_table(path)["v"].to_pylist()
    assert [json.loads(c) if isinstance(c, str) else c for c in found] == cells


def test_columns_without_cells_have_the_type_that_is_claimed(db, tmp_path):
    run = RunBuilder()
    descriptor = run.descriptor({"v": [1.0], "m": [[1.0]], "x": 0.5})
    run.event(descriptor, {"v": None, "m": None, "x": 1.0})
    (path,) = run_in(db, run.stop()).export(tmp_path / "scan.parquet")
    assert claimed_type({"dtype": "array", "shape": [2], "dtype_numpy": "f16"}) is None
    schema = pq.read_schema(path)
    assert schema.field("v").type == list_of(pa.float64())
    assert schema.field("m").type == list_of(pa.float64(), 2)


# -- a Parquet folder that grows by runs -----------------------------------------------------


@pytest.fixture
def grown(db, tmp_path):
    """Three runs in a folder that has grown by the last of them, and what was written when."""
    insert_all(db, two_streams("123456"))
    insert_all(db, two_streams("second", values=(1.5, 2.5)))
    out = tmp_path / "tables"
    first = db().export(out, "parquet", partition="run")
    insert_all(db, two_streams("third", values=(7, 8), extra=[1.0]))
    return db, out, first, db().export(out, "parquet", partition="run")


def test_a_folder_grows_by_new_runs_only(grown):
    db, out, first, second = grown
    names = [
        sorted(path.relative_to(out).as_posix() for path in paths) for paths in (first, second)
    ]
    assert names[0] == [
        f"{stream}/{run}.parquet" for stream in ("dark", "primary") for run in ("123456", "second")
    ]
    assert names[1] == ["dark/third.parquet", "primary/third.parquet"]
    before = {path: path.stat().st_mtime_ns for path in first}
    assert db().export(out, "parquet", partition="run") == []
    assert {path: path.stat().st_mtime_ns for path in first} == before


def test_a_run_that_was_open_or_cut_off_is_written_again(db, tmp_path):
    documents = two_streams("open-run")
    insert_all(db, documents[:-1])
    (first, *_) = db().export(tmp_path, "parquet", partition="run")
    assert json.loads(pq.read_schema(first).metadata[b"stop"]) is None
    insert_all(db, documents[-1:])
    assert first in db().export(tmp_path, "parquet", partition="run")
    assert db().export(tmp_path, "parquet", partition="run") == []
    first.write_bytes(first.read_bytes()[:-9])
    assert db().export(tmp_path, "parquet", partition="run") == [first]
    assert len(db().export(tmp_path, "parquet", partition="run", fill=True)) == 2


def test_memory_that_is_too_small_for_a_column_makes_no_text_of_it(db, tmp_path, monkeypatch):
    """Arrow's error is a MemoryError, and an ArrowException as for cells of another type."""

    def fail(*args):
        raise pa.ArrowMemoryError("malloc failed")

    header = run_in(db, make_run(keys={"v": [[1], [], [1, 2]]}))
    monkeypatch.setattr(arrow_cells, "pa", SimpleNamespace(**{**vars(pa), "array": fail}))
    with pytest.raises(MemoryError, match="malloc failed"):
        arrow_cells._type_of_list([1])
    with pytest.raises(MemoryError, match="malloc failed"):
        header.export(tmp_path / "scan.parquet")
    assert list(tmp_path.rglob("scan*")) == []


def test_duckdb_reads_the_folder_as_one_table(grown):
    _, out, _, _ = grown
    files = f"read_parquet('{out}/primary/*.parquet', union_by_name = true)"
    found = duckdb.sql(f"SELECT run, count(*), sum(x), max(extra[1]) FROM {files} GROUP BY run")
    assert sorted(found.fetchall()) == [
        ("123456", 3, 1.5, None),
        ("second", 2, 4.0, None),
        ("third", 2, 15.0, 1.0),
    ]
    assert duckdb.sql(f"SELECT sum(level) FROM '{out}/dark/*.parquet'").fetchall() == [(28.5,)]


def test_polars_reads_the_folder_as_one_table(grown):
    _, out, _, _ = grown
    assert polars.read_parquet(out / "dark")["level"].sum() == 28.5
    parts = [polars.scan_parquet(path) for path in sorted((out / "primary").iterdir())]
    table = polars.concat(parts, how="diagonal_relaxed").collect()
    sums = table.group_by("run").agg(polars.col("x").sum()).sort("run")
    assert sums.rows() == [("123456", 1.5), ("second", 4.0), ("third", 15.0)]
    assert table["extra"].drop_nulls().to_list() == [[1.0], [1.0]]


def test_a_data_key_named_run_is_kept(db, tmp_path):
    run_in(db, make_run(keys={"run": [5, 6]}, uid="named-so"))
    (path,) = db().export(tmp_path, "parquet", partition="run")
    frame = polars.read_parquet(path)
    assert frame["run"].to_list() == ["named-so"] * 2
    assert frame["data:run"].to_list() == [5, 6]


def test_the_command_line_grows_a_folder(header, tmp_path):
    command = ["export", "--db", header.db.uri, str(tmp_path / "out")]
    command += ["--format", "parquet", "--partition", "run"]
    first, again = (CliRunner().invoke(app, command) for _ in range(2))
    assert "2 files of 1 run in " in first.output
    assert "0 files of 1 run in " in again.output


def test_a_mongodb_store_gives_the_same(db, mongo_database, tmp_path):
    plain, (documents, _) = two_streams(), datum_run(tmp_path)
    with daskbroker.connect(mongo_database) as mongo:
        for broker in (db, mongo):
            insert_all(broker, plain)
            insert_all(broker, documents)
        for fill in (False, True):
            one, other = (
                broker().export(tmp_path / f"{fill}-{number}", "parquet", fill=fill)
                for number, broker in enumerate((db, mongo))
            )
            assert len(one) == len(other) == 3
            for here, there in zip(one, other):
                assert pq.read_table(here).equals(pq.read_table(there), check_metadata=False)
        for format in ("netcdf", "zarr", "nexus", "jsonl"):
            assert len(mongo().export(tmp_path / format, format, fill=format == "nexus")) == 2
        assert len(mongo().export(tmp_path / "csv", "csv", arrays="drop")) == 3
