"""Grid scans as grids, and scans along a motor."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import grid_scan, list_grid_scan, scan
from ophyd.sim import hw

from daskbroker.core.errors import BadQuery
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.datasets import grid_place, grid_run
from daskbroker.testing.detector_runs import image_claim
from daskbroker.testing.files import frames, write_hdf5


def put(db, documents):
    insert_all(db, documents)
    return db[documents[0][1]["uid"]]


def expected(shape, snaking=False, points=None):
    """Number of the point at each place of a grid; NaN where there is none."""
    out = np.full(shape, np.nan)
    for number in range(int(np.prod(shape)) if points is None else points):
        out[tuple(grid_place(number, shape, snaking=snaking))] = number
    return out


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (5,), (1, 3)])
@pytest.mark.parametrize("snaking", [False, True])
@pytest.mark.parametrize("chunks", ["auto", None, {"m0": 1}], ids=repr)
@pytest.mark.parametrize("loaded", [0, 2**23])
def test_points_are_at_their_places(db, shape, snaking, chunks, loaded):
    header = put(db, grid_run(shape, snaking=snaking))
    with dask.config.set({"daskbroker.loaded-size": loaded}):
        grid = header.dataset(grid=True, chunks=chunks)
    names = tuple(f"m{axis}" for axis in range(len(shape)))
    assert grid["det"].dims == names
    assert grid["spectrum"].dims == (*names, "spectrum_dim_0")
    for axis, name in enumerate(names):
        assert grid[name].values.tolist() == list(range(shape[axis]))
    assert (grid["det"].values == expected(shape, snaking)).all()
    assert (grid["spectrum"].values[..., 0] == expected(shape, snaking) + 0.5).all()
    assert grid["n"].dtype == np.int64
    assert grid["seq_num"].dtype == np.int64
    flat = header.dataset()
    for row in range(flat.sizes["time"]):
        point = flat.isel(time=row)
        place = {name: float(point[name]) for name in names}
        assert float(grid["det"].sel(place)) == float(point["det"])
        assert grid["time"].sel(place).values == point["time"].values


@pytest.mark.parametrize("chunks", ["auto", None, {"m0": 1}], ids=repr)
@pytest.mark.parametrize("loaded", [0, 2**23])
def test_text_with_gaps_and_ragged_cells_are_as_in_memory(db, chunks, loaded):
    """Dask arrays of them would count None, and one cell would be an array with its dimensions."""
    documents = grid_run((2, 3))
    (descriptor,) = [doc for name, doc in documents if name == "descriptor"]
    for key, dtype in (("note", "string"), ("odd", "array")):
        descriptor["data_keys"][key] = {"source": "x", "dtype": dtype, "shape": []}
    for number, event in enumerate(doc for name, doc in documents if name == "event"):
        event["data"] |= {"note": "a" if number % 4 else None, "odd": [0.5] * (number % 3)}
        event["timestamps"] |= {"note": 0.0, "odd": 0.0}
    header = put(db, documents)
    with dask.config.set({"daskbroker.loaded-size": loaded}):
        grid = header.dataset(grid=True, chunks=chunks)
    assert int(grid["note"].count()) == 4
    point = grid.isel(m0=1, m1=2).compute()
    assert point["odd"].item().tolist() == [0.5, 0.5]
    assert point["note"].item() == "a"


@pytest.mark.parametrize("snaking", [False, True])
@pytest.mark.parametrize("points", [1, 5, 11])
def test_a_grid_that_was_not_finished_has_gaps(db, snaking, points):
    header = put(db, grid_run((3, 4), points=points, snaking=snaking))
    grid = header.dataset(grid=True)
    assert grid["m0"].values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(grid["det"].values, expected((3, 4), snaking, points))
    assert np.isnat(grid["time"].values).sum() == 12 - points
    assert grid["n"].dtype == np.float64


def test_a_point_that_was_taken_again_counts_once(db):
    documents = grid_run((2, 2))
    again = next(doc for name, doc in documents if name == "event" and doc["seq_num"] == 2)
    again = {**again, "uid": "again", "data": {**again["data"], "det": 99.0}}
    place = [n for n, (name, _) in enumerate(documents) if name == "event"][2]
    documents.insert(place, ("event", again))
    grid = put(db, documents).dataset(grid=True)
    assert grid["det"].values.tolist() == [[0.0, 99.0], [2.0, 3.0]]


@pytest.mark.parametrize("setpoints", [False, True])
def test_axes_are_setpoints_where_readbacks_jitter(db, setpoints):
    header = put(db, grid_run((3, 4), jitter=0.01, setpoints=setpoints, snaking=True))
    grid = header.dataset(grid=True)
    assert grid["m1"].values.tolist() == [0, 1, 2, 3]
    assert grid["m1"].dims == ("m1",)
    assert grid["m1_readback"].dims == ("m0", "m1")
    assert abs(float(grid["m1_readback"][0, 0]) - 0.01) < 1e-12
    some = header.dataset(grid=True, fields=["det"])
    assert set(some.data_vars) == {"det"}
    assert some["m1"].values.tolist() == [0, 1, 2, 3]
    without = put(db, grid_run((3, 4), jitter=0.01, extents=None)).dataset(grid=True)
    np.testing.assert_allclose(without["m1"].values, [0, 1, 2, 3], atol=0.02)


def test_an_unfinished_grid_whose_plan_tells_no_positions_is_an_error(db):
    header = put(db, grid_run((3, 4), points=4, extents=None))
    with pytest.raises(BadQuery, match=r"was not finished, and neither start\.extents"):
        header.dataset(grid=True)


NO_GRID = [
    ({"hints": {}}, "hints.dimensions, which names the motors of each axis, is missing"),
    ({"shape": None}, "start.shape must be a list of numbers, not None"),
    ({"shape": None, "num_points": None, "hints": {"dimensions": [[["m0"], "primary"]]}},
     "must be a list of numbers, not None, or start.num_points a number"),
    ({"shape": [3]}, r"start.shape \[3\] has 1 axes, hints.dimensions 2"),
    ({"shape": [2, 4]}, r"an event has seq_num 9, and a grid of \[2, 4\] has 8 points"),
    ({"shape": [3, "4"]}, "start.shape must be a list of numbers"),
    ({"snaking": [True]}, "start.snaking must have a value for each axis"),
    ({"snaking": [False, True]}, "at seq_num 8 m1 was at 3, where the grid has 0"),
    ({"hints": {"gridding": "spiral", "dimensions": [[["m0"], "primary"], [["m1"], "primary"]]}},
     "hints.gridding is 'spiral'"),
    ({"hints": {"dimensions": [[["m0"], "baseline"]]}}, "is of the stream 'baseline'"),
    ({"hints": {"dimensions": [[["m0"], "primary"], [["gone"], "primary"]]}}, "has no gone"),
    ({"hints": {"dimensions": [[["time"], "primary"]]}}, "an axis without a motor"),
    ({"hints": {"dimensions": [[["m0"], "primary"], [["m0"], "primary"]]}}, "'m0' for two axes"),
    ({"hints": {"dimensions": [["m0"]]}}, r"in place of \[\[motors\], stream\]"),
]  # fmt: skip


@pytest.mark.parametrize(("start", "message"), NO_GRID)
def test_what_is_no_grid_is_an_error_that_says_what_is_missing(db, start, message):
    documents = grid_run((3, 4))
    documents[0] = ("start", {**documents[0][1], **start})
    documents[0] = ("start", {k: v for k, v in documents[0][1].items() if v is not None})
    header = put(db, documents)
    with pytest.raises(BadQuery, match=message) as caught:
        header.dataset(grid=True)
    assert header.uid in str(caught.value)


def image_grid(folder, shape, points, snaking=True):
    """A grid scan with frames in a file, of which some points were taken."""
    data = frames(points)
    write_hdf5(folder / "a.h5", data)
    run = RunBuilder(
        shape=list(shape), snaking=[False, snaking], extents=[[0, n - 1] for n in shape],
        hints={"gridding": "rectilinear", "dimensions": [[["m0"], "primary"], [["m1"], "primary"]]},
    )  # fmt: skip
    keys = {"img": image_claim((1, *data.shape[1:])), "m0": 0.5, "m1": 0.5}
    descriptor = run.descriptor(keys)
    resource = run.resource("AD_HDF5", root=str(folder), resource_path="a.h5")
    for number in range(points):
        at = grid_place(number, shape, snaking=snaking)
        datum = run.datum(resource, point_number=number)
        row = {"img": datum, "m0": float(at[0]), "m1": float(at[1])}
        run.event(descriptor, row, filled={"img": False})
    return run.stop(), data


@pytest.mark.parametrize("chunks", ["auto", None, {"m0": 1, "m1": 2}], ids=repr)
@pytest.mark.parametrize("points", [12, 7])
def test_frames_are_a_grid_lazily(db, tmp_path, chunks, points):
    documents, data = image_grid(tmp_path, (3, 4), points)
    header = put(db, documents)
    grid = header.dataset(grid=True, chunks=chunks)
    image = grid["img"]
    assert image.shape == (3, 4, 1, *data.shape[1:])
    assert image.dtype == (np.uint16 if points == 12 else np.float32)
    assert image.chunks is None if chunks is None else image.chunks is not None
    if chunks and chunks != "auto":
        assert image.chunks[:2] == ((1, 1, 1), (2, 2))
    wanted = expected((3, 4), True, points)
    for place in np.ndindex(3, 4):
        frame = image[place].values[0]
        number = wanted[place]
        assert np.isnan(frame).all() if np.isnan(number) else (frame == data[int(number)]).all()
    part = image.isel(m0=slice(0, 2), m1=[3, 0])[..., 2:4, 1].values
    for m0, m1 in np.ndindex(2, 2):
        number = wanted[m0, [3, 0][m1]]
        same = np.isnan(number) or (part[m0, m1, 0] == data[int(number), 2:4, 1]).all()
        assert same
    if chunks is not None:
        assert image.data.name == header.dataset(grid=True, chunks=chunks)["img"].data.name


def test_chunks_of_a_grid_are_of_its_axes(db):
    header = put(db, grid_run((3, 4)))
    for chunks in ({"time": 2}, 5):
        with pytest.raises(BadQuery, match="chunks of a grid are"):
            header.dataset(grid=True, chunks=chunks)
    with pytest.raises(BadQuery, match="grid=True and index= exclude each other"):
        header.dataset(grid=True, index="m0")


@pytest.fixture(scope="module")
def devices():
    return hw()


@pytest.mark.parametrize("snake", [False, True])
def test_scans_of_a_run_engine_are_grids(db, devices, snake):
    engine = RunEngine()
    engine.subscribe(db.insert)
    det, m1, m2 = devices.det, devices.motor1, devices.motor2
    engine(grid_scan([det], m1, -1, 1, 3, m2, 10, 13, 4, snake_axes=snake))
    engine(list_grid_scan([det], m1, [5, 1, 2], m2, [3, 9], snake_axes=snake))
    engine(scan([det], m1, 0, 4, 5))
    one, lists, grid = (db[-n].dataset(grid=True) for n in (1, 2, 3))
    assert grid["det"].dims == ("motor1", "motor2")
    assert grid["motor1"].values.tolist() == [-1, 0, 1]
    assert grid["motor2"].values.tolist() == [10, 11, 12, 13]
    assert lists["motor1"].values.tolist() == [5, 1, 2]
    assert lists["motor2"].values.tolist() == [3, 9]
    assert one["motor1"].values.tolist() == [0, 1, 2, 3, 4]
    assert not np.isnan(grid["det"].values).any()


# -- along a motor ---------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
def test_a_scan_is_selected_by_its_motor(db, positions):
    run = RunBuilder(hints={"dimensions": [[["motor"], "primary"]]})
    descriptor = run.descriptor({"motor": 0.5, "det": 0.5})
    for place in positions:
        run.event(descriptor, {"motor": place, "det": place * 10})
    dataset = put(db, run.stop()).dataset(index="motor")
    assert dataset["det"].dims == ("motor",)
    assert float(dataset["det"].sel(motor=1.2, method="nearest")) == 10.0
    assert float(dataset["det"].sel(motor=2.0)) == 20.0
    assert set(dataset.coords) == {"motor", "time", "seq_num"}
    some = db[-1].dataset(fields="det", index="motor")
    assert set(some.variables) == {"motor", "time", "seq_num", "det"}


def test_an_index_has_to_be_one_number_for_each_event(db):
    header = put(db, grid_run((2, 2)))
    for name in ("spectrum", "gone"):
        with pytest.raises(BadQuery, match=f"index='{name}' must be a variable with one number"):
            header.dataset(index=name)
