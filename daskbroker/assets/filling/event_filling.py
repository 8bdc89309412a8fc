"""Fill events and event_pages of one descriptor, with one read of each file per block of cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...core.batches import batched
from ...core.documents import Document
from ...core.errors import FillError
from ...core.external import external_keys, is_stream_key
from ...core.filled import FilledDocument, as_document, read_only
from .contents import CellContents, FilledBlock
from .filling import Filling
from .target import Target

BLOCK_BYTES = 64 * 2**20
"""Maximum bytes of events that are filled at a time, if more than one event."""


def wanted_keys(descriptor: Mapping[str, Any], fields: Collection[str] | None) -> list[str]:
    """Return the external keys of a descriptor, limited to ``fields`` unless None."""
    return [key for key in external_keys(descriptor) if fields is None or key in fields]


def fill_events(
    filling: Filling,
    descriptor: Mapping[str, Any],
    events: Iterable[Mapping[str, Any]],
    keys: Sequence[str],
    run_fraction: float = 0.0,
    later: np.ndarray | None = None,
) -> Iterator[Document]:
    """Yield events of one descriptor with references replaced by data, lazily and block by block.

    As with event-model's Filler, ``filled`` then holds the reference that was replaced. Frames of
    stream_datum documents have no reference: their key is added to ``data``, and ``filled`` is
    True. The values of a block are views of one array. A filled event remembers the original; see
    :mod:`daskbroker.core.filled`.

    Parameters
    ----------
    filling
        Filling of the run.
    descriptor, events
        The descriptor and its events.
    keys
        External keys to fill.
    run_fraction
        Position of the events in the run, from 0 to 1.
    later
        See :attr:`~.contents.CellContents.later`; one item per event.

    Raises
    ------
    FillError
        At the first event that cannot be filled, after all events before it were yielded.
    """
    targets = [Target.of(descriptor, key) for key in keys]
    count = events_in_block(filling, targets)
    begin = 0
    for block in batched(events, count):
        own = None if later is None else later[begin : begin + len(block)]
        begin += len(block)
        yield from _filled_block(filling, targets, block, run_fraction, own)


def events_in_block(filling: Filling, targets: Iterable[Target]) -> int:
    """Return the number of events that are filled at a time; at least 1."""
    size = sum(filling.declared(target).cell_bytes for target in targets)
    return max(1, BLOCK_BYTES // max(1, size))


def _filled_block(
    filling: Filling,
    targets: Sequence[Target],
    block: list[Mapping[str, Any]],
    run_fraction: float,
    later: np.ndarray | None,
) -> Iterator[Document]:
    """Yield some events, filled together.

    If that fails they are bisected, so that all events before the failing one are yielded.
    """
    try:
        found = []
        for target in targets:
            contents = replace(CellContents.of_events(block, target.key), later=later)
            found.append((target, contents, list(filling.blocks(target, contents, run_fraction))))
        filled = list(with_cells(filling, block, found))
    except FillError:
        if len(block) == 1:
            raise
    else:
        yield from filled
        return
    middle = len(block) // 2
    for some in (slice(0, middle), slice(middle, None)):
        own = None if later is None else later[some]
        yield from _filled_block(filling, targets, block[some], run_fraction, own)


def with_cells(
    filling: Filling,
    events: Iterable[Mapping[str, Any]],
    read: Sequence[tuple[Target, CellContents, Sequence[FilledBlock]]],
) -> Iterator[Document]:
    """Yield events with cells in place of references, as :func:`fill_events` does.

    Parameters
    ----------
    filling
        Filling whose rules treat missing cells; events may be left out because of them.
    events
        Events of one descriptor.
    read
        For each key its target, what the events hold, and the blocks that were read for them.
    """
    keys = [target.key for target, *_ in read]
    changes = [_changes(filling, *one) for one in read]
    for event, *values in zip(events, *changes, strict=True):
        if not any(value is LEFT_OUT for value in values):
            yield _changed(event, dict(zip(keys, values, strict=True)))


LEFT_OUT = object()


def _changes(
    filling: Filling, target: Target, contents: CellContents, blocks: Iterable[FilledBlock]
) -> list[Any]:
    """Return the value and ``filled`` of one key for each event.

    The item is None if nothing changes, ``LEFT_OUT`` if the event is dropped.
    """
    rule = filling.rule(target)
    cells, missing = filling.cells_of(target, contents, blocks)
    changes: list[Any] = [None] * len(contents)
    for position, reference in zip(
        contents.referring.tolist(), contents.references.to_pylist(), strict=True
    ):
        changes[position] = read_only(cells[position]), reference
    if is_stream_key(target.claim) or rule.gap == "fill":
        for position in contents.bare.tolist():
            changes[position] = read_only(cells[position]), True
    for position in missing.tolist() if rule.drops else ():
        changes[position] = LEFT_OUT
    return changes


def _changed(event: Mapping[str, Any], values: Mapping[str, tuple[Any, Any] | None]) -> Document:
    new = {key: value for key, value in values.items() if value is not None}
    if not new:
        return as_document(event)
    # The event may be shared with other readers, so it is copied as far as it changes.
    changed = {
        **event,
        "data": {**event["data"], **{key: cell for key, (cell, _) in new.items()}},
        "filled": {
            **(event.get("filled") or {}),
            **{key: reference for key, (_, reference) in new.items()},
        },
    }
    return FilledDocument.of(changed, event)


def fill_page(
    page: Mapping[str, Any], descriptor: Mapping[str, Any], keys: Sequence[str], filling: Filling
) -> Document:
    """Return an event_page with the columns of some keys filled."""
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
        contents = CellContents.of_events(rows, key)
        changes = _changes(filling, target, contents, filling.blocks(target, contents))
        if not any(change is not None for change in changes):
            continue
        pairs = [
            change or (row["data"].get(key), row["filled"].get(key, False))
            for change, row in zip(changes, rows, strict=True)
        ]
        data[key], filled[key] = [cell for cell, _ in pairs], [state for _, state in pairs]
    return FilledDocument.of({**page, "data": data, "filled": filled}, page)
