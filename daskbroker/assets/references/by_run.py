"""References of some runs by uid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...core.chunks import ChunkPlan, ChunkReader
from .locating import References


class _Kind(NamedTuple):
    """Chunk keys of one kind of reference: those of a run are between two bounds."""

    name: str
    indices: Mapping[str, int]
    bounds: list[int]
    keys: tuple[Any, ...]


class ReferencesByRun(Mapping[str, References]):
    """References of the runs of a plan, by uid.

    Those of a run are made when they are first looked up: opening thousands of runs makes none.

    Parameters
    ----------
    plans
        Chunk plan of each kind of reference, as in a RunPlan.
    """

    def __init__(self, plans: Mapping[str, ChunkPlan]) -> None:
        self._store = ""
        self._reader: ChunkReader | None = None
        self._kinds: list[_Kind] = []
        self._runs: dict[str, None] = {}
        self._made: dict[str, References] = {}
        owners: tuple[Any, ...] = ()
        indices: dict[str, int] = {}
        for kind, plan in plans.items():
            if plan.descriptors != owners:  # the same objects, as a rule
                owners = plan.descriptors
                indices = {owner["run_start"]: n for n, owner in enumerate(owners)}
                self._runs |= dict.fromkeys(indices)
            bounds = np.searchsorted(plan.records["descriptor"], np.arange(len(owners) + 1))
            self._store = plan.store
            self._reader, keys = plan.reader.stored(plan.keys)
            self._kinds.append(_Kind(kind, indices, bounds.tolist(), tuple(keys)))

    def __getitem__(self, run: str) -> References:
        if run not in self._made:
            if run not in self._runs or self._reader is None:
                raise KeyError(run)
            keys = {kind.name: _keys_of(kind, run) for kind in self._kinds}
            found = {name: some for name, some in keys.items() if some}
            self._made[run] = References(run, self._store, self._reader, found)
        return self._made[run]

    def __contains__(self, run: object) -> bool:
        return run in self._runs

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (dict(self),))

    @property
    def facts(self) -> tuple[Any, ...]:
        """See :func:`facts_of`."""
        kinds = [(kind.name, kind.bounds, kind.keys) for kind in self._kinds]
        return (self._store, list(self._runs), kinds)


def facts_of(references: Mapping[str, References]) -> Any:
    """Return plain values whose text changes when references are added, for tokens."""
    if isinstance(references, ReferencesByRun):
        return references.facts
    return [(run, found.facts) for run, found in references.items()]


def _keys_of(kind: _Kind, run: str) -> tuple[Any, ...]:
    index = kind.indices.get(run)
    return () if index is None else kind.keys[kind.bounds[index] : kind.bounds[index + 1]]
