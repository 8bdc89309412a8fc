"""``xr.open_dataset(place, engine="daskbroker")``."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import daskbroker
from daskbroker.core.errors import BadArgument, StoreNotFound, StreamNotFound
from daskbroker.stores.embedded.events import EmbeddedEventStore
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run
from daskbroker.xarray_engine import DaskbrokerEntrypoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path):
    """A store with a run of frames; its folder, uid and frames."""
    docs, data = datum_run(tmp_path, 6)
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, docs)
        yield tmp_path / "store", docs[0][1]["uid"], data


def test_xarray_finds_it_by_its_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["project"]["entry-points"]["xarray.backends"]["daskbroker"]
    module, _, name = named.partition(":")
    assert getattr(importlib.import_module(module), name) is DaskbrokerEntrypoint


def test_a_stream_is_a_dataset(place):
    folder, uid, data = place
    opened = xr.open_dataset(folder, engine=DaskbrokerEntrypoint, run=uid, stream="primary")
    expected = daskbroker.connect(folder)[uid].dataset()
    assert opened.compute().identical(expected.compute())
    assert opened.encoding["source"] == str(folder)
    newest = xr.open_dataset(str(folder), engine=DaskbrokerEntrypoint, roi={"img": np.s_[0, 2]})
    np.testing.assert_array_equal(newest["img"].values, data[:, 2])
    assert "x" not in xr.open_dataset(folder, engine=DaskbrokerEntrypoint, drop_variables="x")


def test_xarray_cuts_it_as_the_header_does(place):
    folder, uid, data = place
    with dask.config.set({"daskbroker.partition-size": 200}):
        opened = xr.open_dataset(folder, engine=DaskbrokerEntrypoint, run=uid, chunks={})
        expected = daskbroker.connect(folder)[uid].dataset()
    assert opened["img"].chunks == expected["img"].chunks
    assert opened["x"].chunks == expected["img"].chunks[:1]
    np.testing.assert_array_equal(opened["img"].values, data[:, None])


def test_it_is_planned_once(place, monkeypatch):
    """Not once more for the blocks that xarray uses."""
    folder, uid, _ = place
    planned = []
    plan_runs = EmbeddedEventStore.plan_runs

    def counted(store, *arguments, **options):
        planned.append(arguments)
        return plan_runs(store, *arguments, **options)

    monkeypatch.setattr(EmbeddedEventStore, "plan_runs", counted)
    xr.open_dataset(folder, engine=DaskbrokerEntrypoint, run=uid, chunks={})
    assert len(planned) == 1


def test_a_run_is_a_tree(place):
    folder, uid, data = place
    tree = xr.open_datatree(folder, engine=DaskbrokerEntrypoint, run=uid)
    assert list(tree.children) == ["primary"]
    np.testing.assert_array_equal(tree["primary/img"].values, data[:, None])


def test_what_is_not_there_is_an_error(place, tmp_path):
    folder, uid, _ = place
    with pytest.raises(StoreNotFound, match="there is no daskbroker store at"):
        xr.open_dataset(tmp_path / "nothing", engine=DaskbrokerEntrypoint)
    with pytest.raises(StreamNotFound, match="has no stream 'dark'"):
        xr.open_dataset(folder, engine=DaskbrokerEntrypoint, run=uid, stream="dark")
    with pytest.raises(
        BadArgument, match=r"open_dataset\(\) .* 'uid'; it has: run, stream, fields"
    ):
        xr.open_dataset(folder, engine=DaskbrokerEntrypoint, uid=uid)
    assert not (tmp_path / "nothing").exists()


def test_other_files_are_opened_without_naming_an_engine(tmp_path):
    """xarray asks every engine that is installed for its parameters."""
    script = (
        "import sys, xarray as xr\n"
        "xr.Dataset({'v': ('x', [1.0])}).to_netcdf(sys.argv[1])\n"
        "assert xr.open_dataset(sys.argv[1])['v'].values.tolist() == [1.0]\n"
        "assert 'daskbroker' in xr.backends.list_engines()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "file.nc")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
