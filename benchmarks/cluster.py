"""Worker processes: submitting large graphs, a function per run, images averaged over runs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client, LocalCluster

import daskbroker
from benchmarks.building import Views
from benchmarks.checks import close_to
from benchmarks.compressed import FILTERS, dark_frames, write_run
from benchmarks.data import Run, insert_all, mixed_columns
from benchmarks.harness import Against, Case, Sizes, Timed, Workload
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

__all__ = ["client_of", "cluster"]


def cluster(sizes: Sizes, folder: Path) -> Workload:
    """The same work on one, two and more worker processes of one thread each."""
    stack = ExitStack()
    clients = {count: client_of(stack, count) for count in sizes.workers}
    short = stack.enter_context(daskbroker.connect(folder / "short"))
    for _ in range(sizes.runs_in_table):
        Run(mixed_columns(200)).insert(short, 200)
    images, expected = _images(stack, folder, sizes)
    dark = _dark(stack, folder, sizes)
    cases = [_submit(stack, folder, clients[max(clients)], sizes)]
    for count, client in clients.items():
        cases += _cases(count, client, short, images, expected, sizes)
        cases.append(_dark_case(count, client, *dark, sizes))
    return Workload(cases, stack.close)


def client_of(stack: ExitStack, count: int) -> Client:
    """Return the client of a new cluster with ``count`` worker processes."""
    made = stack.enter_context(
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, memory_limit=0,
            dashboard_address="127.0.0.1:0",
        )
    )  # fmt: skip
    client = stack.enter_context(Client(made, set_as_default=False))
    client.wait_for_workers(count)
    return client


# -- submitting ------------------------------------------------------------------------------


def _submit(stack: ExitStack, folder: Path, client: Client, sizes: Sizes) -> Case:
    """Return a case that builds a table and waits until the scheduler has all of its tasks."""
    with dask.config.set({"daskbroker.seal-rows": 1}):
        broker = stack.enter_context(daskbroker.connect(folder / "many"))
    documents = make_run(sizes.chunks)
    insert_all(broker, documents)
    views = Views(broker, documents[0][1]["uid"])
    views.make_files(folder / "many")

    def submit() -> Timed:
        begin = time.perf_counter()
        table = client.persist(views.table_of(views.plan_of_files()))
        while client.run_on_scheduler(_tasks) < sizes.chunks:
            time.sleep(0.005)
        seconds = time.perf_counter() - begin
        client.cancel(table)
        del table
        while client.run_on_scheduler(_tasks):
            time.sleep(0.005)
        return Timed(seconds, None)

    return Case(
        f"build and submit {sizes.chunks:,} partitions",
        submit, None, (Against(at_most=5.0),), sizes.chunks, "tasks",
    )  # fmt: skip


def _tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


# -- a function per run, and images ----------------------------------------------------------


def _spread(header: Any) -> float:
    """Do some work on a run, about 10 ms."""
    table = header.table().compute(scheduler="synchronous")
    return float(sum(np.std(table[["x0", "x1"]].sample(frac=1.0).to_numpy()) for _ in range(5)))


def _cases(
    count: int, client: Client, short: Any, images: Any, expected: np.ndarray, sizes: Sizes
) -> list[Case]:
    plural = "s" if count > 1 else ""
    against = (Against("map over runs, 1 worker"), Against("image mean, 1 worker"))

    def spread() -> list[Any]:
        return list(short().map(_spread, client=client, progress=False))

    def check(outcomes: list[Any]) -> None:
        if len(outcomes) != sizes.runs_in_table or any(o.error for o in outcomes):
            raise AssertionError("a call of the function failed or is missing")

    def mean() -> np.ndarray:
        image = images().dataset()["img"].mean(("time", "img_dim_0"))
        return np.asarray(image.compute(scheduler=client))

    def peak() -> float:
        return float(max(client.run(_peak_bytes).values()))

    amount = sizes.image_runs * sizes.frames
    return [
        Case(
            f"map over runs, {count} worker{plural}", spread, check,
            against[:1] if count > 1 else (), sizes.runs_in_table, "runs",
        ),
        Case(
            f"image mean, {count} worker{plural}", mean, close_to(expected),
            against[1:] if count > 1 else (), amount, "frames",
        ),
        Case(f"peak memory of a worker, {count} worker{plural}", peak, unit="B"),
    ]  # fmt: skip


def _peak_bytes() -> int:
    """Return the most memory that this process has had, by Linux.

    `ru_maxrss` would also count the process that started this one, as it outlives ``exec``.
    """
    (most,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(most) * 1024


def _images(stack: ExitStack, folder: Path, sizes: Sizes) -> tuple[Callable[[], Any], np.ndarray]:
    """Insert runs with one detector file each; return their search, and the mean of all frames."""
    broker = stack.enter_context(daskbroker.connect(folder / "images"))
    total = np.zeros(sizes.frame)
    for number in range(sizes.image_runs):
        data = frames(sizes.frames, sizes.frame, start=number * sizes.frames)
        path = write_hdf5(folder / f"{number}.h5", data, chunks=(1, *sizes.frame))
        insert_all(broker, _image_run(path, sizes))
        total += data.sum(0, dtype=np.float64)
    return partial(broker), total / (sizes.image_runs * sizes.frames)


def _dark(stack: ExitStack, folder: Path, sizes: Sizes) -> tuple[Callable[[], Any], np.ndarray]:
    """Insert a run of compressed frames of 2 MB; return its images, and the mean of all frames."""
    broker = stack.enter_context(daskbroker.connect(folder / "dark"))
    data = dark_frames(4, sizes.compressed_side, "<u2")
    count = 4 * sizes.compressed_frames
    uid = write_run(broker, folder / "dark.h5", data, FILTERS["bitshuffle-LZ4"], count)
    return lambda: broker[uid].dataset()["img"][:, 0], data.mean(0)


def _dark_case(
    count: int, client: Client, image: Callable[[], Any], expected: np.ndarray, sizes: Sizes
) -> Case:
    label = "mean of compressed frames, {}"
    return Case(
        label.format("1 worker" if count == 1 else f"{count} workers"),
        lambda: np.asarray(image().mean("time").compute(scheduler=client)),
        close_to(expected),
        (Against(label.format("1 worker"), times_faster=1.7),) if count == 2 else (),
        4 * sizes.compressed_frames,
        "frames",
    )


def _image_run(path: Path, sizes: Sizes) -> Any:
    run = RunBuilder()
    claim = {
        "source": "detector", "dtype": "array", "shape": [1, *sizes.frame],
        "dtype_numpy": "<u2", "external": "STREAM:",
    }  # fmt: skip
    descriptor = run.descriptor({"img": claim, "x": 0.5})
    place = {"dataset": AD_DATASET, "chunk_shape": [1, *sizes.frame]}
    uri = f"file://localhost{path}"
    stored = run.stream_resource("img", uri=uri, parameters=place)
    run.stream_datum(stored, descriptor, (0, sizes.frames))
    for number in range(sizes.frames):
        run.event(descriptor, {"x": number * 0.5})
    return run.stop()
