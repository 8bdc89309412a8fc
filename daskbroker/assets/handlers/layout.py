"""How the frames of a stream resource are divided into events: one rule for all formats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import FillError
from ..regions import Roi

JOINS = ("concat", "stack")
MOST_FRAMES = 2**31
"""Maximum number of frames of an event, as lengths of arrays and products of them must not
overflow."""
_ITEM = re.compile(r"(-?\d+)?(:)?(-?\d+)?(:)?(-?\d+)?")


def frame_count(given: Any, name: str) -> int:
    """Return the number of frames of an event that a document gives.

    Raises
    ------
    FillError
        If it is not a whole number of at least 0, or is too large to be true.
    """
    try:
        count = int(given)
        if 0 <= count <= MOST_FRAMES and (isinstance(given, str) or count == given):
            return count
    except (TypeError, ValueError, OverflowError):
        pass
    raise FillError(
        f"{name!r}, the number of frames of an event, must be a whole number from 0 to "
        f"{MOST_FRAMES:,}, not {given!r:.100}"
    )


@dataclass(frozen=True)
class EventLayout:
    """Division of frames into events, from a descriptor's entry and a stream resource's parameters.

    The rule is that of Bluesky's consolidators. With ``concat`` the data key's shape begins with
    the number m of frames of an event, and event i has frames i*m to (i+1)*m - 1 along an axis
    of its own. With ``stack`` each event is one frame, without such an axis. ``multiplier`` is m
    if the shape does not begin with it. If the shape has fewer dimensions than the file, the
    writer left the axis of frames out, and each event is one frame, or ``multiplier`` frames if
    that is more than one.

    Attributes
    ----------
    shape
        Shape of the data key, with the multiplier applied; None for an unknown length.
    join
        ``"concat"`` or ``"stack"``.
    multiplier
        Number of frames of an event that the writer or the caller gives; 0 if none is given.
    """

    shape: tuple[int | None, ...]
    join: str
    multiplier: int = 0

    @classmethod
    def of(
        cls, data_key: Mapping[str, Any] | None, join_method: str, multiplier: int | None
    ) -> EventLayout:
        """Build from a descriptor's entry and a stream resource's parameters.

        Raises
        ------
        FillError
            If ``join_method`` is unknown or the data key's shape is not a valid shape.
        """
        if join_method not in JOINS:
            raise FillError(f"join_method must be one of {', '.join(JOINS)}, not {join_method!r}")
        shape = tuple((data_key or {}).get("shape") or ())
        if not all(size is None or isinstance(size, int) for size in shape):
            raise FillError(f"the data key's shape {shape!r} is not valid")
        if 0 in shape[1:]:
            shape = ()  # as [width, height, 0] of old, whose first length counts no frames
        shape = tuple(n if n is not None and 0 < n <= MOST_FRAMES else None for n in shape)
        count = 0 if multiplier is None else frame_count(multiplier, "multiplier")
        if count and shape[:1] != (count,):
            rest = shape[1:] if shape[:1] == (1,) else shape
            shape = (count, *rest)
        return cls(shape, join_method, count)

    def frames_per_event(self, dimensions: int) -> int | None:
        """Return the number m of frames of an event; None: one frame without an axis of its own.

        Parameters
        ----------
        dimensions
            Number of dimensions of the file's dataset, including the axis of frames.
        """
        if self.join == "stack":
            return None
        if not self.shape or len(self.shape) < dimensions:
            return self.multiplier if self.multiplier > 1 else None
        return 1 if self.shape[0] is None else self.shape[0]

    @staticmethod
    def first_index(indices: tuple[int, int], rows: int, per_event: int | None) -> int:
        """Return the index of the event that has the file's first frame.

        A resource that continues another one counts its events on from it, but its file may hold
        only its own frames. This is assumed if the file has too few frames for counting from 0.

        Parameters
        ----------
        indices
            First index of the resource, and the one after its last.
        rows
            Number of frames in the file.
        per_event
            Result of :meth:`frames_per_event`.
        """
        first, stop = indices
        return first if rows < stop * (1 if per_event is None else per_event) else 0


def parse_slice(text: str | Sequence[str]) -> Roi:
    """Return the region that a ``slice`` parameter such as ``":, 5, ::2"`` describes.

    Raises
    ------
    FillError
        If it is not a valid region.
    """
    if not text:
        return ()
    items = text.strip().strip("[]()").split(",") if isinstance(text, str) else text
    return tuple(_item(str(item).strip(), text) for item in items)


def _item(text: str, item: object) -> slice | int:
    match = _ITEM.fullmatch(text)
    if match is None or not text or (match[1] is None and match[2] is None):
        raise FillError(
            f"the parameter 'slice' {item!r} is not valid; write for example ':, 5, ::2'"
        )
    if match[2] is None:
        return int(match[1])
    start, stop, step = (None if part is None else int(part) for part in match.group(1, 3, 5))
    if step == 0:
        raise FillError(f"the parameter 'slice' {item!r} has a step of 0")
    return slice(start, stop, step)
