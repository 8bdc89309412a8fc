"""Extra rows if a ``seq_num`` has more frames than events (``duplicates="all"``).

Two files of one key may claim the same ``seq_num``, although its event was recorded once. As each
frame must be shown, the event is repeated as often as it has frames; the copies are kept in
memory and travel with the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..assets.filling.filling import Filling
from ..assets.filling.target import Target
from ..core.chunks import ChunkPlan
from ..core.external import stream_keys
from ..core.layouts import EVENT, encode_rows, iter_rows
from ..core.plan_builder import PlanBuilder, with_chunks


def with_rows_for_frames(plan: ChunkPlan, filling: Filling, keys: Collection[str]) -> ChunkPlan:
    """Return the plan with copies of the events that have more frames than rows.

    Chunks are read only for descriptors whose frames are claimed more than once.

    Parameters
    ----------
    plan
        Plan of events; returned as it is if nothing is to be repeated.
    filling
        Filling of the runs of these events.
    keys
        External keys that are shown.
    """
    builder = PlanBuilder(plan.reader, EVENT, plan.store, plan.descriptors)
    for owner, descriptor in enumerate(plan.descriptors):
        targets = [Target.of(descriptor, key) for key in stream_keys(descriptor) if key in keys]
        targets = [target for target in targets if filling.has_frames_again(target)]
        chunks = np.flatnonzero(plan.records["descriptor"] == owner).tolist()
        if targets and chunks and not isinstance(plan.keys[chunks[0]], range):
            for index, copies in _copies(plan, filling, targets, chunks).items():
                events = list(iter_rows(EVENT, plan.read(index), descriptor["uid"]))
                more = [events[row] for row in copies]
                note = {"run": descriptor["run_start"]}
                table = encode_rows(EVENT, more, note)
                builder.add_table(owner, int(plan.records["first"][index]), table)
    more_rows = builder.plan()
    return with_chunks(plan, more_rows, before=True) if len(more_rows) else plan


def _copies(
    plan: ChunkPlan, filling: Filling, targets: Sequence[Target], chunks: Sequence[int]
) -> Mapping[int, list[int]]:
    """Return the rows to repeat, by chunk: a row occurs in the list once for each extra copy."""
    read = [plan.read(index, ["seq_num"]).column(0).to_numpy() for index in chunks]
    seq_nums = np.concatenate(read)
    frames = np.max([filling.count_frames(target, seq_nums) for target in targets], axis=0)
    _, first, rows = np.unique(seq_nums, return_index=True, return_counts=True)
    again = np.zeros(len(seq_nums), np.int64)
    again[first] = np.maximum(0, frames[first] - rows)
    parts = np.split(again, np.cumsum([len(one) for one in read])[:-1])
    found = {
        index: np.repeat(np.arange(len(part)), part).tolist() for index, part in zip(chunks, parts)
    }
    return {index: copies for index, copies in found.items() if copies}
