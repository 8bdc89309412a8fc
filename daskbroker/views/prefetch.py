"""Reading chunks before they are asked for: on the workers of a Client, or by a thread.

Dask's configuration bounds it: ``daskbroker.prefetch`` is how many reads are ahead on a
cluster (8), ``daskbroker.prefetch-bytes`` how much data they may hold together (128 MiB).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa

from ..core.chunks import ChunkPlan, ChunkReader, present
from ..core.errors import StoreDamaged
from ..core.forking import Origin, in_each_process
from ..core.settings import setting
from ..workers import current_client

__all__ = ["Prefetcher"]

LOCAL_COUNT = 2
CHUNKS_IN_A_READ = 500
RUNS_IN_A_READ = 32
"""At most so many, however small: planning a run takes time too."""

Reads = Sequence[tuple[ChunkReader, Sequence[Any], Sequence[str]]]
"""What one task reads: keys, by reader, and whose chunks they are."""

Read: TypeAlias = "pa.Table | StoreDamaged"
"""A chunk, or why it cannot be read."""

Item = TypeVar("Item")


def _read(reads: Reads) -> list[list[Read]]:
    return [list(reader.read_labelled(keys, labels)) for reader, keys, labels in reads]


def _read_sound(reads: Reads) -> list[list[Read]]:
    """The same one by one, with the error in the place of what is damaged."""
    return [
        [_read_one(reader, key, label) for key, label in zip(keys, labels, strict=True)]
        for reader, keys, labels in reads
    ]


def _read_one(reader: ChunkReader, key: Any, label: str) -> Read:
    try:
        return next(reader.read_labelled([key], [label]))
    except StoreDamaged as error:
        return error


@dataclass(frozen=True)
class _Step:
    """One read, and what it holds in memory, in bytes."""

    reads: Reads
    size: int
    what: Any


class Prefetcher:
    """Reads ahead of the caller, in order, within bounds that all its reads share.

    A context manager; leaving it cancels what has not been read.

    Parameters
    ----------
    skip_damaged
        Give the error in the place of a chunk that is damaged, and go on.
    """

    def __init__(self, *, skip_damaged: bool = False) -> None:
        self.skip_damaged = skip_damaged
        in_each_process(self._begin)
        count = setting("prefetch")
        self._count = LOCAL_COUNT if self._client is None else max(1, count)
        self._bound = setting("prefetch-bytes")
        self._unit = self._bound // max(1, count)
        self._held = 0

    def _begin(self) -> None:
        self._origin = Origin()
        self._client = current_client()
        self._executor: Executor | None = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._executor is not None and self._can_cancel():
            self._executor.shutdown(wait=False)

    def _can_cancel(self) -> bool:
        """A Client that was closed has cancelled everything itself."""
        return self._client is None or self._client.status == "running"

    def _submit(self, reads: Reads) -> Any:
        if self._executor is None:
            self._executor = (
                ThreadPoolExecutor(1, thread_name_prefix="daskbroker-ahead")
                if self._client is None
                else self._client.get_executor(pure=False)
            )
        portable = [(reader, reader.portable(keys), labels) for reader, keys, labels in reads]
        return self._executor.submit(_read, portable if self._client is not None else reads)

    def tables(self, plan: ChunkPlan, places: Sequence[int]) -> Iterator[Read]:
        """Chunks of a plan, one by one, each as a table of all its columns."""
        if not places:
            return
        steps = [] if isinstance(plan.reader, _InHand) else list(self._steps(plan, places))
        if len(steps) < 2:
            yield from (self._read_now(plan, place) for place in places)
            return
        for _, tables in self._in_order(steps):
            yield from tables[0]

    def _read_now(self, plan: ChunkPlan, place: int) -> Read:
        try:
            return plan.read(place)
        except StoreDamaged as error:
            if not self.skip_damaged:
                raise
            return error

    def _steps(self, plan: ChunkPlan, places: Sequence[int]) -> Iterator[_Step]:
        """Chunks put together up to a size; the first alone, so that it comes soon."""
        sizes = plan.records["bytes"][list(places)].tolist()
        pairs = list(zip(places, sizes))
        for some in chain(
            [pairs[:1]], self._pieces(pairs[1:], CHUNKS_IN_A_READ, lambda pair: pair[1])
        ):
            if some:
                keys = [plan.keys[place] for place, _ in some]
                labels = [plan.label(place) for place, _ in some]
                yield _Step([(plan.reader, keys, labels)], sum(size for _, size in some), None)

    def _pieces(
        self, items: Iterable[Item], most: int, size_of: Callable[[Item], int]
    ) -> Iterator[list[Item]]:
        """Consecutive items, cut where they exceed the size of one read."""
        piece: list[Item] = []
        size = 0
        for item in items:
            if piece and (size + size_of(item) > self._unit or len(piece) >= most):
                yield piece
                piece, size = [], 0
            piece.append(item)
            size += size_of(item)
        if piece:
            yield piece

    def _in_order(self, steps: Iterable[_Step]) -> Iterator[tuple[Any, list[list[Read]]]]:
        """The reads' results, the next ones under way meanwhile."""
        coming = iter(steps)
        window: deque[tuple[_Step, Origin, Any]] = deque()
        following = next(coming, None)
        try:
            while following is not None or window:
                while following is not None and self._has_room(window, following):
                    window.append((following, self._origin, self._submit(following.reads)))
                    self._held += following.size
                    following = next(coming, None)
                step, origin, future = window[0]
                tables = self._result(step, origin, future)
                window.popleft()
                del future  # or the worker keeps what it read while the caller goes through it
                self._held -= step.size
                yield step.what, tables
        finally:
            for step, origin, future in window:
                self._held -= step.size
                if origin.is_here() and self._can_cancel():
                    future.cancel()

    def _result(self, step: _Step, origin: Origin, future: Any) -> list[list[Read]]:
        """What a step has read."""
        try:
            # In a forked child no thread is left that would read it.
            return future.result() if origin.is_here() else _read(step.reads)  # type: ignore[no-any-return]
        except StoreDamaged:
            if not self.skip_damaged:
                raise
        return _read_sound(step.reads)

    def _has_room(self, window: Sequence[Any], step: _Step) -> bool:
        if not window:
            return True  # whatever its size, or it would never be read
        return len(window) < self._count and self._held + step.size <= self._bound

    # -- many runs ---------------------------------------------------------------------------

    def runs(
        self, runs: Iterable[tuple[Any, Sequence[ChunkPlan]]]
    ) -> Iterator[tuple[Any, Sequence[ChunkPlan]]]:
        """Runs with their plans, those of small ones read ahead on the workers.

        Parameters
        ----------
        runs
            Anything that names a run, and the plans that it needs.

        Yields
        ------
        (name, plans)
            In the same order. A plan that was read ahead holds its chunks in memory. Large
            runs, and all of them without a Client, come as they are.
        """
        if self._client is None:
            yield from runs
            return
        pieces = self._pieces(runs, RUNS_IN_A_READ, lambda run: sum(map(_size, run[1])))
        for piece, tables in self._in_order(map(self._step_of_runs, pieces)):
            in_hand = iter(tables)
            for name, plans in piece:
                if _is_small(plans, self._unit):
                    plans = [_InHand.plan(plan, next(in_hand)) for plan in plans]
                yield name, plans

    def _step_of_runs(self, piece: list[tuple[Any, Sequence[ChunkPlan]]]) -> _Step:
        plans = [plan for _, plans in piece if _is_small(plans, self._unit) for plan in plans]
        reads = [
            (plan.reader, plan.keys, list(map(plan.label, range(len(plan))))) for plan in plans
        ]
        return _Step(reads, sum(map(_size, plans)), piece)


def _size(plan: ChunkPlan) -> int:
    return int(plan.records["bytes"].sum())


def _is_small(plans: Sequence[ChunkPlan], unit: int) -> bool:
    return sum(map(_size, plans)) <= unit


@dataclass(frozen=True)
class _InHand(ChunkReader):
    """Gives chunks that have been read."""

    tables: Sequence[Read]

    @classmethod
    def plan(cls, plan: ChunkPlan, tables: Sequence[Read]) -> ChunkPlan:
        """The plan with its chunks in memory; ranges of ``seq_num`` stay what they are."""
        keys = (key if isinstance(key, range) else place for place, key in enumerate(plan.keys))
        return replace(plan, reader=cls(tables), keys=tuple(keys))

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        """See :meth:`daskbroker.core.chunks.ChunkReader.read_stored`."""
        table = self.tables[key]
        if isinstance(table, StoreDamaged):
            raise table
        return table if columns is None else table.select(present(table.schema, columns))
