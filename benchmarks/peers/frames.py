"""Frames of one HDF5 file, read by daskbroker, h5py, VirtualiZarr, databroker 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

import daskbroker
from benchmarks.checks import equals
from benchmarks.data import image_key, image_run, insert_all
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.peers.bench import Bench
from benchmarks.peers.environment import DATABROKER, DATABROKER_2, VIRTUALIZARR
from benchmarks.peers.process import Peer
from daskbroker.testing import RunBuilder
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

__all__ = ["images"]

OURS, LAZY, H5PY = "daskbroker, embedded", "daskbroker, without dask", "h5py"


def images(bench: Bench) -> Workload:
    """1,000 frames of 512 x 512 uint16 in one HDF5 file, one HDF5 chunk per frame."""
    data = _frames(bench.sizes)
    side, count = data.shape[-1], len(data)
    path = write_hdf5(bench.folder / "frames.h5", data, chunks=(1, side, side))
    run = image_run(image_key(side), path, count)
    broker = daskbroker.connect(bench.folder / "store")
    insert_all(broker, run.documents)
    row = side // 5

    def plain(*key: Any) -> np.ndarray:
        with h5py.File(path) as file:
            return file[AD_DATASET][key or ...]

    def image(chunks: Any, *cell: Any) -> np.ndarray:
        dataset = broker[run.uid].dataset(chunks=chunks)
        return dataset["img"][(slice(None), 0, *cell)].to_numpy()

    file = {"path": str(path), "dataset": AD_DATASET}
    whole, part = equals(data), equals(data[:, row])
    cases = [
        Case(f"frames: {H5PY}", plain, whole, (), count, "frames"),
        Case(
            f"frames: {LAZY}",
            lambda: image(None),
            whole,
            (Against(f"frames: {H5PY}", at_most=1.2), Against(f"frames: {VIRTUALIZARR}")),
            count,
            "frames",
        ),
        Case(
            f"frames: {OURS}",
            lambda: image("auto"),
            whole,
            (Against(f"frames: {H5PY}", at_most=1.8), Against(f"frames: {DATABROKER}")),
            count,
            "frames",
        ),
        Case(f"row of pixels: {H5PY}", lambda: plain(slice(None), row), part),
        Case(
            f"row of pixels: {LAZY}",
            lambda: image(None, row),
            part,
            (Against(f"row of pixels: {H5PY}", at_most=1.5),),
        ),
        Case(
            f"row of pixels: {OURS}",
            lambda: image("auto", row),
            part,
            (Against(f"row of pixels: {H5PY}", at_most=1.5),),
        ),
        *bench.beside(
            VIRTUALIZARR, lambda peer: _asked(VIRTUALIZARR, peer, "frames", data, row, **file)
        ),
        *_of_mongo(bench, run, data, row),
    ]
    return Workload(cases, broker.close)


def _of_mongo(bench: Bench, run: RunBuilder, data: np.ndarray, row: int) -> list[Case]:
    """Return the cases of databroker 1 and 2, which read the run in MongoDB."""
    about = {"uri": f"{bench.server}/frames", "run": run.uid}

    def written(peer: Peer) -> list[Case]:
        peer.ask("write", file=bench.recorded("frames", run.documents), uri=about["uri"])
        return _asked(DATABROKER, peer, "fill", data, None, **about)

    first = bench.beside(DATABROKER, written)
    if not first:  # nobody has written the run
        return []
    return first + bench.beside(
        DATABROKER_2, lambda peer: _asked(DATABROKER_2, peer, "fill", data, row, **about)
    )


def _asked(
    name: str, peer: Peer, do: str, data: np.ndarray, row: int | None, **about: Any
) -> list[Case]:
    """Return the cases of another program: all frames, and a row of each if it can read one."""

    def has_last(expected: np.ndarray) -> Callable[[dict[str, Any]], None]:
        def check(found: dict[str, Any]) -> None:
            if found["last"] != int(expected.sum()):
                raise AssertionError(f"other frames of {name} than were written")

        return check

    cases = [
        Case(
            f"frames: {name}",
            lambda: peer.ask(do, **about),
            has_last(data[-1]),
            (),
            len(data),
            "frames",
        )
    ]
    if row is not None:
        cases.append(
            Case(
                f"row of pixels: {name}",
                lambda: peer.ask(do, row=row, **about),
                has_last(data[-1, row]),
            )
        )
    return cases


def _frames(sizes: Sizes) -> np.ndarray:
    return frames(sizes.file_frames, (sizes.frame_side, sizes.frame_side))
