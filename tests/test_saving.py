"""Datasets are saved by xarray without changes, name their origin, and can become runs again."""

from __future__ import annotations

import json
import re
import uuid

import dask
import h5py
import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import daskbroker
from daskbroker import dataset_to_stream, savable
from daskbroker.cli import app
from daskbroker.core.errors import BadDocument
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.datasets import assert_comes_back, written_datasets
from daskbroker.testing.detector_runs import datum_run
from daskbroker.work.ingest import ingest

# Zarr's of itself: text has no specification in version 3 of the format yet.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently"),
    pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:Object at .* is not recognized"),
]

FORMATS = ("nc", "zarr")


def save(data, path):
    """Save a Dataset as a user does, in any format."""
    (data.to_zarr if path.suffix == ".zarr" else data.to_netcdf)(path)
    return path


def opened(path, tree=False):
    """Open a file with xarray."""
    engine = "zarr" if path.suffix == ".zarr" else None
    with (xr.open_datatree if tree else xr.open_dataset)(path, engine=engine) as found:
        return found.load()


@pytest.fixture
def header(db):
    start = {
        "hints": {"dimensions": [[["motor"], "primary"]]},
        "sample": {"name": "Ag", "token": uuid.UUID(int=5), "key": b"\0\1"},
        "note": "größe \0 \ud800".encode("utf8", "surrogatepass").decode("utf8", "replace"),
        "long": "x" * 100_000,
    }
    run = RunBuilder(scan_id=7, **start)
    motor = {"source": "PV:m", "dtype": "number", "shape": [], "units": "mm", "precision": 3}
    odd = {"source": "PV:o", "dtype": "number", "shape": [], "units": "a\0b"}
    exposure = {"source": "t", "dtype": "number", "shape": [], "units": "s"}
    since = {"source": "t", "dtype": "number", "shape": [], "units": "seconds since start"}
    day = {"source": "t", "dtype": "number", "shape": [], "units": "days since 2000-01-01"}
    keys = {"motor": motor, "odd": odd, "exposure": exposure, "label": "a", "v": [0.5, 0.5], "n": 1}
    keys |= {"since": since, "day": day}
    descriptor = run.descriptor(keys)
    dark = run.descriptor({"level": 0.5}, "dark")
    for number in range(5):
        row = {"motor": number / 2, "odd": 1.0, "exposure": 0.1, "label": f"ü{number}"}
        row |= {"since": number * 0.5, "day": 9000.25}
        run.event(descriptor, {**row, "v": [number * 1.0, -1.0], "n": number})
    run.event(dark, {"level": 9.5})
    insert_all(db, run.stop())
    return db[-1]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("chunks", ["auto", None, {"time": 2}], ids=repr)
def test_a_dataset_is_saved_as_it_is(header, tmp_path, format, chunks):
    dataset = header.dataset(chunks=chunks, timestamps=True)
    found = opened(save(dataset, tmp_path / f"file.{format}"))
    for name, variable in dataset.variables.items():
        assert found[name].values.tolist() == variable.values.tolist() or name == "time"
        assert found[name].dims == variable.dims
    assert (found["time"].values == dataset["time"].values).all()
    assert set(found.coords) == {"time", "seq_num", "motor"}
    assert found["motor"].attrs["units"] == "mm"
    assert found["exposure"].dtype == np.float64
    # xarray would decode these as times, or fail for the whole file, if they were `units`.
    assert found["since"].attrs["unit"] == "seconds since start"
    assert json.loads(found["odd"].attrs["units"]) == "a\0b"
    told = daskbroker.attrs(found)
    assert told == daskbroker.attrs(dataset)
    assert (told["run"], told["scan_id"], told["stream"]) == (header.uid, 7, "primary")
    assert (told["start"], told["stop"]) == (header.start, header.stop)
    assert told["descriptors"] == [header.descriptors["primary"][0]["uid"]]


@pytest.mark.parametrize("format", FORMATS)
def test_a_tree_is_saved_and_comes_back_as_one_run(db, header, tmp_path, format):
    path = save(header.tree(), tmp_path / f"file.{format}")
    assert daskbroker.attrs(opened(path, tree=True))["start"] == header.start
    header.export(tmp_path / f"exported.{format}")  # which compares what is read back
    report = ingest(db, [path])
    assert not report.refusals
    (uid,) = report.runs
    new = db[uid]
    assert sorted(new.streams) == ["dark", "primary"]
    assert new.dataset("dark")["level"].values.tolist() == [9.5]
    assert new.stop["num_events"] == {"primary": 5, "dark": 1}
    assert new.start["derived_from"]["runs"] == [header.uid]
    assert_comes_back(new.dataset(), header.dataset(), dtypes=False)
    assert new.descriptors["primary"][0]["data_keys"]["since"]["units"] == "seconds since start"
    new.export(tmp_path / "file.nxs")  # of which other readers look for `units`
    with h5py.File(tmp_path / "file.nxs") as file:
        assert file["entry/primary/since"].attrs["units"] == "seconds since start"


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_is_open_is_saved(db, tmp_path, format):
    insert_all(db, make_run(3, stop=False))
    found = opened(save(db[-1].dataset(), tmp_path / f"file.{format}"))
    assert daskbroker.attrs(found)["stop"] is None
    save(db[-1].tree(), tmp_path / f"tree.{format}")


@pytest.mark.parametrize("format", FORMATS)
def test_many_runs_are_saved(db, tmp_path, format):
    for number in range(3):
        insert_all(db, make_run(2, number=number))
    found = opened(save(db().dataset(), tmp_path / f"file.{format}"))
    assert daskbroker.attrs(found)["runs"] == db().dataset().attrs["runs"]
    assert len(set(found["run"].values.tolist())) == 3
    report = ingest(db, [save(db().dataset(combine="tree"), tmp_path / f"tree.{format}")])
    assert not report.refusals
    assert len(report.runs) == 3
    origins = {db[uid].start["derived_from"]["runs"][0] for uid in report.runs}
    assert origins == set(found["run"].values.tolist())


@pytest.mark.parametrize("format", FORMATS)
def test_frames_are_saved_block_by_block(db, tmp_path, format):
    documents, data = datum_run(tmp_path)
    insert_all(db, documents)
    path = save(db[-1].dataset(chunks={"time": 2}), tmp_path / f"file.{format}")
    assert (opened(path)["img"].values.squeeze() == data).all()
    assert opened(path)["img"].dtype == np.uint16
    (uid,) = ingest(db, [path]).runs
    assert (db[uid].dataset()["img"].values.squeeze() == data).all()


ODD = {
    "ragged": [[1.5], [1.0, 2.0], None],
    "whole": [[1], [1, 2], []],
    "texts": [["a"], ["b", "c"], []],
    "mixed": [1, "a", None],
    "maps": [{"a": 1}, {"b": [2]}, {}],
    "planes": [[[1, 2]], [[1, 2], [3, 4]], [[5, 6]]],
    "nested": [[[1], [2, 3]], [[4]], []],
    "some": [2**60 + 1, None, 3],
    "beyond": [2**64, -5, 1],
    "null": ["a\0", "b", "c"],
    "a/b": [1.5, 2.5, 3.5],
    "bytes": [b"a\0b", b"\xff", b"c"],
    "gaps": ["a", None, "b"],
    "flags": [True, None, False],
}


@pytest.mark.parametrize("format", FORMATS)
def test_cells_of_no_common_shape_have_a_form_that_files_hold(db, tmp_path, format):
    insert_all(db, make_run(keys=ODD))
    header = db[-1]
    written = savable(header.dataset())
    assert written["ragged"].dims == ("time", "ragged_dim_0")
    assert written["ragged_length"].values.tolist() == [1, 2, -1]
    assert written["whole"].dtype.kind == "i"
    assert written["mixed"].values.tolist() == ["1", '"a"', "null"]
    for chunks in (None, {"time": 2}):
        lazy = header.dataset(chunks=chunks)
        xr.testing.assert_identical(savable(lazy).compute(), written.compute())
        part = lazy[["maps", "ragged"]].isel(time=slice(1, None)).assign_attrs(a=1)
        assert opened(save(part, tmp_path / f"part {chunks}.{format}"))["maps"].size == 2
    assert isinstance(header.dataset(), xr.Dataset)
    path = save(header.dataset(), tmp_path / f"file.{format}")
    (uid,) = ingest(db, [path]).runs
    found = db[uid].dataset().compute()
    assert set(found.variables) == {"time", "seq_num", *ODD}

    def plain(cells):
        return [c.tolist() if isinstance(c, np.ndarray) else c for c in cells]

    unlike = ("gaps", "flags", "bytes")
    for name in ODD.keys() - unlike:
        assert plain(found[name].values) == ODD[name], name
    assert found["gaps"].values.tolist() == ["a", "", "b"]  # files know no missing text
    again = save(db[uid].dataset(), tmp_path / f"again.{format}")  # a restored Dataset
    assert opened(again)["ragged_length"].values.tolist() == [1, 2, -1]
    for number, tree in enumerate(
        (header.tree(), header.tree()["primary"], savable(header.tree()))
    ):
        path = save(tree, tmp_path / f"tree {number}.{format}")
        node = opened(path, tree=True)
        assert (node if number == 1 else node["primary"])["maps"].values[1] == '{"b":[2]}'
    assert "maps" in opened(save(header.tree()["primary"].to_dataset(), tmp_path / f"one.{format}"))
    save(db().dataset(), tmp_path / f"many.{format}")
    assert xr.testing.assert_identical(savable(written), written) is None


@pytest.mark.parametrize("format", FORMATS)
def test_names_with_a_slash_have_a_form_too(db, tmp_path, format):
    insert_all(db, make_run(keys={"a/b": [[1.0], [2.0]], "x": [1.0, 2.0]}))
    header = db[-1]
    written = header.dataset()
    path = save(written, tmp_path / f"file.{format}")
    (uid,) = ingest(db, [path]).runs
    assert_comes_back(db[uid].dataset(), written, dtypes=False)


@pytest.mark.parametrize("name", ["ü" * 128, "s/" * 100])
def test_names_that_no_file_can_have_are_named(db, tmp_path, name):
    insert_all(db, make_run(keys={name: [1.0], "x": [1.0]}, streams=("primary", name)))
    header = db[-1]
    for number, written in enumerate(
        (header.dataset(), header.tree(), header.dataset(chunks=None))
    ):
        with pytest.raises(
            BadDocument, match=r"255 bytes or less .*(ü+ … ü+|s/s|s%2Fs).* \(ds.rename"
        ):
            save(written, tmp_path / f"{number}.zarr")
        save(written, tmp_path / f"{number}.nc")
    with pytest.raises(BadDocument, match=r"255 bytes or less .*(ü+ … ü+|s%2Fs)"):
        list(header.export(tmp_path / "export.zarr", format="zarr"))


NULLS = {"text": ["a\0", "\\x00b", "ü"], "inner": ["a\0b", "", "c\n"], "z": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize("format", FORMATS)
def test_text_with_null_characters_is_written_as_it_comes(db, tmp_path, format):
    """In memory and lazy, and what xarray puts together of it; missing text is empty."""
    insert_all(db, make_run(keys=NULLS, uid="nulls"))
    insert_all(db, make_run(keys={"gaps": ["a\0", None, "b"]}, uid="gaps"))
    header = db["nulls"]
    dataset, other = header.dataset(), xr.Dataset({"q": ("time", [1, 2, 3])})
    dated = dataset.swap_dims(time="text").drop_vars("seq_num")
    gaps = opened(save(db["gaps"].dataset(), tmp_path / f"gaps.{format}"))
    assert gaps["gaps"].values.tolist() == ["a\0", "", "b"]
    for number, written in enumerate(
        (
            dataset,
            xr.merge([dataset, other]),
            xr.concat([dataset, dataset], "time"),
            xr.combine_by_coords([dataset, other]),
            dataset.where(dataset["z"] != 2, drop=True),
            header.dataset(fields=["inner", "text"])[["text", "inner"]],
            dated.reset_index("text"),
        )
    ):
        found = opened(save(written, tmp_path / f"{number}.{format}"))
        for name in ("text", "inner"):
            assert found[name].values.tolist() == written[name].values.tolist(), number
    for number, lazy in enumerate((header.dataset(chunks={"time": 2}), header.tree())):
        node = lazy["primary"] if number else lazy
        path = save(lazy, tmp_path / f"lazy {number}.{format}")
        (uid,) = ingest(db, [path]).runs
        for name in NULLS:
            assert db[uid].dataset()[name].values.tolist() == node[name].values.tolist()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", ["8 MiB", 0], ids=["in memory", "lazy"])
def test_one_event_is_written(db, tmp_path, format, size):
    """Also booleans of which none is missing any more, which are objects still."""
    insert_all(db, make_run(keys=ODD))
    with dask.config.set({"daskbroker.loaded-size": size}):
        dataset = db[-1].dataset()
    event = opened(save(dataset.isel(time=0), tmp_path / f"0.{format}"))
    assert event["flags"].dtype == bool
    assert event["flags"].item() is True
    assert event["ragged"].item() == "[1.5]"
    two = opened(save(dataset.dropna("time", subset=["flags"]), tmp_path / f"2.{format}"))
    assert two["flags"].values.tolist() == [True, False]
    assert two["ragged_length"].values.tolist() == [1, -1]


def test_methods_of_trees_keep_that_they_can_be_written(db, tmp_path):
    insert_all(db, make_run(keys=ODD))
    tree = db[-1].tree()
    for number, one in enumerate(
        (
            tree.filter(lambda node: True),
            tree.match("prim*"),
            tree.map_over_datasets(lambda node: node),
            tree["primary"].filter(lambda node: True),
        )
    ):
        found = opened(save(one, tmp_path / f"{number}.nc"), tree=True)
        node = found.get("primary", found)
        assert node["ragged_length"].values.tolist() == [1, 2, -1]
    nothing = db[-1].dataset().isnull()
    assert not opened(save(nothing, tmp_path / "nothing.zarr"))["a%2Fb"].values.any()


def test_methods_of_datasets_with_odd_cells_keep_that_they_can_be_written(db, tmp_path):
    insert_all(db, make_run(keys={"ragged": [[1.5], [1.0, 2.0], []], "z": [1.0, 2.0, 3.0]}))
    dataset = db[-1].dataset()
    kept = dataset.where(dataset["z"] < 3, drop=True)
    assert kept.sizes["time"] == 2
    assert kept.indexes["time"].equals(dataset.indexes["time"][:2])
    assert set(kept.coords) == set(dataset.coords)
    for number, one in enumerate((kept, dataset.astype(object), dataset.combine_first(dataset))):
        path = save(one, tmp_path / f"{number}.nc")
        assert opened(path)["ragged_length"].values.tolist() == [1, 2, 0][: one.sizes["time"]]


ALIKE = {
    "a/b": [1.0, 2.0], "a%2Fb": [3.0, 4.0], "a%252Fb": [5.0, 6.0], "..": [7.0, 8.0], ".": [9, 1],
    "%2E": [2, 3], "v": [[1.0], [2.0, 3.0]], "v_length": [4.0, 5.0], "v_dim_0": [6.0, 7.0],
    "w/": [["a"], ["b", "c"]], "": [1, 2], "%": [3, 4], "%25": [5, 6], "a\\b": [7, 8],
    "a\0b": [9, 1], "%5C": [2, 3], ".zgroup": [4, 5], ".zarray": [6, 7], "zarr.json": [8, 9],
    "a\x1b[31m\n\x9bb": [1, 3], "%1B": [2, 4],
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_values_that_xarray_cannot_write_or_read(db, tmp_path, format):
    """Whole numbers of more than 64 bits, and times that nanoseconds cannot say."""
    cells = {"large": [2**64, -5], "unsigned": [2**64 - 1, 3], "x": [0.5, 1.5]}
    insert_all(db, make_run(keys=cells, uid="large"))
    written = savable(db["large"].dataset())
    assert written["large"].values.tolist() == [str(2**64), "-5"]
    path = save(written, tmp_path / f"file.{format}")
    (uid,) = ingest(db, [path]).runs
    found = db[uid].dataset().compute()
    assert {name: found[name].values.tolist() for name in cells} == cells
    late = RunBuilder("late", time=1.05e10)
    late.event(late.descriptor({"x": 0.5}), {"x": 1.5}, time=1.05e10)
    insert_all(db, late.stop())
    assert db["late"].export(tmp_path / f"late.{format}")


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_files_would_not_tell_apart(db, tmp_path, format):
    """Of keys, of the lengths of cells beside them, and of streams."""
    run = RunBuilder("u/1")
    streams = ("a/b", "a%2Fb", ".", "..", "A/B")
    for number, stream in enumerate(streams):
        run.event(run.descriptor({"x": 0.5}, stream), {"x": float(number)})
    insert_all(db, make_run(keys=ALIKE, uid="alike"))
    insert_all(db, run.stop())
    header, named = db["alike"], db["u/1"]
    written = savable(header.dataset())
    assert set(written["v_length"].values) == {4.0, 5.0}
    xr.testing.assert_identical(savable(written), written)
    path = save(written, tmp_path / f"file.{format}")
    (uid,) = ingest(db, [path]).runs
    found = db[uid].dataset().compute()
    for name, cells in ALIKE.items():
        assert [np.asarray(c).tolist() for c in found[name].values] == cells, name

    tree = header.tree()
    for number, pairs in enumerate([None, dataset_to_stream(tree)]):
        if pairs is None:  # what is exported is the tree of all streams
            (path,) = header.export(tmp_path / f"run-{number}.{format}")
            (uid,) = ingest(db, [path]).runs
        else:
            pairs = list(pairs)
            insert_all(db, pairs)
            uid = pairs[0][1]["uid"]
        assert db[uid].fields() == set(ALIKE)
        found = db[uid].dataset().compute()
        for name, cells in ALIKE.items():
            assert [np.asarray(c).tolist() for c in found[name].values] == cells, name
        assert "names" not in found.attrs

    assert len(named.tree().children) == len(streams)
    (path,) = named.export(tmp_path / f"tree.{format}")
    (uid,) = ingest(db, [path]).runs
    assert {s: db[uid].dataset(s).x.values.tolist() for s in db[uid].streams} == {
        stream: [float(number)] for number, stream in enumerate(streams)
    }


def test_what_is_saved_is_ingested_once(db, header, tmp_path):
    path = save(header.dataset(), tmp_path / "file.nc")
    first, again = ingest(db, [path]), ingest(db, [tmp_path])
    assert list(first.runs) == list(again.runs)
    assert not again.refusals
    assert len(db()) == 2
    (uid,) = first.runs
    assert db[uid].start["derived_from"]["runs"] == [header.uid]
    assert db[uid].start["sample"] == header.start["sample"]
    assert db[7] == header or db[7].uid == header.uid


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("what", ["as it is", "grid", "another axis", "time last", "other times"])
def test_other_datasets_are_ingested_too(db, tmp_path, what, format):
    written = written_datasets()[what]
    written["img"].attrs.clear() if "img" in written else None  # netCDF has no mappings
    (uid,) = ingest(db, [save(written, tmp_path / f"file.{format}")]).runs
    assert_comes_back(db[uid].dataset(), written, dtypes=False)


def test_the_command_line_ingests_what_was_saved(header, tmp_path):
    path = save(header.dataset(), tmp_path / "file.nc")
    result = CliRunner().invoke(app, ["ingest", "--db", str(tmp_path / "other"), str(path)])
    assert result.exit_code == 0, result.output
    with daskbroker.connect(tmp_path / "other") as other:
        assert other[-1].dataset()["n"].values.tolist() == [0, 1, 2, 3, 4]


def test_other_files_are_refused_by_name(db, header, tmp_path):
    path = save(header.dataset(), tmp_path / "file.nc")
    (tmp_path / "half.nc").write_bytes(path.read_bytes()[:3000])
    with h5py.File(tmp_path / "huge.nc", "w") as file:
        file.create_dataset("x", (2**40,), "f8", chunks=(2**20,))
    with h5py.File(tmp_path / "deep.nc", "w") as file:
        file["v"] = np.zeros(3, np.complex128)
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "empty.zarr" / "zarr.json").write_text("{")
    names = ("half.nc", "huge.nc", "deep.nc", "empty.zarr")
    report = ingest(db, [tmp_path / name for name in names])
    assert len(report.refusals) == 4, report.refusals
    for refusal, name in zip(report.refusals, names):
        assert str(tmp_path / name) in refusal.reason
    assert len(db()) == 1


def test_files_of_detectors_are_no_recordings(db, header, tmp_path):
    """Those beside recordings; one that is named is meant."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    for name in ("det.nc", "det.zarr"):
        save(xr.Dataset({"frames": (("n", "y", "x"), np.zeros((2, 3, 4)))}), folder / name)
    save(header.tree(), folder / "tree.nc")
    save(db().dataset(combine="tree"), folder / "runs.zarr")
    report = ingest(db, [folder])
    assert not report.refusals
    assert report.files == 2
    (folder / "loop.nc").symlink_to("loop.nc")  # it cannot be known what it is
    refused = ingest(db, [folder]).refusals  # the runs are the same again
    assert [one.where for one in refused] == [f"{folder}/loop.nc"]
    report = ingest(db, [folder / "det.nc"])
    assert db[next(iter(report.runs))].dataset()["frames"].dims == ("time", "n", "y", "x")


def test_a_repr_shows_no_wall_of_text(db, header):
    insert_all(db, make_run(2, stop=False, note="y" * 5000))
    for run in (header, db[-1]):
        dataset, tree = run.dataset(), run.tree()
        assert len(dataset.attrs["start"]) > 5000
        assert max(map(len, repr(dataset).splitlines())) < 120
        assert max(map(len, repr(tree).splitlines())) < 120
        for shown in (dataset._repr_html_(), tree._repr_html_()):
            folds = re.findall(
                r"type='checkbox'([^>]*)><label[^>]*>Attributes: <span>\((\d+)", shown
            )
            assert folds
            for state, count in folds:
                assert "checked" not in state or int(count) < 10
        assert "start" not in tree.attrs
        assert daskbroker.attrs(tree)["start"] == run.start


def test_attributes_that_are_no_documents_are_an_error():
    with pytest.raises(daskbroker.DaskbrokerError, match="'start' is not JSON text"):
        daskbroker.attrs({"start": "{"})
    assert daskbroker.attrs({"title": np.float32(1.5)}) == {"title": 1.5}
