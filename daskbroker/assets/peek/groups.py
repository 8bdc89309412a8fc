"""Look into the files of one resource group: those of its first and of its last event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from ...core.chunks import ChunkPlan
from ...core.errors import FillError
from ...core.external import is_stream_key
from ...core.layouts import DATUM
from ...core.peeks import Peek
from ...core.run_plan import RunPlan
from ..filling.contents import CELL_COLUMNS, CellContents
from ..filling.extra import extra_frames
from ..filling.filling import Filling
from ..filling.knowledge import GroupId, cells_noted
from ..filling.target import Target
from ..handlers.contract import Datums
from ..references.locating import CellsOfResource, ReferenceMissing
from .looks import Look, Looked
from .memory import file_state

MOST_CHUNKS = 4
"""Maximum number of chunks that are read from each end to find an event with a reference."""


@dataclass(frozen=True, eq=False)
class Group:
    """A resource group: the cells of one data key of one descriptor.

    Attributes
    ----------
    target
        Descriptor and data key.
    plan, chunks
        Plan of chunks of events, and the indices of the descriptor's chunks in it, at least one.
    """

    target: Target
    plan: ChunkPlan
    chunks: np.ndarray

    @property
    def rows(self) -> int:
        """Number of events."""
        return int(self.plan.records["rows"][self.chunks].sum())

    @property
    def label(self) -> tuple[str, str]:
        """Uid of the descriptor, and data key."""
        return self.target.descriptor, self.target.key


Wanted = Callable[[Mapping[str, Any], str, Mapping[str, Any]], bool]
"""Function of a descriptor, a data key and its claim; returns whether the group is wanted."""


def groups_of(plan: RunPlan, wanted: Wanted = lambda descriptor, key, claim: True) -> list[Group]:
    """Return the wanted resource groups of planned events; those without events are left out."""
    owners = plan.events.records["descriptor"]
    order = np.argsort(owners, kind="stable")
    descriptors, begins = np.unique(owners[order], return_index=True)
    bounds = [*begins.tolist(), len(order)]
    groups = []
    for number, begin, end in zip(descriptors.tolist(), bounds, bounds[1:]):
        descriptor = plan.descriptors[number]
        for key, claim in descriptor["data_keys"].items():
            if claim.get("external") and wanted(descriptor, key, claim):
                groups.append(Group(Target.of(descriptor, key), plan.events, order[begin:end]))
    return groups


def group_id(group: Group, filling: Filling) -> GroupId | None:
    """Return the identity of a group over all stores; None if its run has no references."""
    references = filling.references.get(group.target.run)
    return None if references is None else (references.store, *group.label)


def looks_of(group: Group, filling: Filling) -> list[Look]:
    """Return what to look at of a group: its first and its last cell, joined by resource.

    The list is empty if events have values, or nothing, in place of references.

    Raises
    ------
    FillError
        If a reference cannot be followed, or there is no handler.
    """
    target = group.target
    looks: dict[str, Look] = {}
    asked = _asked(group)
    try:
        # A reference of one end may be missing, as after an aborted run, but not of both.
        ends = list(_ends(group, filling, asked, strict=False)) or list(
            _ends(group, filling, asked, strict=True)
        )
    except ReferenceMissing as error:
        raise FillError(f"{target.where}: {error}") from None
    for found in ends:
        reader = filling.reader(target, found)
        before = looks.get(reader.resource.uid)
        rows = [] if before is None else [*before.datums.rows()]
        rows += [row for row in found.datums.rows() if row not in rows]
        looks[reader.resource.uid] = Look(reader, Datums.of(rows))
    return list(looks.values())


def _asked(group: Group) -> list[str | int]:
    """Return the datum_id or seq_num of the first and of the last event with a reference.

    What both need is read once, as most runs have one chunk of events.
    """
    target, chunks = group.target, group.chunks.tolist()
    contents = cache(partial(_contents, group))
    ends = (_end(target, map(contents, chunks), 0), _end(target, map(contents, chunks[::-1]), -1))
    return list(dict.fromkeys(end for end in ends if end is not None))


def _ends(
    group: Group, filling: Filling, asked: Sequence[str | int], *, strict: bool
) -> Iterator[CellsOfResource]:
    """Yield where the cells of the requested events are; those of one chunk of datums together.

    Unless ``strict``, references that cannot be followed are left out.
    """
    target = group.target
    references = filling.references_of(target)
    datums = [end for end in asked if isinstance(end, str)]
    apart = len(references.keys.get(DATUM.kind, ())) > 1
    for number, some in enumerate([[one] for one in datums] if apart else [datums]):
        if some:
            yield from references.find(pa.array(some, pa.string()), float(number), strict=strict)
    frames = [end for end in asked if not isinstance(end, str)]
    if frames:
        numbers = np.array(frames, np.int64)
        yield from references.find_frames(target.descriptor, target.key, numbers, strict=strict)


def _end(target: Target, chunks: Iterable[CellContents], row: int) -> str | int | None:
    """Return the datum_id or seq_num of the first (0) or last (-1) event with a reference."""
    for contents in islice(chunks, MOST_CHUNKS):
        if len(contents.references):
            return str(contents.references[row % len(contents.references)])
        if len(contents.bare) and is_stream_key(target.claim):
            return int(contents.seq_nums[contents.bare[row]])
    return None


def _contents(group: Group, chunk: int) -> CellContents:
    table = group.plan.read(chunk, [f"data:{group.target.key}", *CELL_COLUMNS])
    return CellContents.of_table(table, group.target.key, external=group.target.external)


def peek_of(
    group: Group,
    filling: Filling,
    sort: str,
    looks: Sequence[Look],
    looked: Sequence[Looked | None],
) -> Peek:
    """Return what was found in a group's files, with cells that computing found before.

    ``looked`` has None for files whose frames are lost. They are looked into again once they have
    changed, or are there.
    """
    spec = looks[0].reader.resource.spec
    seen = [(one, found) for one, found in zip(looks, looked) if found is not None]
    paths = [one.reader.resource.path for one, found in zip(looks, looked) if found is None]
    lost = [file_state(path) or (path, 0, 0) for path in paths]
    states = [found.state for _, found in seen if found.state is not None]
    known = group_id(group, filling)
    noted = () if known is None else cells_noted(known)
    cells = (*(cell for _, found in seen for cell in found.cells), *noted)
    references = filling.references[group.target.run]
    extra = [
        extra_frames(group.target, references, one.reader.resource, one.datums, found.frames)
        for one, found in seen
    ]
    return Peek(
        run=group.target.run,
        descriptor=group.target.descriptor,
        key=group.target.key,
        sort=sort,
        spec=spec,
        handler=filling.handler_reference(spec, group.target.key),
        rows=group.rows,
        cells=tuple(dict.fromkeys(cells)),
        files=tuple(dict.fromkeys([*states, *lost])),
        extra=tuple(dict.fromkeys(one for one in extra if one is not None)),
    )
