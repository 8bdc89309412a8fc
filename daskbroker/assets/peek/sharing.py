"""Share what is found in some runs with others of the same sort that were not looked into."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from ...core.chunks import ChunkPlan
from ...core.errors import StoreDamaged
from ...core.external import is_stream_key
from ...core.layouts import RESOURCE, STREAM_RESOURCE, decode_rows
from ...core.peeks import claim_sort
from ...core.run_plan import RunPlan
from ..files.resolving import spec_of
from .groups import Group

Label = tuple[str, str]
"""Uid of the descriptor and data key of a resource group."""
Sorts = Mapping[Label, str]
"""Sort of each resource group."""


def sorts_of(plan: RunPlan, groups: Sequence[Group], most: int) -> Sorts:
    """Return the sort of each group.

    To determine it, the resources of its run are read. If there are more groups than ``most``, they
    are read for some groups of each claim; if these have one sort, all groups of that claim are
    taken to have it.

    To know which resources the datums of a key refer to, all datums would have to be read; so keys
    with datums get the specs of all resources of the run.
    """
    if len(groups) <= most:
        return _read_sorts(plan, groups)
    claims: Sorts = {g.label: claim_sort((), g.target.key, g.target.claim) for g in groups}
    samples = samples_of(groups, claims, most)
    sorts = _read_sorts(plan, samples)
    found: dict[str, set[str]] = {}
    for group in samples:
        found.setdefault(claims[group.label], set()).add(sorts[group.label])
    alike = {claim: next(iter(some)) for claim, some in found.items() if len(some) == 1}
    others = [group for group in groups if claims[group.label] not in alike]
    read = _read_sorts(plan, others)
    return {label: alike.get(claim) or read[label] for label, claim in claims.items()}


def _read_sorts(plan: RunPlan, groups: Sequence[Group]) -> Sorts:
    if not groups:
        return {}
    specs = _specs(plan, {group.target.run for group in groups})
    sorts = {}
    for group in groups:
        target = group.target
        key = target.key if is_stream_key(target.claim) else ""
        sorts[group.label] = claim_sort(specs.get((target.run, key), ()), target.key, target.claim)
    return sorts


def _specs(plan: RunPlan, runs: Collection[str]) -> dict[tuple[str, str], set[str]]:
    """Return specs by run and data key: of stream_resources; those of resources under ""."""
    found: dict[tuple[str, str], set[str]] = {}
    for layout in (RESOURCE, STREAM_RESOURCE):
        planned = plan.references.get(layout.kind)
        if planned is None:
            continue
        owners = [owner["run_start"] for owner in planned.descriptors]
        wanted = planned.of_descriptors([n for n, run in enumerate(owners) if run in runs])
        for index, table in _tables(wanted):
            run = wanted.descriptors[index]["run_start"]
            for doc in decode_rows(layout, table, ""):
                key = str(doc.get("data_key", "")) if layout is STREAM_RESOURCE else ""
                found.setdefault((run, key), set()).add(spec_of(doc))
    return found


def _tables(plan: ChunkPlan) -> Iterator[tuple[int, pa.Table]]:
    """Yield the owner and content of each chunk, except damaged ones, which fail when read."""
    owners = plan.records["descriptor"].tolist()
    done = 0
    with suppress(StoreDamaged):
        for table in plan.read_all():
            yield owners[done], table
            done += 1
    for index in range(done, len(plan)):
        with suppress(StoreDamaged):
            yield owners[index], plan.read(index)


def samples_of(groups: Sequence[Group], sorts: Sorts, most: int) -> list[Group]:
    """Return some groups of each sort, at most ``most`` in all: the first, the last, and between.

    If there are more sorts than that, the most frequent ones are sampled.
    """
    by_sort: dict[str, list[Group]] = {}
    for group in groups:
        by_sort.setdefault(sorts[group.label], []).append(group)
    largest = sorted(by_sort.values(), key=len, reverse=True)[:most]
    chosen: list[Group] = []
    for position, alike in enumerate(largest):
        count = min(len(alike), (most - len(chosen)) // (len(largest) - position))
        positions = np.unique(np.linspace(0, len(alike) - 1, count).round().astype(int))
        chosen.extend(alike[number] for number in positions.tolist())
    return chosen
