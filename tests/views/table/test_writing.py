"""``to_parquet`` and ``to_csv`` of tables whose columns hold arrays."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskbroker
from daskbroker.core.errors import BadQuery, FrameMissing
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run

# Dask's, of pandas 3.1.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")

CELLS = {
    "x": [0.5, 1.5, 2.5],
    "label": ["a", "ü", "c"],
    "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    "ragged": [[1], [], [1, 2]],
    "mixed": [[1, 2], [1.5, 2.5], [3, 4]],
    "gaps": [None, None, [1.5]],
    "texts": [["a"], ["b", "c"], []],
    "image": [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[0, 0], [0, 9]]],
}


@pytest.fixture(params=["1 B", "64 MiB"], ids=["a row a partition", "one partition"])
def cut(tmp_path, request):
    with (
        dask.config.set({"daskbroker.partition-size": request.param, "daskbroker.seal-rows": 1}),
        daskbroker.connect(tmp_path / "cut") as broker,
    ):
        yield broker


def table_of(broker, cells):
    insert_all(broker, make_run(keys=cells))
    return broker[-1].table()


def test_arrays_are_written_to_parquet_without_a_schema(cut, tmp_path):
    table = table_of(cut, CELLS)
    table.to_parquet(tmp_path / "out")
    found = pq.read_table(tmp_path / "out").sort_by("seq_num")
    for name, cells in CELLS.items():
        assert found[name].to_pylist() == cells, name
    assert found.schema.field("mixed").type == pa.list_(pa.float64())
    assert found.schema.field("image").type == pa.list_(pa.list_(pa.int64()))
    again = dd.read_parquet(tmp_path / "out").compute()
    assert again.index.name == "seq_num"
    assert [list(cell) for cell in again["v"]] == CELLS["v"]
    assert polars.read_parquet(tmp_path / "out")["ragged"].to_list() == CELLS["ragged"]
    files = f"'{tmp_path}/out/*.parquet'"
    assert duckdb.sql(f"SELECT sum(v[1]), sum(image[2][2]) FROM {files}").fetchall() == [(9.0, 21)]


def test_what_was_made_of_a_table_is_written_too(cut, tmp_path):
    table = table_of(cut, CELLS)
    made = table[table["x"] > 1]
    made = made.assign(y=made["x"] * 2)[["y", "v"]].rename(columns={"v": "w"})
    made.to_parquet(tmp_path / "out", write_index=False)
    found = pq.read_table(tmp_path / "out")
    assert found.column_names == ["y", "w"]
    assert sorted(found["w"].to_pylist()) == CELLS["v"][1:]
    joined = table.assign(y=1.0)
    with pytest.raises(BadQuery, match="'v'"):
        joined.to_csv(tmp_path / "*.csv")


def test_a_schema_that_is_given_is_taken(cut, tmp_path):
    table = table_of(cut, {"v": [[1.0], [2.0]], "w": [[1], [2]]})
    kind = pa.list_(pa.float32())
    table.to_parquet(tmp_path / "out", schema={"v": kind})
    schema = pq.read_table(tmp_path / "out").schema
    assert (schema.field("v").type, schema.field("w").type) == (kind, pa.list_(pa.int64()))
    table.to_parquet(tmp_path / "none", schema=None)
    assert pq.read_table(tmp_path / "none")["w"].to_pylist() == [[1], [2]]


@pytest.mark.parametrize("odd", [[{"a": 1}, {}], [1, "a"], [[1], [[1]]], [["\ud800"], ["b"]]])
def test_what_parquet_cannot_hold_is_named(cut, tmp_path, odd):
    table = table_of(cut, {"v": [[1.0], [2.0]], "odd": odd})
    with pytest.raises(BadQuery, match=r"column 'odd' of stream 'primary'.*h\.export\(path"):
        table.to_parquet(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    table.drop(columns=["odd"]).to_parquet(tmp_path / "out")


def test_frames_are_written_too(db, tmp_path):
    documents, data = datum_run(tmp_path)
    insert_all(db, documents)
    db[-1].table().to_parquet(tmp_path / "out")
    assert (np.array(pq.read_table(tmp_path / "out")["img"].to_pylist()).squeeze() == data).all()


def test_an_empty_table_is_written(db, tmp_path):
    insert_all(db, [d for d in make_run(1, keys={"v": [[1.0]]}) if d[0] != "event"])
    db[-1].table().to_parquet(tmp_path / "out")
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_csv_never_holds_what_numpy_prints(cut, tmp_path):
    table = table_of(cut, CELLS)
    with pytest.raises(BadQuery, match=r"to_csv cannot write .*'v'.* of stream 'primary'.*arrays="):
        table.to_csv(tmp_path / "a-*.csv")
    with pytest.raises(BadQuery, match="column 'v'"):
        table["v"].to_csv(tmp_path / "b-*.csv")
    with pytest.raises(BadQuery, match="raise, drop"):
        table.to_csv(tmp_path / "c-*.csv", arrays="some")
    (path,) = table.to_csv(tmp_path / "d.csv", arrays="drop", single_file=True)
    frame = pd.read_csv(path)
    assert list(frame.columns) == ["seq_num", "time", "x", "label"]
    assert frame["label"].tolist() == CELLS["label"]
    table["x"].to_csv(tmp_path / "e.csv", single_file=True)
    assert pd.read_csv(tmp_path / "e.csv")["x"].tolist() == CELLS["x"]


def test_csv_reads_no_column_that_it_leaves_out(db, tmp_path):
    """Their frames may be missing."""
    documents, _ = datum_run(tmp_path)
    insert_all(db, documents)
    for path in tmp_path.rglob("*.h5"):
        path.unlink()
    header = db[-1]
    table = header.table()
    with pytest.raises(FrameMissing, match="img"):
        table[["img"]].compute()
    for some in (
        table, table[table["time"] > "1990-01-01"], table.partitions[0], table.loc[1:3],
        table.assign(twice=table["x"] * 2), table.reset_index(), table.drop(columns=["time"]),
        table.head(2, compute=False), table.repartition(npartitions=2),
    ):  # fmt: skip
        (path,) = some.to_csv(tmp_path / "d.csv", arrays="drop", single_file=True)
        columns = pd.read_csv(path).columns
        assert "x" in columns
        assert "img" not in columns
        with pytest.raises(BadQuery, match="column 'img'"):
            some.to_csv(tmp_path / "e.csv", single_file=True)
    assert header.export(tmp_path / "f.csv", arrays="drop")


def test_csv_holds_mixed_values(cut, tmp_path):
    table = table_of(cut, {"odd": [1, "a", None], "half": ["a", "\ud800", "ü"]})
    table.to_csv(tmp_path / "a.csv", single_file=True)
    assert pd.read_csv(tmp_path / "a.csv")["half"].tolist() == ["a", "\\ud800", "ü"]
    assert pd.read_csv(tmp_path / "a.csv")["odd"].tolist()[:2] == ["1", "a"]
