"""Reading chunks before they are asked for: on the workers of a Client, or by a thread.

Dask's configuration bounds it: ``daskbroker.prefetch`` is how many reads are ahead on a
cluster (8), ``daskbroker.prefetch-bytes`` how much data they may hold together (128 MiB). What
else the workers can do ahead, such as filling, is a :class:`Step` within the same bounds.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa

from ...core.chunks import ChunkPlan, ChunkReader, present
from ...core.errors import StoreDamaged
from ...core.forking import Origin, in_each_process
from ...core.settings import setting
from ...workers import current_client

__all__ = ["Prefetcher", "Step"]

LOCAL_COUNT = 2
CHUNKS_IN_A_READ = 500
RUNS_IN_A_READ = 32
"""At most so many, however small: planning a run takes time too."""

Read: TypeAlias = "pa.Table | StoreDamaged"
"""A chunk, or why it cannot be read."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Reads:
    """What one task reads: keys, by reader, and whose chunks they are."""

    parts: Sequence[tuple[ChunkReader, Sequence[Any], Sequence[str]]]

    def __call__(self) -> list[list[pa.Table]]:
        return [list(reader.read_labelled(keys, labels)) for reader, keys, labels in self.parts]

    def one_by_one(self) -> list[list[Read]]:
        """The same, with the error in the place of what is damaged."""
        return [
            [_read_one(reader, key, label) for key, label in zip(keys, labels, strict=True)]
            for reader, keys, labels in self.parts
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        parts = [(reader, reader.portable(keys), labels) for reader, keys, labels in self.parts]
        return (_Reads, (parts,))


def _read_one(reader: ChunkReader, key: Any, label: str) -> Read:
    try:
        return next(reader.read_labelled([key], [label]))
    except StoreDamaged as error:
        return error


@dataclass(frozen=True)
class Step:
    """What is done ahead.

    Attributes
    ----------
    call
        Does it; picklable.
    size
        Bytes that are held in memory for it until its result is given.
    what
        Stays here, and is given with the result.
    name
        Of the task, as the dashboard shows it.
    """

    call: Callable[[], Any]
    size: int
    what: Any = None
    name: str = "read"


def _do(call: Callable[[], Any]) -> Any:
    """A function has a name; of other callables Distributed asks for the repr, which is long."""
    return call()


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
        self.unit = self._bound // max(1, count)
        """Bytes of a step of which as many as there may be are under way."""
        self._held = 0
        self._windows: dict[int, _Window] = {}

    @property
    def on_workers(self) -> bool:
        """Whether steps are done by the workers of a Client."""
        return self._client is not None

    def _begin(self) -> None:
        self._origin = Origin()
        self._client = current_client()
        self._executor: Any = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        for window in self._windows.values():
            window.cancel()
        if self._executor is not None and self._can_cancel():
            self._executor.shutdown(wait=False)

    def _can_cancel(self) -> bool:
        """A Client that was closed has cancelled everything itself."""
        return self._client is None or self._client.status == "running"

    def _submit(self, step: Step) -> Any:
        if self._executor is None:
            self._executor = (
                ThreadPoolExecutor(1, thread_name_prefix="daskbroker-ahead")
                if self._client is None
                else self._client.get_executor(pure=False)
            )
        if self._client is None:
            return self._executor.submit(step.call)
        key = f"daskbroker-{step.name}-{uuid.uuid4().hex}"
        return self._executor.submit(_do, step.call, key=key)

    def tables(self, plan: ChunkPlan, places: Sequence[int]) -> Iterator[Read]:
        """Chunks of a plan, one by one, each as a table of all its columns."""
        if not places:
            return
        steps = [] if isinstance(plan.reader, _InHand) else list(self._steps(plan, places))
        if len(steps) < 2:
            yield from (self._read_now(plan, place) for place in places)
            return
        for _, tables in self.in_order(steps):
            yield from tables[0]

    def _read_now(self, plan: ChunkPlan, place: int) -> Read:
        try:
            return plan.read(place)
        except StoreDamaged as error:
            if not self.skip_damaged:
                raise
            return error

    def _steps(self, plan: ChunkPlan, places: Sequence[int]) -> Iterator[Step]:
        """Chunks put together up to a size; the first alone, so that it comes soon."""
        sizes = plan.records["bytes"][list(places)].tolist()
        pairs = list(zip(places, sizes))
        for some in chain(
            [pairs[:1]], self._pieces(pairs[1:], CHUNKS_IN_A_READ, lambda pair: pair[1])
        ):
            if some:
                keys = [plan.keys[place] for place, _ in some]
                labels = [plan.label(place) for place, _ in some]
                read = _Reads([(plan.reader, keys, labels)])
                yield Step(read, sum(size for _, size in some))

    def _pieces(
        self, items: Iterable[Item], most: int, size_of: Callable[[Item], int]
    ) -> Iterator[list[Item]]:
        """Consecutive items, cut where they exceed the size of one read."""
        piece: list[Item] = []
        size = 0
        for item in items:
            if piece and (size + size_of(item) > self.unit or len(piece) >= most):
                yield piece
                piece, size = [], 0
            piece.append(item)
            size += size_of(item)
        if piece:
            yield piece

    def in_order(self, steps: Iterable[Step], *, begin: bool = False) -> Iterator[tuple[Any, Any]]:
        """Of each step what it is for, and its result; the next ones are under way meanwhile.

        Parameters
        ----------
        steps
            Asked for as there is room.
        begin
            Not only when the first result is asked for, but now, if there is room.
        """
        window = _Window(self, iter(steps))
        self._windows[id(window)] = window
        if begin:
            window.fill()
        return self._results(window)

    def _results(self, window: _Window) -> Iterator[tuple[Any, Any]]:
        try:
            while True:
                window.fill(one_at_least=True)
                if not window.steps:
                    break
                yield window.take()
            if window.error is not None:
                raise window.error
        finally:
            window.cancel()
            self._windows.pop(id(window), None)

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
        for piece, tables in self.in_order(map(self._step_of_runs, pieces)):
            in_hand = iter(tables)
            for name, plans in piece:
                if _is_small(plans, self.unit):
                    plans = [_InHand.plan(plan, next(in_hand)) for plan in plans]
                yield name, plans

    def chained(self, begun: Iterable[Iterator[Item]]) -> Iterator[Item]:
        """All of each run, one after the other.

        Parameters
        ----------
        begun
            One a run. With a Client, some more are asked for before a run is gone through.
        """
        waiting: deque[Iterator[Item]] = deque()
        for run in begun:
            waiting.append(run)
            if not self.on_workers or len(waiting) > self._count:
                yield from waiting.popleft()
        for run in waiting:
            yield from run

    def _step_of_runs(self, piece: list[tuple[Any, Sequence[ChunkPlan]]]) -> Step:
        plans = [plan for _, plans in piece if _is_small(plans, self.unit) for plan in plans]
        reads = [
            (plan.reader, plan.keys, list(map(plan.label, range(len(plan))))) for plan in plans
        ]
        return Step(_Reads(reads), sum(map(_size, plans)), piece)


def _size(plan: ChunkPlan) -> int:
    return int(plan.records["bytes"].sum())


def _is_small(plans: Sequence[ChunkPlan], unit: int) -> bool:
    return sum(map(_size, plans)) <= unit


@dataclass(frozen=True)
class _InHand(ChunkReader):
    """Gives chunks that have been read."""

    tables: Sequence[Read]
    unread: ChunkPlan

    @classmethod
    def plan(cls, plan: ChunkPlan, tables: Sequence[Read]) -> ChunkPlan:
        """The plan with its chunks in memory; ranges of ``seq_num`` stay what they are."""
        keys = (key if isinstance(key, range) else place for place, key in enumerate(plan.keys))
        return replace(plan, reader=cls(tables, plan), keys=tuple(keys))

    def stored(self, keys: Sequence[Any]) -> tuple[ChunkReader, Sequence[Any]]:
        """See :meth:`daskbroker.core.chunks.ChunkReader.stored`."""
        found = [key if isinstance(key, range) else self.unread.keys[key] for key in keys]
        return self.unread.reader, found

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        """See :meth:`daskbroker.core.chunks.ChunkReader.read_stored`."""
        table = self.tables[key]
        if isinstance(table, StoreDamaged):
            raise table
        return table if columns is None else table.select(present(table.schema, columns))


class _Window:
    """Steps that are under way, in order."""

    def __init__(self, owner: Prefetcher, coming: Iterator[Step]) -> None:
        self._owner = owner
        self._coming = coming
        self._following: Step | None = None
        self.error: Exception | None = None
        """Why no more are coming; it is for after those that did."""
        self.steps: deque[tuple[Step, Origin, Any]] = deque()

    def fill(self, *, one_at_least: bool = False) -> None:
        """Submit what there is room for; one step whatever its size, or it would never be done."""
        owner = self._owner
        while len(self.steps) < owner._count:
            step = self._following = self._following or self._next()
            has_to_be = one_at_least and not self.steps
            if step is None or not (has_to_be or owner._held + step.size <= owner._bound):
                return
            self.steps.append((step, owner._origin, owner._submit(step)))
            owner._held += step.size
            self._following = None

    def _next(self) -> Step | None:
        try:
            return next(self._coming, None)
        except Exception as error:
            self.error = error
            return None

    def take(self) -> tuple[Any, Any]:
        """The first step, which is waited for: what it is for, and its result."""
        step, origin, future = self.steps[0]
        try:
            # In a forked child no thread is left that would do it.
            result = future.result() if origin.is_here() else step.call()
        except StoreDamaged:
            if not (self._owner.skip_damaged and isinstance(step.call, _Reads)):
                raise
            result = step.call.one_by_one()
        self.steps.popleft()
        self._owner._held -= step.size
        # With the future goes the result's copy on the worker.
        return step.what, result

    def cancel(self) -> None:
        """Give back what is held, and do no more of it."""
        while self.steps:
            step, origin, future = self.steps.popleft()
            self._owner._held -= step.size
            if origin.is_here() and self._owner._can_cancel():
                future.cancel()
