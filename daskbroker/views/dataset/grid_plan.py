"""The grid of a scan as its start document describes it: axes, lengths, order and positions.

Read are ``shape``, ``hints.dimensions``, ``hints.gridding`` and ``snaking``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...core.errors import BadQuery

SEQUENTIAL = (None, "rectilinear")
"""Values of ``hints.gridding`` with points in the order of the axes."""


@dataclass(frozen=True)
class Grid:
    """A grid as the start document describes it.

    Attributes
    ----------
    run
        Uid of the run, for messages.
    shape
        Number of points along each axis, the slowest first.
    motors
        Names of the fields that move along each axis.
    snaking
        Whether every other pass along each axis goes backwards.
    positions
        Planned positions of the first motor of each axis; None if they are not known.
    """

    run: str
    shape: tuple[int, ...]
    motors: tuple[tuple[str, ...], ...]
    snaking: tuple[bool, ...]
    positions: tuple[np.ndarray | None, ...]

    @classmethod
    def of(cls, start: Mapping[str, Any], stream: str) -> Grid:
        """Return the grid of a stream of a run.

        Raises
        ------
        BadQuery
            If the stream is not a grid; the message says what is missing.
        """
        refuse = GridRefusal(start["uid"], stream)
        hints = start.get("hints")
        hints = hints if isinstance(hints, Mapping) else {}
        motors = _motors(hints.get("dimensions"), stream, refuse)
        if hints.get("gridding") not in SEQUENTIAL:
            raise refuse(
                f"hints.gridding is {hints['gridding']!r}: the points are not in the axes' order"
            )
        shape: Any = start.get("shape")
        # Plans of one axis state the number of points alone.
        if shape is None and len(motors) == 1:
            shape = [start.get("num_points")]
        if not _is_shape(shape):
            one_axis = ", or start.num_points a number" if len(motors) == 1 else ""
            given = start.get("shape")
            raise refuse(f"start.shape must be a list of numbers, not {given!r:.80}{one_axis}")
        if len(shape) != len(motors):
            raise refuse(
                f"start.shape {list(shape)} has {len(shape)} axes, hints.dimensions {len(motors)}"
            )
        return cls(
            str(start["uid"]),
            tuple(shape),
            motors,
            _snaking(start, len(shape), refuse),
            _positions(start, tuple(shape)),
        )

    @property
    def size(self) -> int:
        """Number of points of the whole grid."""
        return prod(self.shape)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(names[0] for names in self.motors)

    def flat_index(self, points: np.ndarray) -> np.ndarray:
        """Return the flat C-order index in the grid of some points of the scan.

        Points are numbered from 0, in the order in which they are taken.
        """
        found = np.zeros(len(points), np.int64)
        for axis, length in enumerate(self.shape):
            turn, at = np.divmod(points // prod(self.shape[axis + 1 :]), length)
            if self.snaking[axis]:
                at = np.where(turn % 2, length - 1 - at, at)
            found = found * length + at
        return found


@dataclass(frozen=True)
class GridRefusal:
    """Function that makes errors that name run and stream."""

    run: str
    stream: str

    def __call__(self, why: str) -> BadQuery:
        return BadQuery(f"run {self.run!r}, stream {self.stream!r} is not a grid: {why}")


def _motors(dimensions: object, stream: str, refuse: GridRefusal) -> tuple[tuple[str, ...], ...]:
    if not isinstance(dimensions, list) or not dimensions:
        raise refuse("hints.dimensions, which names the motors of each axis, is missing")
    found: list[tuple[str, ...]] = []
    for entry in dimensions:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], list):
            raise refuse(f"hints.dimensions has {entry!r:.80} in place of [[motors], stream]")
        fields, where = entry
        names = tuple(name for name in fields if isinstance(name, str) and name != "time")
        if not names:
            raise refuse(f"hints.dimensions has an axis without a motor, {entry!r:.80}")
        if where != stream:
            raise refuse(f"hints.dimensions is of the stream {where!r}")
        again = [name for name in names if any(name in others for others in found)]
        if again:
            raise refuse(f"hints.dimensions has {again[0]!r:.80} for two axes")
        found.append(names)
    return tuple(found)


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and bool(shape) and all(type(n) is int and n > 0 for n in shape)


def _snaking(start: Mapping[str, Any], axes: int, refuse: GridRefusal) -> tuple[bool, ...]:
    """Return whether each axis snakes.

    list_grid_scan records only ``snake_axes``, as the text of a Python value.
    """
    snaking = start.get("snaking")
    if snaking is None:
        told = start.get("snake_axes")
        if told not in (None, "True", "False", True, False):
            raise refuse(f"start.snaking is missing, and start.snake_axes is {told!r:.80}")
        snaking = [False] + [told in ("True", True)] * (axes - 1)
    if not isinstance(snaking, (list, tuple)) or len(snaking) != axes:
        raise refuse(f"start.snaking must have a value for each axis, not {snaking!r:.80}")
    return tuple(bool(one) for one in snaking)


def _positions(start: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[np.ndarray | None, ...]:
    """Return the planned positions along each axis; None if they are not known.

    Those of relative scans are relative to where the scan began.
    """
    listed_ones = _listed_positions(start, shape)
    extents = start.get("extents")
    found: list[np.ndarray | None] = []
    for axis, length in enumerate(shape):
        given = listed_ones[axis] if listed_ones else None
        if given is None and isinstance(extents, list) and len(extents) == len(shape):
            ends = extents[axis]
            if isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends)):
                given = np.linspace(ends[0], ends[1], length)
        found.append(given)
    return tuple(found)


def _listed_positions(
    start: Mapping[str, Any], shape: tuple[int, ...]
) -> list[np.ndarray | None] | None:
    """Return the positions of plans that go through lists of them; None for other plans."""
    arguments = start.get("plan_pattern_args")
    args = arguments.get("args") if isinstance(arguments, Mapping) else None
    if not isinstance(args, list):
        return None
    lists = [item for item in args if isinstance(item, list) and all(map(_is_number, item))]
    if [len(positions) for positions in lists] != list(shape):
        return None
    return [np.array(positions, dtype=float) for positions in lists]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
