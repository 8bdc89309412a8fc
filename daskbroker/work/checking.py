"""Checks of stores for damage: checksums, row counts and references of runs, and detector files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import dask
import numpy as np
import pyarrow as pa

from ..assets.access import FileAccess
from ..assets.filling.contents import CellContents
from ..assets.filling.event_filling import BLOCK_BYTES
from ..assets.filling.filling import Filling
from ..assets.filling.target import Target
from ..assets.references.by_run import ReferencesByRun
from ..assets.references.locating import CellsOfResource, ReferenceMissing, References
from ..assets.shapes import Declared
from ..broker import DataBroker
from ..core.arguments import CALLABLE, FLAG, accepts
from ..core.damage import Damage
from ..core.documents import Document
from ..core.errors import (
    FillError,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    is_of_process,
    process_error,
)
from ..core.external import external_keys, is_stream_key
from ..core.layouts import (
    DATUM,
    EVENT,
    RESOURCE,
    STREAM_DATUM,
    STREAM_RESOURCE,
    Layout,
    decode_rows,
)
from ..core.printable import counted
from ..event_source import EventSource
from ..header import Header
from ..results import Results
from ..stores.checking import (
    MAX_DAMAGES,
    CheckedHeader,
    CheckedPlan,
    check_chunks,
    check_document,
    check_headers,
    error_text,
    plan_for_check,
)
from .given import runs_of

ChosenRuns = DataBroker | Results | Header | Iterable[Header]


@accepts(files=FLAG, progress=CALLABLE.or_none())
def check(
    runs: ChosenRuns, *, files: bool = False, progress: Callable[[Check], None] | None = None
) -> Check:
    """Look for damage in runs. Lazy: nothing is read before iteration; the store is not changed.

    Every document and chunk of a run is read, and its checksum is compared. The rows of chunks are
    counted and compared with the store's list of chunks. Each reference is looked up. If a broker
    is given, documents that belong to no run are checked too. The store may be written meanwhile:
    damage is reported only if a second look finds it again.

    Parameters
    ----------
    runs
        A broker (all its runs), search results, one header, or an iterable of headers.
    files
        Whether to read also the parts of detector files that events refer to, block by block.
    progress
        Function that is called after each run with the :class:`Check`, whose attributes hold the
        counts so far.

    Returns
    -------
    Check
        Iterator over :class:`~daskbroker.core.damage.Damage`.

    Examples
    --------
    >>> for damage in daskbroker.check(db):  # doctest: +SKIP
    ...     print(damage.run, damage.stream, damage.key, damage.path, damage.problem)
    """
    return Check(runs, files=files, progress=progress)


class Check(Iterator[Damage]):
    """Iterator over the damage that :func:`check` finds.

    Attributes
    ----------
    runs, chunks, bytes
        Number of runs and chunks that were checked so far, and the bytes of these chunks in
        memory.
    damages
        Number of damages found so far.
    """

    def __init__(
        self, runs: ChosenRuns, *, files: bool, progress: Callable[[Check], None] | None = None
    ) -> None:
        self.runs = self.chunks = self.bytes = self.damages = 0
        self._files = files
        self._progress = progress
        self._is_begun = False
        self._seen: set[int] = set()
        self._runs = (
            self._of_broker(runs) if isinstance(runs, DataBroker) else self._of_runs(runs_of(runs))
        )

    def __next__(self) -> Damage:
        self._is_begun = True
        damage = next(self._runs)
        self.damages += 1
        return damage

    def __repr__(self) -> str:
        return f"<Check: {self}>"

    def __str__(self) -> str:
        if not self._is_begun:
            return "nothing is checked yet: for damage in check, or list(check), checks the runs"
        return (
            f"{counted(self.runs, 'run')}, {counted(self.chunks, 'chunk')}, {self.bytes:,} bytes: "
            f"{self.damages:,} damaged"
        )

    # -- which runs --------------------------------------------------------------------------

    def _of_broker(self, db: DataBroker) -> Iterator[Damage]:
        runs = db()
        yield from self._of_runs(runs)
        if not runs.is_all_of(db):  # a broker with filters checks only the runs that they pass
            return
        for source in db.event_sources:
            yield from _rest(source)
            yield from self._without_start(db, source)

    def _of_runs(self, runs: Iterable[Header]) -> Iterator[Damage]:
        # Results also list runs that cannot be read, which a header cannot stand for.
        if isinstance(runs, Results):
            for checked in runs.checked():
                yield from self._run(runs.db, checked)
            return
        for header in runs:
            for checked in check_headers([(header.start, header.stop)]):
                yield from self._run(header.db, checked)

    def _without_start(self, db: DataBroker, source: EventSource) -> Iterator[Damage]:
        """Yield damage for runs that have descriptors, but no start document."""
        for run in source.store.list_runs():
            # Hashes take less memory than uids, and a rare clash only hides this one damage.
            if hash(run) not in self._seen and not _has_start(db, run):
                yield Damage("its start document is not stored, though descriptors are", run)

    # -- one run -----------------------------------------------------------------------------

    def _run(self, db: DataBroker, checked: CheckedHeader) -> Iterator[Damage]:
        yield from checked.damages
        if checked.uid is not None:
            self._seen.add(hash(checked.uid))
            sources = db.event_sources
            found = self._damages_of(sources, checked, count=True)
            # Rows may have been sealed while they were read. Only what a second look finds in the
            # same place is damage.
            if found:
                known = {_where(damage) for damage in found}
                again = self._damages_of(sources, checked, count=False)
                yield from (damage for damage in again if _where(damage) in known)
        self.runs += 1
        # Progress counts sound runs too.
        if self._progress is not None:
            self._progress(self)

    def _damages_of(
        self, sources: Iterable[EventSource], checked: CheckedHeader, *, count: bool
    ) -> list[Damage]:
        """Return the damages of a run, up to :data:`MAX_DAMAGES`, and a note if there are more."""
        with dask.config.set({"daskbroker.verify": "always"}):
            found = list(islice(self._look(sources, checked, count=count), MAX_DAMAGES + 1))
        # A store that is damaged as a whole would else be reported row by row.
        if len(found) > MAX_DAMAGES:
            found[MAX_DAMAGES] = Damage(
                f"more than {MAX_DAMAGES:,} things are damaged", checked.uid
            )
        return found

    def _look(
        self, sources: Iterable[EventSource], checked: CheckedHeader, *, count: bool
    ) -> Iterator[Damage]:
        run = str(checked.uid)
        for source in sources:
            try:
                plan = plan_for_check(source.store, run)
                yield from plan.damages
                more = _References(plan, checked.stop, files=source.files if self._files else None)
                for one in check_chunks(source.store, plan, more.look):
                    if isinstance(one, Damage):
                        yield one
                    elif count:
                        self.chunks += 1
                        self.bytes += one
            # It says nothing about the data; the check ends.
            except StoreUnavailable:
                raise
            except StoreError as error:  # such as rows that were added while others were read
                if not source.store.is_in_place:  # moved or deleted meanwhile
                    raise
                yield Damage(str(error), run)


def _has_start(db: DataBroker, run: str) -> bool:
    try:
        return db.header_source.store.find_uid(run) is not None
    except StoreDamaged:  # the search has reported this start document already
        return True


def _where(damage: Damage) -> tuple[str | None, ...]:
    return damage.run, damage.stream, damage.key, damage.path


def _rest(source: EventSource) -> Iterator[Damage]:
    try:
        yield from source.store.check_rest()
    except StoreUnavailable:
        raise
    except StoreError as error:
        yield Damage(str(error))


# -- references and files --------------------------------------------------------------------


class _References:
    """Lookup of everything that the chunks of one run refer to."""

    def __init__(
        self, plan: CheckedPlan, stop: Mapping[str, object] | None, *, files: FileAccess | None
    ) -> None:
        self._plan = plan
        self._stopped = stop is not None
        self._references = ReferencesByRun(plan.references).get(plan.run)
        self._filling = None if files is None else files.filling(plan.references)
        self._known: dict[str, set[str]] = {}
        self._unreadable: set[tuple[str, str | None]] = set()

    def look(
        self, layout: Layout, owner: Document, table: pa.Table, run_fraction: float
    ) -> Iterator[Damage]:
        """Yield the damages of resources, datums and files that the rows of a chunk refer to."""
        if layout is EVENT:
            for key in external_keys(owner):
                yield from self._look_at_cells(Target.of(owner, key), table, run_fraction)
        elif layout in (RESOURCE, STREAM_RESOURCE):
            for doc in decode_rows(layout, table, ""):
                damage = check_document(layout.kind, doc)
                if damage is not None:
                    yield damage
        else:
            yield from self._lost_owners(layout, table)

    def _lost_owners(self, layout: Layout, table: pa.Table) -> Iterator[Damage]:
        """Yield damage for resources and descriptors that datums name and the run lacks."""
        owner = RESOURCE if layout is DATUM else STREAM_RESOURCE
        named = [(owner.kind, layout.owner)]
        if layout is STREAM_DATUM:
            # These name two owners: the descriptor and the file.
            named.append(("descriptor", "descriptor"))
        for kind, column in named:
            for uid in table.column(column).unique().to_pylist():
                if uid not in self._uids(kind):
                    yield Damage(f"{layout.kind}s refer to the {kind} {uid!r}, which is not stored")

    def _uids(self, layout: str) -> set[str]:
        if layout not in self._known:
            if layout == "descriptor":
                self._known[layout] = {doc["uid"] for doc in self._plan.descriptors}
            else:
                plan = self._plan.references.get(layout)
                tables = () if plan is None else plan.read_all(["uid"])
                self._known[layout] = {u for t in tables for u in t.column("uid").to_pylist()}
        return self._known[layout]

    # -- cells -------------------------------------------------------------------------------

    def _look_at_cells(
        self, target: Target, table: pa.Table, run_fraction: float
    ) -> Iterator[Damage]:
        # The references could not be listed, which is reported already.
        if self._references is None:
            return
        if is_stream_key(target.claim) and not self._stopped:
            return  # a stream_datum may still come after the events that it describes
        rows = table.num_rows
        # Files are read in blocks, as large cells of a whole chunk would not fit into memory.
        if self._filling is not None:
            size = max(1, Declared.of([target.claim]).cell_bytes)
            rows = max(1, min(rows, BLOCK_BYTES // size))
        for begin in range(0, table.num_rows, rows):
            contents = CellContents.of_table(table, target.key, slice(begin, begin + rows))
            yield from self._look_at_block(target, contents, run_fraction)

    def _look_at_block(
        self, target: Target, contents: CellContents, run_fraction: float
    ) -> Iterator[Damage]:
        assert self._references is not None
        try:
            for found, part in _parts(self._references, target, contents, run_fraction):
                if self._filling is not None:
                    yield from self._look_at_file(self._filling, target, found, part, run_fraction)
        except ReferenceMissing as error:
            yield Damage(str(error), key=target.key)

    def _look_at_file(
        self,
        filling: Filling,
        target: Target,
        cells: CellsOfResource,
        contents: CellContents,
        run_fraction: float,
    ) -> Iterator[Damage]:
        """Read what some events refer to in one resource; each file is reported once for a key."""
        path = None
        try:
            path = filling.resolved(target, cells).path
            if (target.key, path) not in self._unreadable:
                filling.cells(target, contents, run_fraction)
        except (FillError, OSError, MemoryError) as error:
            if is_of_process(error) and not _claims_too_much(error):
                raise process_error(error, path or target.where) from error
            # One bad file is reported once, not for each event in it.
            if (target.key, path) not in self._unreadable:
                yield Damage(error_text(error), stream=target.stream, key=target.key, path=path)
            self._unreadable.add((target.key, path))


def _claims_too_much(error: BaseException | None) -> bool:
    """Return whether an error is of an array that is larger than the memory of this machine.

    No process can read that; the size is wrong in the documents or in the file.
    """
    while error is not None:
        # As numpy's error tells it.
        shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
        if isinstance(error, MemoryError) and shape is not None and dtype is not None:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            return math.prod(shape) * dtype.itemsize > memory
        error = error.__cause__
    return False


def _parts(
    references: References, target: Target, contents: CellContents, run_fraction: float
) -> Iterator[tuple[CellsOfResource, CellContents]]:
    """Yield each resource that events refer to, with the events that refer to it."""
    none = np.zeros(0, np.int64)
    empty = pa.array([], pa.string())
    if len(contents.references):
        for found in references.find(contents.references, run_fraction):
            taken = contents.references.take(pa.array(found.positions))
            seq_nums = contents.seq_nums[contents.referring[found.positions]]
            yield found, CellContents(seq_nums, taken, np.arange(len(taken)), [], none, none)
    # Cells without a reference of their own are found by seq_num.
    if len(contents.bare) and is_stream_key(target.claim):
        seq_nums = contents.seq_nums[contents.bare]
        for found in references.find_frames(target.descriptor, target.key, seq_nums):
            some = seq_nums[found.positions]
            yield found, CellContents(some, empty, none, [], none, np.arange(len(some)))
