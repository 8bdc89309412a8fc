"""Find files that have more frames than the events of their run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...core.layouts import RESOURCE, STREAM_RESOURCE
from ...core.peeks import ExtraFrames
from ..filling.filling import Filling, Target
from ..handlers.contract import FramesThere
from ..references.locating import References
from .looks import Look, Looked

__all__ = ["extra_frames"]


def extra_frames(
    target: Target, filling: Filling, looks: Sequence[Look], looked: Sequence[Looked]
) -> tuple[ExtraFrames, ...]:
    """Return those of the files looked into that have more frames than the documents refer to.

    All datums of a run are read only if a file has frames beyond those of the events that were
    looked at.
    """
    references = filling.references[target.run]
    return tuple(dict.fromkeys(_extra(target, references, looks, looked)))


def _extra(
    target: Target, references: References, looks: Sequence[Look], looked: Sequence[Looked]
) -> Iterator[ExtraFrames]:
    for look, found in zip(looks, looked):
        frames = found.frames
        if frames is None or frames.per_event < 1:
            continue
        place = int(np.max(look.datums.integers(frames.name)))
        if frames.frames > frames.up_to(place):
            place = max(place, _last_place(target, references, look, frames))
        told = frames.up_to(place)
        if frames.frames > told:
            of_each, rest = divmod(frames.frames, place + 1 - frames.first)
            fits = frames.option and not rest
            yield ExtraFrames(
                look.resource.path, frames.frames, told, frames.option, of_each if fits else 0
            )


def _last_place(target: Target, references: References, look: Look, frames: FramesThere) -> int:
    """Return the place of the event that has the last of the frames, in any stream."""
    layout = STREAM_RESOURCE if look.resource.stream else RESOURCE
    resource = references.documents(layout, [look.resource.uid])[look.resource.uid]
    if look.resource.stream:
        return references.last_index(target.descriptor, target.key, resource)
    return references.last_place(resource, frames.name)
