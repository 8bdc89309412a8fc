"""Views of very many chunks: seconds to build them without computing, and bytes per partition."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import pyarrow.parquet as pq

import daskbroker
from benchmarks.checks import has_count
from benchmarks.data import insert_all
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.assets.access import FileAccess
from daskbroker.core.chunks import ChunkPlan
from daskbroker.core.run_plan import RunPlan
from daskbroker.testing import make_run
from daskbroker.views.dataset import lazy_dataset
from daskbroker.views.table import lazy_table
from daskbroker.views.view_options import View, ViewOptions

__all__ = ["Views", "build"]

SECONDS = (Against(at_most=1.0),)
BYTES = (Against(at_most=2048.0),)


def build(sizes: Sizes, folder: Path) -> Workload:
    """A table and a dataset of 10,000 chunks, each a partition of its own.

    Each chunk has one event, and is small enough to be kept in SQLite. The cases "in files" use
    the same plan with paths as keys, as if each chunk were a Parquet file.
    """
    with dask.config.set({"daskbroker.seal-rows": 1}):
        broker = daskbroker.connect(folder / "store")
    documents = make_run(sizes.chunks, ("x", "y", "n"))
    insert_all(broker, documents)
    uid = documents[0][1]["uid"]
    views = Views(broker, uid)
    views.make_files(folder / "store")
    cases = [
        Case("plan", views.plan, has_count(sizes.chunks)),
        Case("table", views.table, _has_partitions(sizes.chunks), SECONDS),
        Case("dataset", views.dataset, _has_chunks(sizes.chunks), SECONDS),
    ]
    for where, make_plan in (("in SQLite", views.plan), ("in files", views.plan_of_files)):
        cases += _byte_cases(views, where, make_plan, sizes.chunks)
    return Workload(cases, broker.close)


class Views:
    """Views of a run, built anew by each call, with one partition per chunk."""

    def __init__(self, broker: Any, uid: str) -> None:
        self._broker = broker
        self._uid = uid

    def plan(self) -> ChunkPlan:
        """Return the plan of the chunks, from the manifest."""
        header = self._broker[self._uid]
        return header.es_given_stream("primary").chunks_given_header(header, "primary")

    def plan_of_files(self) -> ChunkPlan:
        """Return the same plan with the keys of chunks that are files."""
        plan = self.plan()
        firsts = plan.records["first"].tolist()
        return dataclasses.replace(plan, keys=tuple(map(self._path, firsts)))

    def _path(self, first: int) -> str:
        return f"chunks/{self._uid}/primary-1-{first}-1.parquet"

    def make_files(self, root: Path) -> None:
        """Make a file for each chunk; all are links to the first one, which is quicker."""
        plan = self.plan()
        original = root / self._path(0)
        original.parent.mkdir(parents=True)
        pq.write_table(plan.read(0), original)
        for first in plan.records["first"].tolist()[1:]:
            os.link(original, root / self._path(first))

    def table(self) -> Any:
        """Build a table from a new header, including its divisions."""
        with _each_alone():
            table = self._broker[self._uid].table()
            return table, table.divisions

    def dataset(self) -> Any:
        """Build a dataset from a new header."""
        with _each_alone():
            return self._broker[self._uid].dataset()

    def table_of(self, plan: ChunkPlan) -> Any:
        """Build a table of any plan."""
        return self._view_of(plan, lazy_table.table)

    def dataset_of(self, plan: ChunkPlan) -> Any:
        """Build a dataset of any plan."""
        return self._view_of(plan, lazy_dataset.dataset)

    def _view_of(self, plan: ChunkPlan, view: Callable[..., Any]) -> Any:
        header = self._broker[self._uid]
        runs = {self._uid: (header.start, header.stop)}
        with _each_alone():
            planned = RunPlan((self._uid,), plan, {})
            return view(View(planned, "primary", runs, ViewOptions(), FileAccess()))


def _each_alone() -> Any:
    return dask.config.set({"daskbroker.partition-size": 1, "daskbroker.loaded-size": 0})


def _byte_cases(
    views: Views, where: str, make_plan: Callable[[], ChunkPlan], count: int
) -> list[Case]:
    def expression() -> float:
        return len(cloudpickle.dumps(views.table_of(make_plan()).expr)) / count

    def table_tasks() -> float:
        graph = dict(views.table_of(make_plan()).optimize().__dask_graph__())
        return _mean_task(graph, count)

    def dataset_graph() -> float:
        graph = views.dataset_of(make_plan()).__dask_graph__()
        return len(cloudpickle.dumps(graph)) / count

    def dataset_plan() -> float:
        return len(pickle.dumps(make_plan())) / count

    return [
        Case(f"bytes of the table, {where}", expression, None, BYTES, unit="B"),
        Case(f"bytes of a table's task, {where}", table_tasks, None, BYTES, unit="B"),
        Case(f"bytes of the dataset, {where}", dataset_graph, None, BYTES, unit="B"),
        Case(f"bytes of the plan, {where}", dataset_plan, unit="B"),
    ]


def _mean_task(graph: dict[Any, Any], count: int) -> float:
    """Return the bytes per partition if each task is pickled by itself, as it is sent to a worker.

    The mean is of about a hundred tasks, spread over the graph.
    """
    keys = list(graph)[:: max(1, len(graph) // 100)]
    mean = sum(len(cloudpickle.dumps(graph[key])) for key in keys) / len(keys)
    return mean * len(graph) / count


def _has_partitions(count: int) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        table, divisions = found
        if table.npartitions != count or len(divisions) != count + 1:
            raise AssertionError(f"the table has {table.npartitions} partitions, not {count}")

    return check


def _has_chunks(count: int) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        chunks = len(found.chunks["time"])
        if chunks != count:
            raise AssertionError(f"the dataset has {chunks} chunks along time, not {count}")

    return check
