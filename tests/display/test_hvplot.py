"""hvPlot draws tables and Datasets as they come, one run or many, from the values of the runs."""

from __future__ import annotations

import numpy as np
import pytest

import daskbroker
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all
from daskbroker.testing.files import write_hdf5

NUMBER = {"source": "SIM", "dtype": "number", "shape": []}
IMAGE = {
    "source": "SIM", "dtype": "array", "shape": [4, 6], "dtype_numpy": "<u2",
    "external": "FILESTORE:",
}  # fmt: skip
FRAMES = np.arange(6 * 24, dtype="u2").reshape(6, 4, 6)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    # Here, as it takes seconds, and all processes of pytest import this module.
    import hvplot.dask
    import hvplot.xarray  # noqa: F401  # both give what they draw a method `hvplot`

    folder = tmp_path_factory.mktemp("runs")
    path = write_hdf5(folder / "frames.h5", FRAMES)
    with daskbroker.connect(folder / "store") as db:
        for scan_id in (1, 2):
            insert_all(db, scan_of(scan_id, path))
        yield db


def scan_of(scan_id, path):
    run = RunBuilder(
        plan_name="grid_scan", scan_id=scan_id, motors=["y", "x"], shape=[2, 3], num_points=6,
        hints={"gridding": "rectilinear", "dimensions": [[["y"], "primary"], [["x"], "primary"]]},
    )  # fmt: skip
    keys = dict.fromkeys(("y", "x", "det"), NUMBER)
    descriptor = run.descriptor(keys | {"img": IMAGE, "mca": [0.0] * 4})
    resource = run.resource("AD_HDF5", root=str(path.parent), resource_path=path.name)
    for place in range(6):
        datum = run.datum(resource, point_number=place)
        data = {"y": place // 3, "x": place % 3, "det": place / scan_id, "img": datum}
        run.event(descriptor, data | {"mca": [0.0, 1.0, 2.0, 3.0]}, filled={"img": False})
    return run.stop()


def drawn(plot):
    """What is drawn, after it has really been drawn; of a plot with sliders the first one."""
    import holoviews

    holoviews.renderer("bokeh").get_plot(plot)
    return plot[next(iter(plot.data))] if isinstance(plot, holoviews.DynamicMap) else plot


def test_tables(db):
    header, runs = db[1], db()
    line = drawn(header.table().hvplot(x="seq_num", y="det"))
    assert line.dimension_values("det").tolist() == [0, 1, 2, 3, 4, 5]
    assert len(drawn(header.table(fields=["x", "det"]).hvplot())) == 2
    points = drawn(header.table().hvplot.scatter(x="time", y="det", c="x"))
    assert len(points) == 6
    table = runs.table(fields=["det", "start:scan_id"])
    over = drawn(table.hvplot(x="seq_num", y="det", by="start:scan_id"))
    assert {key: line.dimension_values("det")[-1] for key, line in over.data.items()} == {
        (1,): 5, (2,): 2.5,
    }  # fmt: skip
    assert len(drawn(table.hvplot(x="seq_num", y="det", groupby="run"))) == 6


def test_datasets(db):
    header = db[1]
    ds = header.dataset()
    line = drawn(ds["det"].hvplot.line(x="time"))
    assert line.dimension_values("det").tolist() == [0, 1, 2, 3, 4, 5]
    across = {"x": "img_dim_1", "y": "img_dim_0"}
    first = drawn(ds["img"].hvplot.image(**across))
    assert (first.dimension_values("img", flat=False) == FRAMES[0]).all()
    mean = drawn(ds["img"].mean("time").hvplot.image(**across))
    assert mean.dimension_values("img").max() == FRAMES.mean(0).max()
    one = drawn(ds["img"].isel(time=2, drop=True).hvplot.image(**across))
    assert one.dimension_values("img").max() == FRAMES[2].max()
    many = drawn(db().dataset()["det"].hvplot.line(x="time", by="run"))
    assert len(many) == 2


def test_grids_and_runs_along_a_motor(db):
    grid = db[2].dataset(grid=True)
    shown = drawn(grid["det"].hvplot.image(x="x", y="y"))
    assert shown.dimension_values("det", flat=False).tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]
    frame = drawn(grid["img"].hvplot.image(x="img_dim_1", y="img_dim_0"))  # sliders for x and y
    assert frame.dimension_values("img").max() == FRAMES[0].max()
    along = drawn(db[1].dataset(fields=["x", "det"], index="seq_num")["det"].hvplot())
    assert along
