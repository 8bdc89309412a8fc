"""Detector files: a block of frames, a row of pixels, a reduction; and very many datums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import h5py
import numpy as np

import daskbroker
from benchmarks.checks import close_to, equals
from benchmarks.data import image_key, image_run, insert_all
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.assets.filling.open_handlers import open_handlers
from daskbroker.stores.embedded.database import Database
from daskbroker.testing import RunBuilder
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

__all__ = ["count_of", "fill", "opened", "references"]


# -- one large file --------------------------------------------------------------------------


def fill(sizes: Sizes, folder: Path) -> Workload:
    """1,000 frames of 512 x 512 uint16 in one HDF5 file, one HDF5 chunk per frame."""
    side, count = sizes.frame_side, sizes.file_frames
    data = frames(count, (side, side))
    path = write_hdf5(folder / "frames.h5", data, chunks=(1, side, side))
    run = image_run(image_key(side), path, count)
    broker = daskbroker.connect(folder / "store")
    insert_all(broker, run.documents)
    views = _Views(broker, run.uid, path)
    row = side // 5
    return Workload([*_block_cases(views, data), *_row_cases(views, data, row)], broker.close)


class _Views:
    """Read the frames with h5py, and from new headers."""

    def __init__(self, broker: Any, uid: str, path: Path) -> None:
        self._broker = broker
        self._uid = uid
        self._path = path

    def plain(self, *key: Any) -> np.ndarray:
        """Read with h5py in one call."""
        with h5py.File(self._path) as file:
            return file[AD_DATASET][key or ...]

    def plain_blocks(self) -> np.ndarray:
        """Read block by block and concatenate, as dask has to do."""
        with h5py.File(self._path) as file:
            dataset = file[AD_DATASET]
            step = max(1, 64 * 2**20 // dataset[0].nbytes)
            return np.concatenate([dataset[n : n + step] for n in range(0, len(dataset), step)])

    def image(self, chunks: Any, *cell: Any) -> Any:
        """Return the variable, indexed once: dask pushes only one indexing down to the file."""
        return self._broker[self._uid].dataset(chunks=chunks)["img"][(slice(None), 0, *cell)]

    def table(self) -> Any:
        """Return the column of a computed table."""
        return self._broker[self._uid].table().compute()["img"]

    def mean(self, workers: int) -> np.ndarray:
        """Compute the mean over frames with this number of threads."""
        with dask.config.set(scheduler="threads", num_workers=workers):
            return self.image("auto").mean("time").to_numpy()


def _block_cases(views: _Views, data: np.ndarray) -> list[Case]:
    old = Against("databroker fill")
    return [
        Case("h5py", views.plain, equals(data), (), len(data), "frames"),
        Case("h5py, in blocks", views.plain_blocks, equals(data), (Against("h5py"),)),
        Case(
            "dataset, lazy without dask",
            lambda: views.image(None).to_numpy(),
            equals(data),
            (Against("h5py", at_most=1.2), old),
            len(data),
            "frames",
        ),
        Case(
            "dataset",
            lambda: views.image("auto").to_numpy(),
            equals(data),
            (Against("h5py", at_most=1.8), Against("h5py, in blocks"), old),
        ),
        Case("table", views.table, _cells(data), (Against("h5py"), old)),
        Case("mean, one thread", lambda: views.mean(1), close_to(data.mean(0))),
        Case(
            "mean, two threads",
            lambda: views.mean(2),
            close_to(data.mean(0)),
            (Against("mean, one thread"),),
        ),
    ]


def _cells(expected: np.ndarray) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        same = all(np.array_equal(c[0], frame) for c, frame in zip(found, expected, strict=True))
        if not same:
            raise AssertionError("other frames than were written")

    return check


def _row_cases(views: _Views, data: np.ndarray, row: int) -> list[Case]:
    expected = data[:, row]
    goal = (Against("h5py, a row", at_most=1.5), Against("databroker row"))
    return [
        Case("h5py, a row", lambda: views.plain(slice(None), row), equals(expected)),
        Case(
            "a row, lazy without dask",
            lambda: views.image(None, row).to_numpy(),
            equals(expected),
            goal,
        ),
        Case("a row", lambda: views.image("auto", row).to_numpy(), equals(expected), goal),
    ]


# -- very many datums ------------------------------------------------------------------------


def references(sizes: Sizes, folder: Path) -> Workload:
    """100,000 datums in 1,000 files: times to plan and to fill, numbers of tasks and queries."""
    each = sizes.datums // sizes.files
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_key(16)})
    for number in range(sizes.files):
        name = f"{number}.h5"
        write_hdf5(folder / name, frames(each, (16, 16), start=number * each))
        resource = run.resource("AD_HDF5", root=str(folder), resource_path=name)
        ids = [f"{resource}/{place}" for place in range(each)]
        kwargs = {"point_number": list(range(each))}
        run.add("datum_page", {"resource": resource, "datum_id": ids, "datum_kwargs": kwargs})
        run.event_page(descriptor, [{"img": datum} for datum in ids])
    broker = daskbroker.connect(folder / "store")
    insert_all(broker, run.stop())
    data = frames(sizes.files * each, (16, 16))

    def image(chunks: Any = "auto") -> Any:
        return broker[run.uid].dataset(chunks=chunks)["img"][:, 0]

    cases = [
        Case("plan a dataset", image, None, (Against(at_most=1.0),), len(data), "datums"),
        Case(
            "plan a table",
            lambda: broker[run.uid].table(),
            None,
            (Against(at_most=1.0),),
            len(data),
            "datums",
        ),
        Case("fill", lambda: image().to_numpy(), equals(data), (), len(data), "datums"),
        Case("tasks", lambda: len(dask.optimize(image().data)[0].dask), unit=""),
        Case("queries to plan", lambda: count_of(_queries, image), unit=""),
        Case(
            "files opened to fill",
            lambda: count_of(opened, lambda: image().to_numpy()),
            None,
            (Against(at_most=float(sizes.files)),),
            unit="",
            prepare=open_handlers().clear,
        ),
    ]
    return Workload(cases, broker.close)


def count_of(counting: Callable[[list[Any]], Any], work: Callable[[], Any]) -> int:
    seen: list[Any] = []
    with counting(seen):
        work()
    return len(seen)


@contextmanager
def opened(seen: list[Any]) -> Iterator[None]:
    """Append each HDF5 file that is opened by name to ``seen``."""
    original = h5py.File.__init__

    def init(self: Any, name: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(name, (str, bytes, Path)):
            seen.append(name)
        original(self, name, *args, **kwargs)

    with mock.patch.object(h5py.File, "__init__", init):
        yield


@contextmanager
def _queries(seen: list[Any]) -> Iterator[None]:
    """Append each SQL query of an embedded store to ``seen``."""
    original = Database.read

    @contextmanager
    def read(self: Database) -> Iterator[Any]:
        with original(self) as connection:
            connection.set_trace_callback(seen.append)
            try:
                yield connection
            finally:
                connection.set_trace_callback(None)

    with mock.patch.object(Database, "read", read):
        yield
