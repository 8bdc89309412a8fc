"""Runs as plain files: JSON lines that come back, Parquet that other tools read."""

from __future__ import annotations

import json

import dask
import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

import daskbroker
from daskbroker.core.errors import BadQuery, DaskbrokerError
from daskbroker.exporting.runs import export
from daskbroker.testing import RunBuilder, assert_documents_equal, external_run, make_run
from daskbroker.testing.base import insert_run
from daskbroker.work.ingest import ingest

ROWS = 40


def odd_run():
    """Columns of every kind, in two streams."""
    run = RunBuilder("odd-run", sample={"name": "größe", "weight": float("nan")})
    keys = {
        "x": 0.5, "n": 1, "label": "a", "on": True, "gap": 1, "lie": 1, "nested": "a",
        "v": [0.5, 0.5], "img": [[1, 2], [3, 4]], "ragged": [1, 2], "texts": ["a", "b"],
        "none": 0.5, "time": 0.5, "half": "a",
    }  # fmt: skip
    descriptor = run.descriptor(keys)
    dark = run.descriptor({"x": 0.5}, "dark field/1")
    for n in range(ROWS):
        run.event(
            descriptor,
            {
                "x": n / 2, "n": n, "label": f"größe {n}", "on": n % 2 == 0,
                "gap": None if n % 3 else n, "lie": n if n % 2 else "Disconnected",
                "nested": {"a": [n, None]}, "v": [n / 2, -1.0], "img": [[n, 0], [0, n]],
                "ragged": list(range(n % 4)), "texts": ["a", str(n)], "none": None,
                "time": n * 1.5, "half": "\ud800" if n == 3 else "whole",
            },
        )  # fmt: skip
    run.event(dark, {"x": 7.5})
    return run.stop()


def test_json_lines_come_back_by_ingest(db, tmp_path):
    runs = [odd_run(), external_run(2), make_run(3, uid="../outside")]
    headers = [insert_run(db, documents) for documents in runs]
    files = list(export(headers, tmp_path / "out"))
    assert [file.parent for file in files] == [tmp_path / "out"] * 3
    with daskbroker.connect(tmp_path / "again") as again:
        assert ingest(again, files).refused == 0
        for documents in runs:
            uid = documents[0][1]["uid"]
            assert_documents_equal(documents, again[uid].documents(fill=False))


@pytest.fixture
def exported(db, tmp_path):
    with dask.config.set({"daskbroker.partition-size": "2 kB", "daskbroker.seal-rows": 10}):
        db.close()
        with daskbroker.connect(tmp_path / "store") as small:
            header = insert_run(small, odd_run())
            assert header.table().npartitions > 1
            files = header.export(tmp_path / "out", "parquet")
            yield header, {file.stem: file for file in files}


def test_parquet_in_pandas(exported):
    header, files = exported
    table, frame = header.table().compute(), pd.read_parquet(files["primary"])
    assert frame["seq_num"].tolist() == table.index.tolist()
    assert list(frame.columns[1:]) == list(table.columns)
    assert (frame["time"] == table["time"].reset_index(drop=True)).all()
    for key in ("x", "n", "label", "on", "data:time"):
        assert frame[key].tolist() == table[key].tolist()
    assert frame["gap"].isna().tolist() == table["gap"].isna().tolist()
    assert frame["v"][3].tolist() == [1.5, -1.0]
    assert np.stack(frame["img"][3]).tolist() == [[3, 0], [0, 3]]
    assert frame["ragged"][7].tolist() == [0, 1, 2]
    assert [json.loads(cell) for cell in frame["lie"][:2]] == ["Disconnected", 1]
    assert json.loads(frame["nested"][5]) == {"a": [5, None]}
    assert json.loads(frame["half"][3]) == "\ud800"
    assert frame["none"].isna().all()


def test_parquet_in_polars(exported):
    _, files = exported
    frame = polars.read_parquet(files["primary"])
    assert frame.shape[0] == ROWS
    assert frame["x"].to_list() == [n / 2 for n in range(ROWS)]
    assert frame["gap"].to_list() == [None if n % 3 else n for n in range(ROWS)]
    assert frame["img"][3].to_list() == [[3, 0], [0, 3]]
    assert frame["time"].dtype.time_zone == "UTC"


def test_parquet_in_duckdb(exported):
    _, files = exported
    query = f"SELECT count(*), sum(x), max(v[1]), min(label) FROM '{files['primary']}' WHERE n < 10"
    assert duckdb.sql(query).fetchall() == [(10, 22.5, 4.5, "größe 0")]


def test_parquet_says_whose_it_is(exported):
    header, files = exported
    assert len(files) == 2
    (dark,) = [file for stem, file in files.items() if stem != "primary"]
    metadata = pq.read_schema(dark).metadata
    assert json.loads(metadata[b"daskbroker"]) == {"run": "odd-run", "stream": "dark field/1"}
    assert json.loads(metadata[b"stop"]) == header.stop
    assert json.loads(metadata[b"start"])["sample"]["name"] == "größe"


def test_an_empty_stream_is_a_file_without_rows(db, tmp_path):
    run = RunBuilder()
    run.descriptor({"x": 0.5, "label": "a", "v": [1.0]})
    (file,) = insert_run(db, run.stop()).export(tmp_path, "parquet")
    frame = pd.read_parquet(file)
    assert list(frame.columns) == ["seq_num", "time", "x", "label", "v"]
    assert len(frame) == 0


@pytest.mark.parametrize("unknown", ["excel", ""])
def test_an_unknown_format_is_refused_before_anything_is_written(db, tmp_path, unknown):
    with pytest.raises(BadQuery, match="jsonl, parquet"):
        list(export([insert_run(db, make_run(1))], tmp_path / "out", unknown))
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::daskbroker.core.errors.ClaimWarning")
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_what_fails_leaves_no_file(db, tmp_path, format):
    header = insert_run(db, external_run(2))
    with pytest.raises(DaskbrokerError, match="datums lack 'index'"):
        header.export(tmp_path / "out", format, fill=True)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
