"""Runs with detector data: files and computed frames, handlers to read them, what must come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pandas as pd

from .files import AD_DATASET, frames, write_hdf5
from .runs import Documents, RunBuilder

SHAPE = (6, 8)
"""Shape of the frames that these tests write."""


def image_claim(shape: Iterable[Any] = SHAPE, **more: Any) -> dict[str, Any]:
    """Return the spec of a data key whose frames are referred to by datums."""
    external = {"external": "FILESTORE:", "dtype_numpy": "<u2"}
    return {"source": "x", "dtype": "array", "shape": list(shape), **external, **more}


def datum_run(
    folder: Path,
    events: int = 5,
    *,
    shape: Iterable[Any] = (1, *SHAPE),
    place: Mapping[str, Any] | None = None,
    **claim: Any,
) -> tuple[Documents, np.ndarray]:
    """Return a run whose key ``img`` refers to one HDF5 file by datums, and the frames in it.

    Parameters
    ----------
    folder
        Folder in which the file ``a.h5`` is written, unless it exists.
    events
        Number of frames and events.
    shape, claim
        Shape, and further keys, in the spec of ``img``.
    place
        Keys of the resource to add or to replace; a key given as None is left out.
    """
    data = frames(events, SHAPE)
    if not (folder / "a.h5").exists():
        write_hdf5(folder / "a.h5", data)
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(shape, **claim), "x": 0.5})
    usual = {"root": str(folder), "resource_path": "a.h5"}
    resource = run.resource("AD_HDF5", **{**usual, **(place or {})})
    for number in range(events):
        datum = run.datum(resource, point_number=number)
        run.event(descriptor, {"img": datum, "x": number * 0.5}, filled={"img": False})
    return run.stop(), data


def stream_run(
    folder: Path, events: int = 6, *, step: int = 2, per_event: int = 1, with_events: bool = True
) -> tuple[Documents, np.ndarray]:
    """Return a run whose key ``img`` has stream_datums, and its cells ``(events, m, h, w)``."""
    data = frames(events * per_event, SHAPE)
    path = write_hdf5(folder / "s.h5", data)
    run = RunBuilder()
    spec = image_claim((per_event, *SHAPE), external="STREAM:")
    descriptor = run.descriptor({"img": spec, "x": 0.5} if with_events else {"img": spec})
    resource = run.stream_resource("img", **stream_place(path))
    for first in range(0, events, step):
        last = min(first + step, events)
        run.stream_datum(resource, descriptor, (first, last))
        for index in range(first, last if with_events else first):
            run.event(descriptor, {"x": index * 0.5})
    docs = run.stop(num_events={"primary": events})
    return docs, data.reshape(events, per_event, *SHAPE)


def stream_place(path: Path) -> dict[str, Any]:
    """Return the keys of a stream_resource that locate its frames."""
    parameters = {"dataset": AD_DATASET, "chunk_shape": [1, *SHAPE]}
    return {"uri": f"file://localhost{path}", "parameters": parameters}


def stacked(cells: Iterable[Any]) -> np.ndarray:
    """Stack the cells of a column into one array."""
    return np.stack([np.asarray(cell) for cell in cells])


def filled_cells(header: Any, key: str = "img", stream: str = "primary") -> list[Any]:
    """Return the values of one data key in the filled documents of a stream."""
    documents = header.stream(stream, fill=True)
    return [doc["data"][key] for name, doc in documents if name == "event"]


class Squares:
    """A classic handler without a file; it returns arrays filled with each datum's square."""

    def __init__(self, path: str, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, n: int) -> np.ndarray:
        return np.full(SHAPE, n * n * self.scale)


class LazySquares(Squares):
    """A classic handler like :class:`Squares` that returns Dask arrays."""

    def __call__(self, n: int) -> Any:
        return dask.array.from_array(super().__call__(n), chunks=2)


class Tables:
    """A classic handler that returns a list of DataFrames."""

    def __init__(self, path: str) -> None:
        pass

    def __call__(self, n: int) -> list[pd.DataFrame]:
        return [pd.DataFrame({"n": [n, n + 1]})]


class FailsAtTwo(Squares):
    """A classic handler that cannot read one of its datums."""

    def __call__(self, n: int) -> np.ndarray:
        if n == 2:
            raise OSError("no beam")
        return super().__call__(n)


def squares_run(events: int = 4, spec: str = "SQUARES", **claim: Any) -> Documents:
    """Return a run whose key ``img`` is computed by a handler."""
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(dtype_numpy="<f8", **claim), "x": 0.5})
    resource = run.resource(spec, root="/", resource_path="", resource_kwargs={"scale": 2.0})
    for index in range(events):
        run.event(descriptor, {"img": run.datum(resource, n=index), "x": 0.5})
    return run.stop()


def squares(events: int = 4) -> np.ndarray:
    """Return the cells of :func:`squares_run` when it is filled."""
    return stacked([np.full(SHAPE, 2.0 * n * n) for n in range(events)])


def check_filled(header: Any, expected: np.ndarray, key: str = "img") -> None:
    """Check that table, Dataset and documents hold these cells."""
    shown = header.table().compute()[key]
    np.testing.assert_array_equal(stacked(shown), expected)
    dataset = header.dataset()
    np.testing.assert_array_equal(dataset[key].values, expected)
    np.testing.assert_array_equal(header.dataset(chunks=None)[key].values, expected)
    if any(name == "event" for name, _ in header.stream(fill=False)):
        np.testing.assert_array_equal(stacked(filled_cells(header, key)), expected)
