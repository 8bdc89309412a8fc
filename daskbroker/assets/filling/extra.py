"""Find files that have more frames than the events of their run, and warn of them while reading.

If a file was peeked into, the peek has these frames. Other files are checked when blocks are read
from them, because they are open then.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

from ...core.bounded_dict import BoundedDict
from ...core.errors import ClaimWarning, FillError, this_worker
from ...core.layouts import STREAM_RESOURCE
from ...core.peeks import ExtraFrames
from ..files.resolving import ResolvedResource
from ..handlers.contract import Datums, FramesThere
from ..references.locating import References
from .blocks import BlockReader
from .knowledge import extra_text
from .target import Target

ADVICE = "Set daskbroker.shape-mismatch to 'raise' for an error instead, or to 'keep' for silence"
"""End of a warning about frames in no event."""

MOST_TOLD = 10_000
"""Number of such keys after which they are forgotten."""

_texts: BoundedDict[tuple[str, ...], str] = BoundedDict()
"""Description of the extra frames of each file that was read, "" if it has none."""
_told: dict[tuple[str, ...], object] = {}
"""Keys of runs for which this process has given a warning."""


def extra_frames(
    target: Target,
    references: References,
    resource: ResolvedResource,
    datums: Datums,
    frames: FramesThere | None,
) -> ExtraFrames | None:
    """Return the frames of a file that belong to no event; None if there are none.

    All datums of a run are read only if the file has frames beyond those of ``datums``.

    Parameters
    ----------
    target, references
        Target that is filled, and the references of its run.
    resource, datums
        Resource, and some of its datums.
    frames
        Number of frames in the file; None if the handler cannot tell.
    """
    if frames is None or frames.per_event < 1 or not len(datums):
        return None
    # Only that column: datums may have others, such as the channel of a spectrum.
    column = {name: cells for name, cells in datums.columns.items() if name == frames.name}
    try:
        position = int(np.max(Datums(column, datums.count).integers(frames.name)))
    except FillError:  # an error when these cells are read, not when runs are opened
        return None
    if frames.frames > frames.up_to(position):
        position = max(position, _last_frame(target, references, resource, frames.name))
    told = frames.up_to(position)
    if frames.frames <= told:
        return None
    of_each, rest = divmod(frames.frames, position + 1 - frames.first)
    fits = frames.option and not rest
    return ExtraFrames(resource.path, frames.frames, told, frames.option, of_each if fits else 0)


def _last_frame(
    target: Target, references: References, resource: ResolvedResource, name: str
) -> int:
    """Return the position of the event that has the last of the frames, in any stream."""
    if not resource.stream:
        return references.last_frame(resource.uid, name)
    document = references.documents(STREAM_RESOURCE, [resource.uid])[resource.uid]
    return references.last_index(target.descriptor, target.key, document)


def tell_extra_frames(
    target: Target,
    references: References,
    reader: BlockReader,
    datums: Datums,
    *,
    strict: bool,
) -> None:
    """Warn of frames in no event in a file that was just read, once per process and key of a run.

    Parameters
    ----------
    target, references, datums
        See :func:`extra_frames`.
    reader
        Reader of the resource, whose handler is kept open.
    strict
        Whether such frames are an error.

    Raises
    ------
    FillError
        If there are such frames and ``strict`` is True.
    """
    group = references.store, target.run, target.descriptor, target.key
    resource, handler = reader.resource, reader.factory.label
    file = *group, resource.uid, resource.path, handler
    text = _texts.get(file)
    if text is None:
        frames = reader.frames_there(datums)
        found = extra_frames(target, references, resource, datums, frames)
        text = extra_text(target.key, handler, [] if found is None else [found])
        _texts[file] = text
    if text and strict:
        raise FillError(
            f"{target.where}, {text}. Set daskbroker.shape-mismatch to 'warn' to leave them out"
        )
    this = object()
    if text and _told.setdefault(group, this) is this:  # for the first of several threads
        if len(_told) > MOST_TOLD:
            _told.clear()
        _warn(f"{target.where}, {text}. {ADVICE}")


def _warn(message: str) -> None:
    """Warn in this process and, from a task on a worker, in the clients of its scheduler."""
    warn = warnings.warn if this_worker() is None else sys.modules["distributed"].warn
    warn(message, ClaimWarning, stacklevel=3)
