"""Runs of which some frames are missing: not on disk, or claimed by several events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .detector_runs import SHAPE, image_claim, stream_place
from .files import frames, write_hdf5, write_npys, write_tiffs
from .runs import Documents, RunBuilder

EVENTS = 6
ON_DISK = 4
KINDS = ("AD_HDF5", "AD_TIFF", "NPY_SEQ", "stream", "stream of files", "datum", "classic")
"""How four of six frames are there: the file is too short, files are not there, or documents."""


class Forgetful:
    """Classic handler without a file that has only the first frames."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        self._frames = frames(ON_DISK, SHAPE)

    def __call__(self, n: int) -> np.ndarray:
        if n >= len(self._frames):
            raise FileNotFoundError(f"frame {n}")
        return self._frames[n]


def short_run(folder: Path, kind: str) -> tuple[Documents, np.ndarray]:
    """Return a run of six events whose last two frames are missing, and the first four frames."""
    data = frames(ON_DISK, SHAPE)
    run = RunBuilder()
    if kind.startswith("stream"):
        return _short_stream(run, folder, kind, data), data[:, None]
    one = kind in ("NPY_SEQ", "classic")
    descriptor = run.descriptor({"img": image_claim(SHAPE if one else (1, *SHAPE)), "x": 0.5})
    spec = {"datum": "AD_HDF5", "classic": "FORGETFUL"}.get(kind, kind)
    place, kwargs = _written(folder, spec, data)
    resource = run.resource(spec, root=str(folder), resource_path=place, resource_kwargs=kwargs)
    keyword = {"NPY_SEQ": "index", "FORGETFUL": "n"}.get(spec, "point_number")
    for number in range(EVENTS):
        datum = "lost/7" if kind == "datum" and number >= ON_DISK else None
        arguments: dict[str, Any] = {keyword: number}
        datum = datum or run.datum(resource, **arguments)
        run.event(descriptor, {"img": datum, "x": number * 0.5}, filled={"img": False})
    return run.stop(), data if one else data[:, None]


def _written(folder: Path, spec: str, data: np.ndarray) -> tuple[str, dict[str, Any]]:
    """Write frames; return the path below the folder and the arguments of the handler."""
    if spec == "AD_HDF5":
        return write_hdf5(folder / "a.h5", data, compression="gzip").name, {}
    if spec == "AD_TIFF":
        write_tiffs(folder / "t", data, "img_{:05d}.tif")
        return "t", {"template": "%s%s_%5.5d.tif", "filename": "img"}
    if spec == "NPY_SEQ":
        write_npys(folder / "f", data)
        return "f", {}
    return "", {}


def _short_stream(run: RunBuilder, folder: Path, kind: str, data: np.ndarray) -> Documents:
    claim = image_claim((1, *SHAPE), external="STREAM:")
    descriptor = run.descriptor({"img": claim, "x": 0.5})
    if kind == "stream":
        place = stream_place(write_hdf5(folder / "s.h5", data))
    else:
        write_tiffs(folder / "t", data)
        place = {
            "mimetype": "multipart/related;type=image/tiff",
            "uri": f"file://localhost{folder}/t/",
            "parameters": {"template": "img_{:05d}.tif", "chunk_shape": [1, *SHAPE]},
        }
    resource = run.stream_resource("img", **place)
    run.stream_datum(resource, descriptor, (0, EVENTS))
    for number in range(EVENTS):
        run.event(descriptor, {"x": number * 0.5})
    return run.stop()


def rewound_frames(
    folder: Path, files: int, with_events: bool
) -> tuple[Documents, np.ndarray, np.ndarray]:
    """Return a run with frames 1 to 3, then 2 to 5, in one or two files, and both parts' cells."""
    data = frames(7, SHAPE)[:, None]
    run = RunBuilder()
    claim = image_claim((1, *SHAPE), external="STREAM:")
    descriptor = run.descriptor({"img": claim, "x": 0.5} if with_events else {"img": claim})
    numbers = 0
    for part, seq_nums in enumerate(((1, 4), (2, 6))):
        some = data[:3] if part == 0 else data[3:]
        first = 3 if part and files == 1 else 0
        if part < files:
            whole = data if files == 1 else some
            place = stream_place(write_hdf5(folder / f"{part}.h5", whole[:, 0]))
            resource = run.stream_resource("img", **place)
        run.stream_datum(resource, descriptor, (first, first + len(some)), seq_nums)
        for seq_num in range(*seq_nums) if with_events else ():
            run.event(descriptor, {"x": numbers * 0.5}, seq_num)
            numbers += 1
    return run.stop(), data[:3], data[3:]


def aborted_run(folder: Path, dtype: str) -> tuple[Documents, np.ndarray]:
    """Return a run whose fourth and last event has no image, and the cells of the others."""
    data = frames(3, SHAPE, dtype)
    write_hdf5(folder / "a.h5", data)
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim((1, *SHAPE), dtype_numpy=dtype), "x": 0.5})
    resource = run.resource("AD_HDF5", root=str(folder), resource_path="a.h5")
    for number in range(3):
        run.event(descriptor, {"img": run.datum(resource, point_number=number), "x": 0.5})
    run.event(descriptor, {"img": None, "x": 0.5})
    return run.stop(exit_status="abort"), data[:, None]


def without_dtype(docs: Documents) -> Documents:
    """Return the same run with a descriptor that does not declare the dtype, as old ones."""
    for name, doc in docs:
        if name == "descriptor":
            del doc["data_keys"]["img"]["dtype_numpy"]
    return docs
