"""The plot described by a run's hints, which are read as bluesky's BestEffortCallback does.

Hints of a plan name the dimensions that were scanned; hints of devices name the fields that matter.
If a plan gives no hints, the motors that it names are the dimensions, or else time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..core.documents import PRIMARY
from ..core.fields import data_keys_of
from ..core.scanned import dimensions_of
from .facts import names_in

TIME_COLUMN = "time"
MOST_PIXELS = 4_000_000
"""Maximum number of points of a map; a plan that claims more is drawn as scattered points."""

Descriptors = Sequence[Mapping[str, Any]]
"""Descriptors of one stream."""


@dataclass(frozen=True)
class Hints:
    """Data keys of a stream to draw, and the axes to draw them along.

    Attributes
    ----------
    stream
        Name of the stream.
    across
        Data keys of the axes: one for a line, the slow and the fast one for a map. ``("time",)``
        if nothing was scanned.
    signals
        Data keys that hold numbers and are named by hints; if there are none, the first data key
        that holds numbers.
    images
        Data keys whose cells are images, as far as descriptors tell.
    shape
        Shape of the map if the plan describes a regular grid; None otherwise.
    extents
        First and last position along each axis of that grid, if the plan gives them.
    snakes
        Whether every other row of the grid was taken backwards.
    """

    stream: str
    across: tuple[str, ...]
    signals: tuple[str, ...]
    images: tuple[str, ...]
    shape: tuple[int, int] | None = None
    extents: tuple[tuple[float, float], tuple[float, float]] | None = None
    snakes: bool = False

    @classmethod
    def of(
        cls,
        start: Mapping[str, Any],
        streams: Mapping[str, Descriptors],
        stream: str | None = None,
    ) -> Hints | None:
        """Return what to draw of a run; None if it has no streams.

        Parameters
        ----------
        start
            Start document of the run.
        streams
            Descriptors of the run by stream, as :attr:`daskbroker.Header.descriptors`.
        stream
            Name of the stream to draw; by default that of the scanned dimensions.
        """
        if not streams:
            return None
        dimensions = dimensions_of(start)
        if len({of_stream for _, of_stream in dimensions}) > 1:
            dimensions = []  # dimensions of different streams have no common rows
        scanned = dimensions[0][1] if dimensions else PRIMARY
        chosen = stream or (scanned if scanned in streams else next(iter(streams)))
        descriptors = streams.get(chosen, ())
        known = set(data_keys_of(descriptors))
        if chosen == scanned:
            fields = [names[0] for names, _ in dimensions] or _fields_of_motors(start, descriptors)
        else:
            fields = []
        across = tuple(field for field in fields if field in known or field == TIME_COLUMN)
        # Over time, unless all dimensions are recorded and they are one or two.
        if len(across) != len(fields) or len(across) not in (1, 2) or TIME_COLUMN in across:
            across = (TIME_COLUMN,)
        moved = {name for names, _ in dimensions for name in names} | set(fields)
        grid = _grid(start) if len(across) == 2 else None
        return cls(
            chosen,
            across,
            _signals(start, descriptors, moved),
            tuple(
                key
                for key, claim in _claims(descriptors).items()
                if key not in moved and is_image_claim(claim)
            ),
            grid,
            _extents(start) if grid else None,
            _snakes(start),
        )


def _claims(descriptors: Descriptors) -> dict[str, Mapping[str, Any]]:
    """Return the entry of each data key in the first descriptor that has it."""
    found: dict[str, Mapping[str, Any]] = {}
    for descriptor in descriptors:
        for key, claim in descriptor["data_keys"].items():
            if isinstance(claim, Mapping):
                found.setdefault(key, claim)
    return found


def is_number_claim(claim: Mapping[str, Any]) -> bool:
    """Whether a data key is declared to hold one number an event."""
    plain = not claim.get("external") and not claim.get("shape")
    return plain and claim.get("dtype") in ("number", "integer", "boolean")


def is_image_claim(claim: Mapping[str, Any]) -> bool:
    """Whether a data key is declared to hold arrays of two dimensions or more."""
    shape = claim.get("shape")
    return isinstance(shape, (list, tuple)) and len(shape) >= 2


def _hinted_fields(descriptor: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    hints = descriptor.get("hints")
    for name, keys in object_keys_of(descriptor).items():
        hint = hints.get(name) if isinstance(hints, Mapping) else None
        fields = hint.get("fields") if isinstance(hint, Mapping) else None
        chosen = fields if isinstance(fields, list) else keys
        found += [key for key in chosen if isinstance(key, str)]
    return found


def object_keys_of(descriptor: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the data keys of each device from a descriptor; empty if it does not tell."""
    given = descriptor.get("object_keys")
    if not isinstance(given, Mapping):
        return {}
    return {
        name: [key for key in keys if isinstance(key, str)]
        for name, keys in given.items()
        if isinstance(keys, list)
    }


def _fields_of_motors(start: Mapping[str, Any], descriptors: Descriptors) -> list[str]:
    """Return the first hinted field of each motor that the plan names."""
    found = []
    for motor in names_in(start, "motors"):
        for descriptor in descriptors:
            keys = object_keys_of(descriptor).get(motor, [])
            hinted = _hinted_fields({**descriptor, "object_keys": {motor: keys}})
            if hinted:
                found.append(hinted[0])
                break
    return found


def roles_of(start: Mapping[str, Any], descriptors: Descriptors) -> dict[str, str]:
    """Return the role of each data key from the plan: ``"motor"``, ``"detector"`` or ``""``."""
    scanned = {name for names, _ in dimensions_of(start) for name in names}
    motors, detectors = names_in(start, "motors"), names_in(start, "detectors")
    found = dict.fromkeys(data_keys_of(descriptors), "")
    for descriptor in descriptors:
        for owner, keys in object_keys_of(descriptor).items():
            role = "motor" if owner in motors else "detector" if owner in detectors else ""
            found.update({key: role for key in keys if role and key in found})
    return found | {key: "motor" for key in found if key in scanned}


def _signals(
    start: Mapping[str, Any], descriptors: Descriptors, moved: set[str]
) -> tuple[str, ...]:
    claims = _claims(descriptors)
    roles = roles_of(start, descriptors)
    numbers = [
        key
        for key, claim in claims.items()
        if is_number_claim(claim) and key not in moved and roles[key] != "motor"
    ]
    hinted = [key for descriptor in descriptors for key in _hinted_fields(descriptor)]
    return tuple(key for key in dict.fromkeys(hinted) if key in numbers) or tuple(numbers[:1])


# -- grids -----------------------------------------------------------------------------------


def _grid(start: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the shape of a regular two-dimensional grid if the plan describes one, else None."""
    hints, shape = start.get("hints"), start.get("shape")
    gridding = hints.get("gridding") if isinstance(hints, Mapping) else None
    if gridding != "rectilinear":
        return None
    if not isinstance(shape, (list, tuple)) or len(shape) != 2:
        return None
    if not all(type(length) is int and length > 0 for length in shape):
        return None
    return (shape[0], shape[1]) if prod(shape) <= MOST_PIXELS else None


def _extents(
    start: Mapping[str, Any],
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    try:
        (a, b), (c, d) = start["extents"]
        return (float(a), float(b)), (float(c), float(d))
    except (KeyError, TypeError, ValueError):
        return None


def _snakes(start: Mapping[str, Any]) -> bool:
    snaking = start.get("snaking")
    return isinstance(snaking, (list, tuple)) and len(snaking) == 2 and bool(snaking[1])
