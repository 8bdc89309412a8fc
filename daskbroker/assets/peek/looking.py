"""Looking into the files of one resource group: those of its first and of its last event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ...core.chunks import ChunkPlan
from ...core.errors import FillError
from ...core.external import external_keys, is_stream_key
from ...core.peeks import Cell, FileState, Peek
from ...core.run_plan import RunPlan
from ..blocks import look_at_cells
from ..filling import Filling, Target
from ..handlers.base import Datums
from ..held import COLUMNS, Held
from ..references import Found, ReferenceMissing
from ..registry import Factory
from ..resolving import ResolvedResource
from .knowledge import Place, cells_noted
from .memory import file_state

__all__ = ["Group", "Look", "Looked", "groups_of", "look", "looks_of", "peek_of", "place_of"]

MOST_CHUNKS = 4
"""So many chunks are read, from either end, to find an event with a reference."""


@dataclass(frozen=True, eq=False)
class Group:
    """A resource group: the cells of one data key of one descriptor.

    Attributes
    ----------
    target
        Which.
    plan, places
        The chunks of events of a plan that are of the descriptor, at least one.
    """

    target: Target
    plan: ChunkPlan
    places: np.ndarray

    @property
    def rows(self) -> int:
        """Number of events."""
        return int(self.plan.records["rows"][self.places].sum())

    @property
    def label(self) -> tuple[str, str]:
        """Descriptor and data key."""
        return self.target.descriptor, self.target.key


def groups_of(plan: RunPlan) -> list[Group]:
    """The resource groups of planned events, as far as they have events."""
    owners = plan.events.records["descriptor"]
    order = np.argsort(owners, kind="stable")
    descriptors, begins = np.unique(owners[order], return_index=True)
    groups = []
    for number, places in zip(descriptors.tolist(), np.split(order, begins[1:])):
        descriptor = plan.descriptors[number]
        for key in external_keys(descriptor):
            groups.append(Group(Target.of(descriptor, key), plan.events, places))
    return groups


def place_of(group: Group, filling: Filling) -> Place | None:
    """Where a group is, over all stores; None if its run has no references."""
    references = filling.references.get(group.target.run)
    return None if references is None else (references.store, *group.label)


class Look(NamedTuple):
    """One look into a resource, by whoever sees it: small and picklable."""

    resource: ResolvedResource
    factory: Factory
    datums: Datums
    claim: Mapping[str, Any]
    where: str


class Looked(NamedTuple):
    """What was found: cells, and the file as it was, None where there is no single one."""

    cells: list[Cell]
    state: FileState | None


def look(one: Look, keep_open: bool = True) -> Looked:
    """Look into a file, without reading pixels where its handler can tell.

    Raises
    ------
    FillError
    """
    resource, factory, datums, claim, where = one
    cells = look_at_cells(
        resource, factory, datums, data_key=claim, where=where, keep_open=keep_open
    )
    return Looked(cells, file_state(resource.path))


def looks_of(group: Group, filling: Filling) -> list[Look]:
    """What to look at of a group: its first cell, and its last one, which may be of one resource.

    It is nothing where events have values, or nothing, in place of references.

    Raises
    ------
    FillError
        If a reference leads nowhere, or no handler is known.
    """
    target, places = group.target, group.places.tolist()
    try:
        ends = (_found(group, filling, places, 0), _found(group, filling, places[::-1], -1))
    except ReferenceMissing as error:
        raise FillError(f"{target.where}: {error}") from None
    looks: dict[str, Look] = {}
    for found in ends:
        if found is None:
            continue
        resource, factory = filling.handler(target, found)
        before = looks.get(resource.uid)
        rows = [] if before is None else [*before.datums.rows()]
        rows += [row for row in found.datums.rows() if row not in rows]
        looks[resource.uid] = Look(resource, factory, Datums.of(rows), target.claim, target.where)
    return list(looks.values())


def _found(group: Group, filling: Filling, places: Sequence[int], row: int) -> Found | None:
    """Where the cell of the first (0) or last (-1) event with a reference is, if there is one."""
    target = group.target
    references = filling.references.get(target.run)
    if references is None:
        raise ReferenceMissing("the references of this run are not at hand")
    for held in islice(_held(group, places), MOST_CHUNKS):
        if len(held.references):
            datum = held.references.take([row % len(held.references)])
            return next(references.find(datum, float(row != 0)))
        if len(held.bare) and is_stream_key(target.claim):
            number = held.seq_nums[held.bare[[row]]]
            return next(references.find_frames(target.descriptor, target.key, number))
    return None


def _held(group: Group, places: Sequence[int]) -> Iterator[Held]:
    for place in places:
        table = group.plan.read(place, [f"data:{group.target.key}", *COLUMNS])
        yield Held.of_table(table, group.target.key, external=group.target.external)


def peek_of(group: Group, filling: Filling, sort: str, looked: Sequence[Looked], spec: str) -> Peek:
    """What was found of a group, with what computing has found before."""
    place = place_of(group, filling)
    noted = () if place is None else cells_noted(place)
    cells = (*(cell for one in looked for cell in one.cells), *noted)
    return Peek(
        run=group.target.run,
        descriptor=group.target.descriptor,
        key=group.target.key,
        sort=sort,
        spec=spec,
        handler=filling.handler_reference(spec, group.target.key),
        rows=group.rows,
        cells=tuple(dict.fromkeys(cells)),
        files=tuple(dict.fromkeys(one.state for one in looked if one.state is not None)),
    )
