"""Looking for damage in any store of events, run by run.

Everything is read, and nothing is changed. A plan is the content that the store claims to have;
each of its chunks is read as a whole, which verifies its checksums, and its statistics are
recomputed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ..core.bad_runs import BadRun
from ..core.chunk_statistics import Statistics, statistics
from ..core.chunks import ChunkPlan, column_kinds
from ..core.damage import Damage
from ..core.documents import Document, equal
from ..core.errors import BadDocument, DaskbrokerError, StoreDamaged, StoreError, is_of_process
from ..core.layouts import EVENT, LAYOUTS, REFERENCES, Layout
from ..core.plan_builder import with_frames
from ..core.run_plan import frame_spans, stream_of
from ..core.validate import document_label, prepare

if TYPE_CHECKING:
    from .event_store import EventStore
    from .header_store import FoundHeader

FIELD = re.compile(r"\.(\S+): |: lacks '(.+?)'$|: '(.+?)' is a required property")
"""How the messages of BadDocument name the field, after the document."""
MAX_DAMAGES = 1000
"""Maximum number of damages reported of the journal of one run."""

COUNTED = tuple(name for name in Statistics._fields if name != "bytes")
"""Statistics that are compared; the size in memory depends on how a chunk was made."""


def error_text(error: Exception) -> str:
    """Return the text of an error for a :class:`Damage`, with the type of an unexpected error."""
    # These say where they are; of any other error the type helps to find the cause.
    if isinstance(error, DaskbrokerError):
        return str(error)
    return f"cannot be read: {type(error).__name__}: {error}"


def check_document(name: str, doc: Mapping[str, Any]) -> Damage | None:
    """Return the damage for which an insert would refuse a stored document, or None.

    The ``key`` of the damage is the field that is not valid, if the message names one.
    """
    try:
        prepare(name, doc)
    except BadDocument as error:
        named = FIELD.match(str(error).removeprefix(document_label(name, doc)))
        return Damage(str(error), key=next(filter(None, named.groups()), None) if named else None)
    return None


class EventChecks:
    """Optional methods of an event store by which a check finds more than plans show.

    The defaults tell nothing more.
    """

    def check_journal(self, run: str, descriptors: Sequence[Document]) -> Iterator[Damage]:
        """Yield the damage in the rows of a run that are in no chunk yet, row by row."""
        return iter(())

    def check_rest(self) -> Iterator[Damage]:
        """Yield the damage in parts of the store that belong to no particular run."""
        return iter(())

    def list_runs(self) -> Iterator[str]:
        """Yield the uids of all runs with descriptors; none if the store cannot list them."""
        return iter(())

    def path_of(self, key: Any) -> str | None:
        """Return the file or collection of a chunk by its key in a plan, for messages."""
        return None

    def tells_kinds(self, key: Any) -> bool:
        """Return whether plans give the exact columns of the chunk with this key.

        A key that is a range of ``seq_num`` stands for frames of which only stream_datum
        documents tell, so no list of chunks has its columns.
        """
        return not isinstance(key, range)


class CheckedHeader(NamedTuple):
    """The start and stop document of a run, with the damage in them.

    Attributes
    ----------
    uid
        Uid of the run; None if the start has none.
    start, stop
        The two documents; None for one that could not be read or is not stored.
    damages
        Damage in the two documents.
    """

    uid: str | None
    start: Mapping[str, Any] | None
    stop: Mapping[str, Any] | None
    damages: list[Damage]


def check_headers(runs: Iterable[FoundHeader]) -> Iterator[CheckedHeader]:
    """Yield the start and stop documents of runs, checked.

    If iteration over the runs raises StoreDamaged, that is the last damage yielded.
    """
    try:
        for run in runs:
            # It cannot be checked further, and is reported by its reason.
            if isinstance(run, BadRun):
                damage = Damage(run.reason, run=run.uid, path=run.where or None)
                yield CheckedHeader(run.uid, None, None, [damage])
                continue
            start, stop = run
            found = [check_document("start", start)]
            if stop is not None:
                found.append(check_document("stop", stop))
            uid = str(start["uid"])
            damages = [damage.within(run=uid) for damage in found if damage is not None]
            yield CheckedHeader(uid, start, stop, damages)
    except StoreDamaged as error:
        problem = f"no more runs can be listed: {error}"
        yield CheckedHeader(None, None, None, [Damage(problem)])


@dataclass
class CheckedPlan:
    """Plans of one run: the content that a store claims to have.

    Attributes
    ----------
    run
        Uid of the run.
    descriptors
        Descriptors that are sound.
    events
        Pairs of a descriptor and the plan of its events, without those that cannot be planned.
    references
        Plans of references by kind, without those that cannot be planned.
    damages
        Damage found so far.
    """

    run: str
    descriptors: list[Document] = field(default_factory=list)
    events: list[tuple[Document, ChunkPlan]] = field(default_factory=list)
    references: dict[str, ChunkPlan] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)


def plan_for_check(store: EventStore, run: str) -> CheckedPlan:
    """Plan a run piece by piece, so that a damaged piece hides no sound one."""
    found = CheckedPlan(run)
    for one in store.check_descriptors(run):
        if isinstance(one, Damage):
            found.damages.append(one)
        else:
            found.descriptors.append(one)
    found.damages += islice(store.check_journal(run, found.descriptors), MAX_DAMAGES)
    # Events first and then their references, for the reason given in EventStore.plan_runs.
    for descriptor in found.descriptors:
        with _noted(found, stream=stream_of(descriptor)):
            events = sound_plan(store.plan_events([descriptor]))
            found.events.append((descriptor, events))
    for layout in REFERENCES:
        with _noted(found):
            for kind, references in store.plan_references((layout,), [run]).items():
                found.references[kind] = sound_plan(references)
    datums, resources = map(found.references.get, ("stream_datum", "stream_resource"))
    if datums is not None and resources is not None:
        for position, (descriptor, plan) in enumerate(found.events):
            with _noted(found, stream=stream_of(descriptor)):
                framed = with_frames(plan, lambda _: frame_spans(datums, resources)[0])
                found.events[position] = descriptor, framed
    found.damages = [damage.within(run=run) for damage in found.damages]
    return found


def sound_plan(plan: ChunkPlan) -> ChunkPlan:
    """Return a plan of one run if it is complete.

    Raises
    ------
    StoreDamaged
        If part of the run could not be planned.
    """
    for bad in plan.bad.values():
        raise bad.error()
    return plan


@contextmanager
def _noted(checked: CheckedPlan, **where: str) -> Iterator[None]:
    """Note an error that is raised in the block, unless the store as a whole cannot be read."""
    try:
        yield
    except StoreDamaged as error:
        checked.damages.append(Damage(str(error), **where))
    except StoreError:
        raise
    except Exception as error:  # documents written by others may be anything
        if is_of_process(error):
            raise
        checked.damages.append(Damage(error_text(error), **where))


Visit = Callable[[Layout, Document, pa.Table, float], Iterable[Damage]]
"""Function that checks each chunk further.

It takes the layout, the descriptor or owner, the rows, and the position of the chunk in the
sequence, from 0 to 1."""


def check_chunks(store: EventStore, plan: CheckedPlan, visit: Visit) -> Iterator[Damage | int]:
    """Read all chunks of a plan; yield the damage in each, then its size in memory in bytes."""
    for descriptor, events in plan.events:
        stream = stream_of(descriptor)
        for one in _check_plan(store, EVENT, events, visit):
            yield one if isinstance(one, int) else one.within(run=plan.run, stream=stream)
    for kind, references in plan.references.items():
        for one in _check_plan(store, LAYOUTS[kind], references, visit):
            yield one if isinstance(one, int) else one.within(run=plan.run)


def _check_plan(
    store: EventStore, layout: Layout, plan: ChunkPlan, visit: Visit
) -> Iterator[Damage | int]:
    """Check the chunks of one sequence, as :func:`check_chunks`."""
    expected = 0
    for index in range(len(plan)):
        chunk, key = plan[index], plan.keys[index]
        path = store.path_of(key)
        label = f"{layout.kind}s {chunk.first:,} to {chunk.first + chunk.rows - 1:,}"
        # A range of frames is no chunk; rows of the journal (keys of bytes) may be at positions
        # that chunks have, and are shown all the same.
        if chunk.first > expected and not isinstance(key, range):
            problem = f"the {layout.kind}s {expected:,} to {chunk.first - 1:,} are missing"
            yield Damage(problem, path=path)
        elif chunk.first < expected and not isinstance(key, (range, bytes)):
            yield Damage(f"two chunks hold the {label}", path=path)
        expected = max(expected, chunk.first + chunk.rows)
        try:
            table = plan.reader.read(key)
            yield from (
                one.within(path=path) for one in _compare(store, layout, plan, index, table)
            )
            yield from visit(layout, chunk.descriptor, table, index / len(plan))
            yield table.nbytes
        except StoreDamaged as error:
            yield Damage(f"{label}: {error}", path=path)
        except StoreError:
            raise
        except Exception as error:
            if is_of_process(error):
                raise
            yield Damage(f"{label}: {error_text(error)}", path=path)


def _compare(
    store: EventStore, layout: Layout, plan: ChunkPlan, index: int, table: pa.Table
) -> Iterator[Damage]:
    """Yield the differences between a chunk and its entry in the store's list of chunks."""
    record, kinds = plan.records[index], plan.schemas[plan.records["schema"][index]]
    # Rows that only stream_datums describe are in no chunk.
    if isinstance(plan.keys[index], range):
        return
    facts = statistics(layout, table)
    wrong = [
        f"{name} {record[name].item()!r} in place of {getattr(facts, name)!r}"
        for name in (COUNTED if layout is EVENT else ("rows",))
        if not equal(record[name].item(), getattr(facts, name))
    ]
    label = f"{layout.kind}s {record['first']:,} to {record['first'] + record['rows'] - 1:,}"
    if wrong:
        yield Damage(f"{label}: the list of chunks says {', '.join(wrong)}")
    if layout is not EVENT or not store.tells_kinds(plan.keys[index]):
        return
    there = column_kinds(table)
    for name in dict.fromkeys((*kinds, *there)):
        if kinds.get(name) != there.get(name):
            key = name.partition(":")[2] or None
            yield Damage(f"{label}: the list of chunks has another column {name!r}", key=key)
