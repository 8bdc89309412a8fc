"""An embedded store beside what reads files too: pyarrow, Tiled, h5py, VirtualiZarr, databroker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq

import daskbroker
from benchmarks.data import Run, image_run, insert_all, mixed_columns, plain_file
from benchmarks.filling import equals, image_key
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.peers.bench import Bench
from benchmarks.peers.environment import DATABROKER, TILED, VIRTUALIZARR
from benchmarks.tables import count_events, has_count, holds
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

__all__ = ["embedded", "images"]

OURS, LAZY, H5PY = "daskbroker, embedded", "daskbroker, without dask", "h5py"


def embedded(bench: Bench) -> Workload:
    """100k events x 12 columns: pyarrow on a plain file, and a Tiled server of this machine."""
    columns = mixed_columns(bench.sizes.events)
    run = Run(columns)
    broker = daskbroker.connect(bench.folder / "store")
    run.insert(broker)
    path = plain_file(bench.folder / "plain.parquet", columns)
    file = bench.recorded("tiled", [*run.head, *run.pages(10_000), run.stop(run.rows)])
    tiled = bench.peers[TILED]
    tiled.ask("write", file=file)

    def ask(do: str, **options: Any) -> Callable[[], Any]:
        return lambda: tiled.ask(do, run=run.uid, **options)

    def check(found: dict[str, Any]) -> None:
        if found["rows"] != run.rows or not np.isclose(found["sum"], columns["x3"].sum()):
            raise AssertionError("Tiled's table holds other values than were written")

    whole, one = holds("x3", columns["x3"]), holds("x3", columns["x3"], 1)
    cases = [
        Case("table: pyarrow", lambda: pq.read_table(path).to_pandas(), whole),
        Case(
            f"table: {OURS}",
            lambda: broker[run.uid].table().compute(),
            whole,
            (
                Against("table: pyarrow", at_most=1.5),
                Against(f"table: {TILED}", times_faster=5),
                Against("databroker table", times_faster=100),
            ),
            run.rows,
            "rows",
        ),
        Case(f"table: {TILED}", ask("table"), check, (), run.rows, "rows"),
        Case("one column: pyarrow", lambda: pq.read_table(path, columns=["x3"]).to_pandas(), one),
        Case(
            f"one column: {OURS}",
            lambda: broker[run.uid].table()[["x3"]].compute(),
            one,
            (Against("one column: pyarrow"), Against(f"one column: {TILED}")),
        ),
        Case(f"one column: {TILED}", ask("table", fields=["x3"]), check),
        Case(
            f"documents: {OURS}",
            lambda: count_events(broker[run.uid].documents()),
            has_count(run.rows),
            (
                Against(f"documents: {TILED}"),
                Against("databroker documents", times_faster=20),
            ),
            run.rows,
            "documents",
        ),
        Case(
            f"documents: {TILED}", ask("documents"), has_count(run.rows), (), run.rows, "documents"
        ),
    ]
    return Workload(cases, broker.close)


def images(bench: Bench) -> Workload:
    """1,000 frames of 512 x 512 uint16 in one HDF5 file, a frame a chunk of it."""
    data = _frames(bench.sizes)
    side, count = data.shape[-1], len(data)
    path = write_hdf5(bench.folder / "frames.h5", data, chunks=(1, side, side))
    run = image_run(image_key(side), path, count)
    broker = daskbroker.connect(bench.folder / "store")
    insert_all(broker, run.documents)
    uri = f"{bench.server}/frames"
    file = bench.recorded("frames", run.documents)
    bench.peer.ask("write", file=file, uri=uri)
    references = bench.peers[VIRTUALIZARR]
    row, last = side // 5, int(data[-1].sum())

    def plain(*key: Any) -> np.ndarray:
        with h5py.File(path) as file:
            return file[AD_DATASET][key or ...]

    def image(chunks: Any, *cell: Any) -> np.ndarray:
        dataset = broker[run.uid].dataset(chunks=chunks)
        return dataset["img"][(slice(None), 0, *cell)].to_numpy()

    def virtual(**options: Any) -> Callable[[], Any]:
        given = {"path": str(path), "dataset": AD_DATASET, **options}
        return lambda: references.ask("frames", **given)

    def has_last(found: dict[str, Any]) -> None:
        if found["last"] != last:
            raise AssertionError("other frames than were written")

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
        Case(f"frames: {VIRTUALIZARR}", virtual(), has_last, (), count, "frames"),
        Case(
            f"frames: {DATABROKER}",
            lambda: bench.peer.ask("fill", uri=uri, run=run.uid),
            has_last,
            (),
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
        Case(f"row of pixels: {VIRTUALIZARR}", virtual(row=row)),
    ]
    return Workload(cases, broker.close)


def _frames(sizes: Sizes) -> np.ndarray:
    return frames(sizes.file_frames, (sizes.frame_side, sizes.frame_side))
