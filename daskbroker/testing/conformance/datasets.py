"""Conformance, Datasets: what is written back with ``dataset_to_stream`` is what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from xarray.indexes import PandasMultiIndex

import daskbroker

from ...views.dataset.attributes import DOCUMENTED
from ...work.ingest import ingest
from ..base import Conformance, Put, insert_all, insert_run
from ..detector_runs import datum_run
from ..runs import RunBuilder

TIMES = np.datetime64("2026-03-01T12:00:00", "us") + np.arange(6) * np.timedelta64(250_000, "us")


def assert_comes_back(found: xr.Dataset, written: xr.Dataset, *, dtypes: bool = True) -> None:
    """Check that a Dataset came back, except for attributes of its origin and an added ``time``.

    Pass ``dtypes=False`` if xarray wrote a file in between, which changes the units of times.
    """
    # xarray.testing compares classes; those of odd cells and names have other writers, no more.
    found, written = (
        xr.Dataset(one.data_vars, one.coords, one.attrs)
        for one in (found.compute(), written.compute())
    )
    if "time" not in written.variables and "time" in found.variables:
        found = found.drop_vars("time") if "time" in written.dims else found.isel(time=0, drop=True)
    for one in (found, written):
        one.attrs = {name: value for name, value in one.attrs.items() if name not in DOCUMENTED}
    xr.testing.assert_identical(found, written)
    for name, variable in written.variables.items() if dtypes else ():
        same = variable.dtype == found.variables[name].dtype or variable.dtype.kind in "TUO"
        assert same or name in written.xindexes, (name, variable.dtype, found[name].dtype)
    assert found.xindexes.keys() >= {n for n in written.xindexes if n in written.dims}


def flat_dataset() -> xr.Dataset:
    """Return a two-motor scan with spectra, frames, and variables without the dimension time."""
    x, y = np.tile([0.0, 0.5, 1.0], 2), np.repeat([10.0, 20.0], 3)
    values = np.arange(6 * 4 * 5, dtype=np.uint16).reshape(6, 4, 5)
    return xr.Dataset(
        {
            "det": ("time", np.arange(6.0), {"units": "counts", "object": "det", "source": "PV"}),
            "n": ("time", np.arange(6, dtype=np.uint8)),
            "label": ("time", list("aabbcc")),
            "spectrum": (("time", "energy"), np.arange(24, dtype=np.float32).reshape(6, 4)),
            "img": (("time", "row", "column"), values, {"note": {"deep": [1, None]}}),
            "dark": (("row", "column"), values[0]),
            "norm": ((), 2.5, {"units": "1"}),
        },
        coords={
            "time": TIMES,
            "seq_num": ("time", np.arange(1, 7)),
            "x": ("time", x, {"units": "mm"}),
            "y": ("time", y),
            "energy": np.linspace(7.1, 7.4, 4),
            "column": ("column", np.arange(5) * 0.1, {"units": "mm"}),
            "angle": ("row", list("pqrs")),
            "sample": ((), "Ag"),
        },
        attrs={"title": "trial", "limits": [1.5, 2.5]},
    )


def written_datasets() -> dict[str, xr.Dataset]:
    """Return Datasets that are results of common operations, by what was done."""
    flat = flat_dataset()
    grid = flat[["det", "spectrum", "img"]].set_index(time=["y", "x"]).unstack("time")
    return {
        "as it is": flat,
        "grid": grid,
        "unstacked, with its times": flat.reset_coords("seq_num")
        .assign(when=("time", TIMES))
        .set_index(time=["y", "x"])
        .unstack("time"),
        "groups": _groups(flat),
        "another axis": flat.swap_dims(time="x"),
        "sorted": flat.sortby("det", ascending=False),
        "one step": flat.isel(time=3),
        "no time coordinate": flat.drop_vars(["time", "seq_num"]),
        "nothing but scalars": flat[["det"]].mean().assign_attrs(title="mean"),
        "mean over time": flat[["spectrum", "img"]].mean("time"),
        "a stack": flat[["img"]].stack(pixel=("row", "column")),
        "stacked times": flat[["spectrum"]].reset_coords(drop=True).stack(p=("time", "energy")),
        "time last": flat.transpose(..., "time"),
        "empty": flat.isel(time=slice(0, 0)),
        "empty axis": flat.isel(energy=slice(0, 0)),
        "times of nanoseconds": flat.assign_coords(time=TIMES + np.timedelta64(1, "ns")),
        "other times": flat.assign(when=("energy", TIMES[:4]), lasted=("time", TIMES - TIMES[0])),
        "rows of several runs": flat.assign_coords(
            run=("time", list("ababab")), seq_num=("time", [1, 1, 2, 2, 3, 3])
        ),
        "odd names": flat.rename(det="config:det:x", n="a.b", label="uid", norm="$x"),
        "text on axes": flat.assign(t=(("time", "row"), np.full((6, 4), "ab"))),
        "booleans and nothing": flat.assign(
            on=("time", np.array([True, False] * 3)), gap=("time", [1.5, np.nan] * 3)
        ),
    }


def _groups(flat: xr.Dataset) -> xr.Dataset:
    return flat[["det", "spectrum", "img"]].drop_vars("seq_num").groupby("x").mean()


def grid_run(
    shape: tuple[int, ...] = (3, 4),
    *,
    points: int | None = None,
    snaking: bool = False,
    jitter: float = 0.0,
    setpoints: bool = False,
    **start: Any,
) -> list[tuple[str, Any]]:
    """Return a grid scan of motors ``m0``, ``m1``, …; ``det`` is the number of the point."""
    names = [f"m{axis}" for axis in range(len(shape))]
    usual = {
        "shape": list(shape),
        "extents": [[0, size - 1] for size in shape],
        "snaking": [False] + [snaking] * (len(shape) - 1),
        "hints": {
            "gridding": "rectilinear",
            "dimensions": [[[name], "primary"] for name in names],
        },
        "plan_name": "grid_scan",
    }
    run = RunBuilder(**{**usual, **start})
    keys: dict[str, Any] = dict.fromkeys(names, 0.5) | {"det": 0.5, "n": 1, "spectrum": [0.5] * 3}
    if setpoints:
        keys |= {f"{name}_setpoint": 0.5 for name in names}
    descriptor = run.descriptor(keys)
    total = int(np.prod(shape))
    for number in range(total if points is None else points):
        at = grid_place(number, shape, snaking=snaking)
        off = jitter * (-1) ** number
        row = {name: at[axis] + off for axis, name in enumerate(names)}
        row |= {"det": float(number), "n": number, "spectrum": [number + 0.5, 1.0, 2.0]}
        if setpoints:
            row |= {f"{name}_setpoint": float(at[axis]) for axis, name in enumerate(names)}
        run.event(descriptor, row)
    return run.stop()


def grid_place(number: int, shape: tuple[int, ...], *, snaking: bool) -> list[int]:
    """Return the indices in the grid of a point, given by its number."""
    at: list[int] = []
    for axis, size in enumerate(shape):
        inner = int(np.prod(shape[axis + 1 :]))
        turn, place = divmod(number // inner, size)
        at.append(size - 1 - place if snaking and axis and turn % 2 else place)
    return at


class DatasetConformance(Conformance):
    """Datasets that are written back."""

    def test_datasets_come_back(self, broker: Any) -> None:
        for what, written in written_datasets().items():
            documents = list(daskbroker.dataset_to_stream(written))
            header = insert_run(broker, documents)
            for chunks in ("auto", None, {"time": 2}):
                try:
                    assert_comes_back(header.dataset(chunks=chunks), written)
                except (AssertionError, TypeError, ValueError) as error:
                    raise AssertionError(f"{what}, chunks={chunks}: {error}") from error

    def test_frames_come_back_lazily(self, broker: Any, tmp_path: Path) -> None:
        documents, data = datum_run(tmp_path)
        header = insert_run(broker, documents)
        written = header.dataset(chunks={"time": 2}).assign_coords(
            img_dim_1=np.linspace(0, 1, data.shape[1]), threshold=0.5
        )
        pairs = list(daskbroker.dataset_to_stream(written, header))
        insert_all(broker, pairs)
        found = broker[pairs[0][1]["uid"]].dataset(chunks={"time": 2})
        assert found.chunks["time"] == (2, 2, 1)
        assert_comes_back(found, written)

    def test_what_is_saved_comes_back_as_a_run(self, broker: Any, tmp_path: Path) -> None:
        insert_all(broker, grid_run((2, 3), title="trial"))
        header = broker[-1]
        header.dataset().to_netcdf(tmp_path / "file.nc", engine="h5netcdf")
        report = ingest(broker, [tmp_path / "file.nc"])
        assert not report.refusals
        (uid,) = report.runs
        assert_comes_back(broker[uid].dataset(), header.dataset(), dtypes=False)
        assert broker[uid].start["derived_from"]["runs"] == [header.uid]
        assert broker[uid].start["title"] == "trial"
        assert not ingest(broker, [tmp_path / "file.nc"]).refusals

    def test_a_grid_scan_is_a_grid(self, put: Put) -> None:
        header = put(grid_run((3, 4), points=10, snaking=True, jitter=0.01))
        for chunks in ("auto", None):
            grid = header.dataset(grid=True, chunks=chunks)
            assert grid["m1"].values.tolist() == [0, 1, 2, 3]
            assert grid["det"].values[:2].tolist() == [[0, 1, 2, 3], [7, 6, 5, 4]]
            assert np.isnan(grid["det"].values[2]).tolist() == [False, False, True, True]
            assert grid["spectrum"].isel(m0=1, m1=0).values.tolist() == [7.5, 1.0, 2.0]


# -- any Dataset -----------------------------------------------------------------------------

_dims = ("time", "x", "y", "energy")
_dtypes = ("f8", "f4", "f2", "i8", "i2", "u1", "u8", "?", "U3", "M8[ns]", "M8[us]", "m8[ms]", "O")
_unindexed = ("O", "f2")
"""Of which pandas makes no index of the same dtype."""
_attr_values = st.one_of(
    st.text(max_size=4),
    st.integers(-(2**53), 2**53),
    st.floats(),
    st.booleans(),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)
_attrs = st.dictionaries(
    st.text(min_size=1, max_size=5).filter(lambda name: name not in DOCUMENTED),
    _attr_values,
    max_size=3,
)
_names = st.one_of(
    st.sampled_from(["time", "seq_num", "run", "ts_a", "a", "data:a", "start:a", "a.b", "x", "y"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4),
)


@st.composite
def datasets(draw: st.DrawFn) -> xr.Dataset:
    """Generate a Dataset of the class that is restored exactly.

    It has dimensions of any size, also 0; variables and coordinates along any of them, of numbers,
    booleans, text, times, durations, and objects that are numbers, text or None; names and
    attributes of any text; and a MultiIndex.
    """
    sizes = {dim: draw(st.integers(0, 3)) for dim in draw(st.sets(st.sampled_from(_dims)))}
    variables: dict[str, Any] = {}
    for name in draw(st.lists(_names, max_size=5, unique=True)):
        dims = [name] if name in sizes else draw(_order_of(list(sizes)))
        if name not in sizes and any(name == dim for dim in _dims if dim in dims):
            continue
        shape = tuple(sizes[dim] for dim in dims)
        dtype = draw(
            st.sampled_from([d for d in _dtypes if d not in _unindexed or name not in sizes])
        )
        variables[name] = (dims, draw(_values_of(dtype, shape)), draw(_attrs))
    dataset = xr.Dataset(variables, attrs=draw(_attrs))
    dataset = dataset.set_coords([name for name in dataset.data_vars if draw(st.booleans())])
    levels = [n for n, v in dataset.variables.items() if n not in dataset.dims and v.ndim == 1]
    alike = [n for n in levels if dataset[n].dims == dataset[levels[0]].dims][:2]
    free = len(alike) == 2 and dataset[alike[0]].dims[0] not in dataset.variables
    if free and all(dataset[n].dtype.kind in "iuU" for n in alike) and draw(st.booleans()):
        dataset = dataset.set_coords(alike)
        dataset = dataset.set_xindex(alike, PandasMultiIndex)
    return dataset


def _order_of(dims: list[str]) -> st.SearchStrategy[list[str]]:
    return st.permutations(dims).flatmap(
        lambda order: st.integers(0, len(order)).map(lambda count: list(order[:count]))
    )


@st.composite
def _values_of(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    if dtype == "O":
        cell = st.one_of(st.none(), st.text(max_size=2), st.integers(-3, 3))
        out = np.empty(size, dtype=object)
        out[:] = draw(st.lists(cell, min_size=size, max_size=size))
        return out.reshape(shape)
    if dtype == "U3":
        letters = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
        texts = draw(st.lists(letters, min_size=size, max_size=size))
        return np.array(texts, dtype=dtype).reshape(shape)
    data = draw(st.binary(min_size=size * 8, max_size=size * 8))
    bits = np.frombuffer(data, np.int64)
    if dtype == "M8[ns]" or dtype == "M8[us]" or dtype == "m8[ms]":
        return (bits % 2**52).view(np.int64).astype(dtype).reshape(shape)
    if dtype == "?":
        return (bits % 2 == 0).reshape(shape)
    kind = np.dtype(dtype)
    raw = np.frombuffer(data, kind, count=size) if kind.itemsize <= 8 else bits
    return raw.reshape(shape).copy()
