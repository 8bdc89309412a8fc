"""Filling events and event_pages of one descriptor, a block of cells in one read of each file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..core.documents import Document
from ..core.external import external_keys, is_stream_key
from .filling import Filling, Target
from .held import Held

__all__ = ["events_in_block", "fill_events", "fill_page", "wanted_keys", "with_cells"]

BLOCK_BYTES = 64 * 2**20
"""Events are filled so many bytes at a time, but one at least."""


def wanted_keys(descriptor: Mapping[str, Any], fields: Collection[str] | None) -> list[str]:
    """External keys of a descriptor; only those named, if any are."""
    return [key for key in external_keys(descriptor) if fields is None or key in fields]


def fill_events(
    filling: Filling,
    descriptor: Mapping[str, Any],
    events: Iterable[Mapping[str, Any]],
    keys: Sequence[str],
    near: float = 0.0,
) -> Iterator[Document]:
    """Events of one descriptor with external data in place of references, block by block. Lazy.

    As event-model's Filler does it, ``filled`` then holds the reference that was replaced. Frames
    that stream_datum documents tell of have no reference: their key comes into ``data``, and
    ``filled`` is True. The values of a block are views of one array.

    Parameters
    ----------
    filling, descriptor, events
        How, and what.
    keys
        External keys to fill.
    near
        Where in the run the events are, from 0 to 1.

    Raises
    ------
    FillError
    """
    targets = [Target.of(descriptor, key) for key in keys]
    count = events_in_block(filling, targets)
    coming = iter(events)
    while block := list(islice(coming, count)):
        found = []
        for target in targets:
            held = Held.of_events(block, target.key)
            found.append((target, held, filling.cells(target, held, near)))
        yield from with_cells(block, found)


def events_in_block(filling: Filling, targets: Iterable[Target]) -> int:
    """How many events are filled at a time."""
    size = sum(filling.declared(target).cell_bytes for target in targets)
    return max(1, BLOCK_BYTES // max(1, size))


def with_cells(
    events: Iterable[Mapping[str, Any]], found: Sequence[tuple[Target, Held, np.ndarray]]
) -> Iterator[Document]:
    """Events with cells in place of references, as :func:`fill_events` gives them.

    Parameters
    ----------
    events
        Of one descriptor.
    found
        Of each key what the events hold, and the cells that were read for them.
    """
    keys = [target.key for target, *_ in found]
    changes = [_changes(*one) for one in found]
    for event, *values in zip(events, *changes, strict=True):
        yield Document(_changed(event, dict(zip(keys, values, strict=True))))


def _changes(target: Target, held: Held, cells: np.ndarray) -> list[tuple[Any, Any] | None]:
    """Value and ``filled`` of one key for each event; None where nothing changes."""
    changes: list[tuple[Any, Any] | None] = [None] * len(held)
    for place, reference in zip(held.referring.tolist(), held.references.to_pylist(), strict=True):
        changes[place] = cells[place], reference
    if is_stream_key(target.claim):
        for place in held.bare.tolist():
            changes[place] = cells[place], True
    return changes


def _changed(
    event: Mapping[str, Any], values: Mapping[str, tuple[Any, Any] | None]
) -> Mapping[str, Any]:
    new = {key: value for key, value in values.items() if value is not None}
    if not new:
        return event
    return {
        **event,
        "data": {**event["data"], **{key: cell for key, (cell, _) in new.items()}},
        "filled": {
            **(event.get("filled") or {}),
            **{key: reference for key, (_, reference) in new.items()},
        },
    }


def fill_page(
    page: Mapping[str, Any], descriptor: Mapping[str, Any], keys: Sequence[str], filling: Filling
) -> dict[str, Any]:
    """An event_page with the columns of some keys filled."""
    data, filled = dict(page["data"]), dict(page.get("filled") or {})
    for key in keys:
        target = Target.of(descriptor, key)
        values, states = data.get(key), filled.get(key)
        rows = [
            {
                "seq_num": seq_num,
                "data": {} if values is None else {key: values[row]},
                "filled": {} if states is None else {key: states[row]},
            }
            for row, seq_num in enumerate(page["seq_num"])
        ]
        held = Held.of_events(rows, key)
        changes = _changes(target, held, filling.cells(target, held))
        if not any(change is not None for change in changes):
            continue
        pairs = [
            change or (row["data"].get(key), row["filled"].get(key, False))
            for change, row in zip(changes, rows, strict=True)
        ]
        data[key], filled[key] = [cell for cell, _ in pairs], [state for _, state in pairs]
    return {**page, "data": data, "filled": filled}
