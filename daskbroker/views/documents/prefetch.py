"""Read chunks before they are requested, on the workers of a Client or in a thread.

Bounds are set in dask's configuration: ``daskbroker.prefetch`` is the maximum number of reads
ahead on a cluster (8), ``daskbroker.prefetch-bytes`` the maximum bytes that all reads ahead hold
(128 MiB). Other work that can be done ahead, such as filling, is a :class:`Step` within the same
bounds.
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

from ...core.chunks import ChunkPlan, ChunkReader, with_columns
from ...core.errors import StoreDamaged
from ...core.forking import Origin, in_each_process
from ...core.settings import setting
from ...workers import current_client

LOCAL_COUNT = 2
"""Maximum number of reads ahead without a Client."""
CHUNKS_IN_A_READ = 500
"""Maximum number of chunks in one read."""
RUNS_IN_A_READ = 32
"""Maximum number of runs in one read, however small, as planning runs takes time, too."""

Read: TypeAlias = "pa.Table | StoreDamaged"
"""A chunk, or the error if it is damaged."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Reads:
    """The read of one task.

    Attributes
    ----------
    parts
        Reader, keys of chunks, and labels of these for messages.
    """

    parts: Sequence[tuple[ChunkReader, Sequence[Any], Sequence[str]]]

    def __call__(self) -> list[list[pa.Table]]:
        return [list(reader.read_labelled(keys, labels)) for reader, keys, labels in self.parts]

    def one_by_one(self) -> list[list[Read]]:
        """Read chunks one by one, with the error in place of each damaged one."""
        return [
            [_read_one(reader, key, label) for key, label in zip(keys, labels, strict=True)]
            for reader, keys, labels in self.parts
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        parts = [
            (reader, reader.portable_keys(keys), labels) for reader, keys, labels in self.parts
        ]
        return (_Reads, (parts,))


def _read_one(reader: ChunkReader, key: Any, label: str) -> Read:
    try:
        return next(reader.read_labelled([key], [label]))
    except StoreDamaged as error:
        return error


@dataclass(frozen=True)
class Step:
    """A piece of work that is done ahead.

    Attributes
    ----------
    call
        Picklable function that does the work and returns its result.
    size
        Bytes that are held in memory for it until its result is taken.
    what
        Object that stays in this process, and is returned with the result.
    name
        Name of the task, as the dashboard shows it.
    """

    call: Callable[[], Any]
    size: int
    what: Any = None
    name: str = "read"


def _do(call: Callable[[], Any]) -> Any:
    """Call a callable.

    Submitting this function, rather than the callable itself, gives tasks a name. Of other
    callables, Distributed takes the repr, which is long.
    """
    return call()


class Prefetcher:
    """Reads ahead of the caller, in order, within bounds that all its reads share.

    It is a context manager; leaving it cancels what has not been read.

    Parameters
    ----------
    skip_damaged
        Whether a damaged chunk is replaced by its error, instead of raising it.
    """

    def __init__(self, *, skip_damaged: bool = False) -> None:
        self.skip_damaged = skip_damaged
        in_each_process(self._begin)
        count = setting("prefetch")
        self._count = LOCAL_COUNT if self._client is None else max(1, count)
        self._bound = setting("prefetch-bytes")
        self.unit = self._bound // max(1, count)
        """Target bytes of a step: the maximum number of such steps fit within the bound."""
        self._bytes_in_flight = 0
        self._windows: dict[int, _Window] = {}

    @property
    def on_workers(self) -> bool:
        """Whether the workers of a Client do the steps."""
        return self._client is not None

    def _begin(self) -> None:
        self._origin = Origin()
        self._client = current_client()
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        # Whoever stops taking documents must not leave tasks behind on the workers.
        for window in self._windows.values():
            window.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _can_cancel(self) -> bool:
        """Return whether futures can be cancelled; a closed Client has cancelled all of them."""
        return self._client is None or self._client.status == "running"

    def _submit(self, step: Step) -> Any:
        if self._client is not None:
            # Not by `Client.get_executor`, whose futures never end if a worker dies between the
            # end of a task and the fetching of its result.
            key = f"daskbroker-{step.name}-{uuid.uuid4().hex}"
            return self._client.submit(_do, step.call, key=key, pure=False)
        # One thread suffices: it reads the next chunk while this one is used.
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="daskbroker-ahead")
        return self._executor.submit(step.call)

    def tables(self, plan: ChunkPlan, indices: Sequence[int]) -> Iterator[Read]:
        """Yield chunks of a plan, one by one, each as a table of all its columns.

        With ``skip_damaged``, a damaged chunk is yielded as its error.

        Raises
        ------
        StoreDamaged
            If a chunk is damaged, unless damaged ones are skipped.
        """
        if not indices:
            return
        steps = [] if isinstance(plan.reader, _InHand) else list(self._steps(plan, indices))
        if len(steps) < 2:  # there is nothing to read ahead
            yield from (self._read_now(plan, position) for position in indices)
            return
        for _, tables in self.in_order(steps):
            yield from tables[0]

    def _read_now(self, plan: ChunkPlan, index: int) -> Read:
        try:
            return plan.read(index)
        except StoreDamaged as error:
            # Reports of one run end at damage; readers of many runs may go on without it.
            if not self.skip_damaged:
                raise
            return error

    def _steps(self, plan: ChunkPlan, indices: Sequence[int]) -> Iterator[Step]:
        """Yield reads of several chunks, up to a size; the first chunk alone, to have it soon."""
        sizes = plan.records["bytes"][list(indices)].tolist()
        pairs = list(zip(indices, sizes))
        for some in chain(
            [pairs[:1]], self._pieces(pairs[1:], CHUNKS_IN_A_READ, lambda pair: pair[1])
        ):
            # The first of a plan is read alone, and there may be no others.
            if some:
                keys = [plan.keys[index] for index, _ in some]
                labels = [plan.label(index) for index, _ in some]
                read = _Reads([(plan.reader, keys, labels)])
                yield Step(read, sum(size for _, size in some))

    def _pieces(
        self, items: Iterable[Item], most: int, size_of: Callable[[Item], int]
    ) -> Iterator[list[Item]]:
        """Yield lists of consecutive items, of at most `most` items and about ``unit`` bytes."""
        piece: list[Item] = []
        size = 0
        for item in items:
            # An item that is larger than a step is a step of its own.
            if piece and (size + size_of(item) > self.unit or len(piece) >= most):
                yield piece
                piece, size = [], 0
            piece.append(item)
            size += size_of(item)
        if piece:
            yield piece

    def in_order(self, steps: Iterable[Step], *, begin: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield ``what`` and the result of each step, while the next ones are under way.

        Parameters
        ----------
        steps
            Steps, taken one by one as there is room.
        begin
            Whether to submit steps now, if there is room, and not only when the first result is
            asked for.
        """
        window = _Window(self, iter(steps))
        self._windows[id(window)] = window
        # Runs are begun before they are taken, so that their first chunks are on their way.
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
            # Results of steps before the error were good, and have been yielded.
            if window.error is not None:
                raise window.error
        finally:
            window.cancel()
            self._windows.pop(id(window), None)

    # -- many runs ---------------------------------------------------------------------------

    def runs(
        self, runs: Iterable[tuple[Any, Sequence[ChunkPlan]]]
    ) -> Iterator[tuple[Any, Sequence[ChunkPlan]]]:
        """Yield runs with their plans, with the chunks of small runs read ahead on the workers.

        Parameters
        ----------
        runs
            Pairs of any object that stands for a run, and the plans that it needs.

        Yields
        ------
        (name, plans)
            Runs in the same order. A plan that was read ahead holds its chunks in memory. Large
            runs, and all runs without a Client, are passed on unchanged.
        """
        # Without workers, a run's own stream reads ahead.
        if self._client is None:
            yield from runs
            return
        pieces = self._pieces(runs, RUNS_IN_A_READ, lambda run: sum(map(_size, run[1])))
        for piece, tables in self.in_order(map(self._step_of_runs, pieces)):
            in_hand = iter(tables)
            for name, plans in piece:
                # Larger runs read their own chunks ahead.
                if _is_small(plans, self.unit):
                    plans = [_InHand.plan(plan, next(in_hand)) for plan in plans]
                yield name, plans

    def chained(self, begun: Iterable[Iterator[Item]]) -> Iterator[Item]:
        """Yield the items of each run, one run after the other.

        Parameters
        ----------
        begun
            One iterator per run. With a Client, some more are taken, and so begin to read, before
            the first is exhausted.
        """
        waiting: deque[Iterator[Item]] = deque()
        for run in begun:
            waiting.append(run)
            # Here, runs are not begun early; on workers only as many as fit the number of steps.
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
    """Reader of chunks that are in memory.

    Attributes
    ----------
    tables
        Chunks, or errors of damaged ones.
    unread
        Plan from which they were read.
    """

    tables: Sequence[Read]
    unread: ChunkPlan

    @classmethod
    def plan(cls, plan: ChunkPlan, tables: Sequence[Read]) -> ChunkPlan:
        """Return the plan with its chunks in memory; keys that are ranges stay as they are."""
        keys = (
            key if isinstance(key, range) else position for position, key in enumerate(plan.keys)
        )
        return replace(plan, reader=cls(tables, plan), keys=tuple(keys))

    def stored(self, keys: Sequence[Any]) -> tuple[ChunkReader, Sequence[Any]]:
        found = [key if isinstance(key, range) else self.unread.keys[key] for key in keys]
        return self.unread.reader, found

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        table = self.tables[key]
        # The damage is raised where the chunk is read, as if it were read there.
        if isinstance(table, StoreDamaged):
            raise table
        return with_columns(table, columns)


class _Window:
    """The steps of one iteration that are under way, in order."""

    def __init__(self, owner: Prefetcher, coming: Iterator[Step]) -> None:
        self._owner = owner
        self._coming = coming
        self._following: Step | None = None
        self.error: Exception | None = None
        """Error of the iterator of steps; to be raised after the results of earlier steps."""
        self.steps: deque[tuple[Step, Origin, Any]] = deque()

    def fill(self, *, one_at_least: bool = False) -> None:
        """Submit as many steps as there is room for.

        With `one_at_least`, one step is submitted whatever its size; otherwise one that exceeds
        the bound would never be done.
        """
        owner = self._owner
        while len(self.steps) < owner._count:
            step = self._following = self._following or self._next()
            # One step in any case, else a chunk larger than the bound would never be read.
            has_to_be = one_at_least and not self.steps
            if step is None or not (
                has_to_be or owner._bytes_in_flight + step.size <= owner._bound
            ):
                return
            self.steps.append((step, owner._origin, owner._submit(step)))
            owner._bytes_in_flight += step.size
            self._following = None

    def _next(self) -> Step | None:
        try:
            return next(self._coming, None)
        # Results of earlier steps are yielded before it is raised.
        except Exception as error:
            self.error = error
            return None

    def take(self) -> tuple[Any, Any]:
        """Wait for the first step, and return its ``what`` and its result."""
        step, origin, future = self.steps[0]
        try:
            # In a forked child, no thread is left that would complete the future.
            result = future.result() if origin.is_here() else step.call()
        except StoreDamaged:
            # Whole steps can be retried chunk by chunk only if they are reads.
            if not (self._owner.skip_damaged and isinstance(step.call, _Reads)):
                raise
            result = step.call.one_by_one()
        self.steps.popleft()
        self._owner._bytes_in_flight -= step.size
        # The future is dropped here, which also releases the result on the worker.
        return step.what, result

    def cancel(self) -> None:
        """Cancel all steps, and return their bytes to the shared bound."""
        while self.steps:
            step, origin, future = self.steps.popleft()
            self._owner._bytes_in_flight -= step.size
            # A forked child cannot cancel the futures of its parent.
            if origin.is_here() and self._owner._can_cancel():
                future.cancel()
