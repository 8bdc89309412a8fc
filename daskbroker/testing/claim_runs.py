"""Runs with any claim of their external key, and handlers that count or change what is read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .detector_runs import SHAPE, Squares, image_claim, stream_place
from .files import frames, write_hdf5, write_npys, write_tiffs
from .runs import Documents, RunBuilder

LEGACY: dict[str, Any] = {"dtype_numpy": None}


def claim_run(
    folder: Path,
    shape: Sequence[Any],
    events: int = 4,
    *,
    spec: str = "AD_HDF5",
    per_event: int = 1,
    data: np.ndarray | None = None,
    time: float | None = None,
    **claim: Any,
) -> tuple[Documents, np.ndarray]:
    """Return a run whose key ``img`` has datums and the given claim; None omits an entry."""
    frames_of_all = frames(events * per_event, SHAPE) if data is None else data
    events = len(frames_of_all) // per_event
    run = RunBuilder() if time is None else RunBuilder(time=time)
    said = {name: value for name, value in image_claim(shape, **claim).items() if value is not None}
    descriptor = run.descriptor({"img": said, "x": 0.5})
    place = {"root": str(folder), "resource_path": "a.h5"}
    if spec == "AD_TIFF":
        write_tiffs(folder / "t", frames_of_all, "im_{:06d}.tiff")
        kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "im", "frame_per_point": 1}
        resource = run.resource(spec, **{**place, "resource_path": "t"}, resource_kwargs=kwargs)
    elif spec == "NPY_SEQ":
        write_npys(folder / "f", frames_of_all)
        resource = run.resource(spec, **{**place, "resource_path": "f"})
    else:
        write_hdf5(folder / "a.h5", frames_of_all)
        resource = run.resource(spec, **place, resource_kwargs={"frame_per_point": per_event})
    name = "index" if spec == "NPY_SEQ" else "point_number"
    for number in range(events):
        keyword: dict[str, Any] = {name: number}
        datum = run.datum(resource, **keyword)
        run.event(descriptor, {"img": datum, "x": number * 0.5}, filled={"img": False})
    return run.stop(), frames_of_all


def stream_claim_run(
    folder: Path, shape: Sequence[Any], **claim: Any
) -> tuple[Documents, np.ndarray]:
    """Return a run whose key ``img`` is described by one stream_datum."""
    data = frames(4, SHAPE)
    path = write_hdf5(folder / "s.h5", data)
    run = RunBuilder()
    said = image_claim(shape, external="STREAM:", **claim)
    said = {name: value for name, value in said.items() if value is not None}
    descriptor = run.descriptor({"img": said, "x": 0.5})
    resource = run.stream_resource("img", **stream_place(path))
    run.stream_datum(resource, descriptor, (0, 4))
    for number in range(4):
        run.event(descriptor, {"x": number * 0.5})
    return run.stop(), data


def run_of_parts(
    folder: Path, parts: Sequence[np.ndarray], shape: Sequence[Any], **claim: Any
) -> Documents:
    """Return a run whose key ``img`` has datums in several files."""
    run = RunBuilder()
    said = {name: value for name, value in image_claim(shape, **claim).items() if value is not None}
    descriptor = run.descriptor({"img": said, "x": 0.5})
    for number, part in enumerate(parts):
        write_hdf5(folder / f"{number}.h5", part)
        resource = run.resource("AD_HDF5", root=str(folder), resource_path=f"{number}.h5")
        for point in range(len(part)):
            datum = run.datum(resource, point_number=point)
            run.event(descriptor, {"img": datum, "x": 0.5}, filled={"img": False})
    return run.stop()


def claim_run_of_squares() -> Documents:
    """Return a run whose key ``img`` is computed by a handler and has no claim."""
    run = RunBuilder()
    claim = {"source": "x", "dtype": "array", "shape": [], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": claim, "x": 0.5})
    resource = run.resource("SQUARES", root="/", resource_path="")
    for number in range(4):
        run.event(descriptor, {"img": run.datum(resource, n=number), "x": 0.5})
    return run.stop()


class CountedSquares(Squares):
    """Handler that notes the names of the threads that call it."""

    threads: ClassVar[list[str]] = []

    def __call__(self, n: int) -> np.ndarray:
        self.threads.append(threading.current_thread().name)
        return super().__call__(n)


class Halves(Squares):
    """Handler that returns cells of another shape."""

    def __call__(self, n: int) -> np.ndarray:
        return super().__call__(n)[:3]
