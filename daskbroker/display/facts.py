"""What is told of a run in a list: of its start and stop documents, without a look at its data.

The documents may be those of any writer, so nothing is expected of what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.clock import seconds_of, show_time
from ..core.run_plan import PRIMARY
from ..core.search import is_derived

__all__ = ["RunFacts", "motors_of", "points_of", "sample_of", "show_duration", "text_of"]

OPEN = "open"


@dataclass(frozen=True)
class RunFacts:
    """What is told of a run.

    Attributes
    ----------
    uid, scan_id, time, plan, sample, motors, points, duration, status
        As text; ``time`` in the zone of the broker, ``points`` as taken or ``taken/planned``.
    is_open
        There is no stop document.
    is_derived
        Its start document says that it was made of other runs.
    """

    uid: str
    scan_id: str
    time: str
    plan: str
    sample: str
    motors: str
    points: str
    duration: str
    status: str
    is_open: bool
    is_derived: bool

    @classmethod
    def of(
        cls, start: Mapping[str, Any], stop: Mapping[str, Any] | None, zone: str = "UTC"
    ) -> RunFacts:
        """Of the documents of a run."""
        return cls(
            uid=text_of(start.get("uid")),
            scan_id=text_of(start.get("scan_id")),
            time=show_time(start.get("time"), zone),
            plan=text_of(start.get("plan_name")),
            sample=sample_of(start),
            motors=", ".join(motors_of(start)),
            points=_show_points(*points_of(start, stop)),
            duration=show_duration(duration_of(start, stop)),
            status=OPEN if stop is None else text_of(stop.get("exit_status")),
            is_open=stop is None,
            is_derived=is_derived(start),
        )

    @property
    def marked_status(self) -> str:
        """The status, and whether the run is derived."""
        return ", ".join([self.status] * bool(self.status) + ["derived"] * self.is_derived)


def text_of(value: Any) -> str:
    """A value of metadata as text; nothing of None."""
    return "" if value is None else str(value)


def sample_of(start: Mapping[str, Any]) -> str:
    """What was measured: the sample's name, else a title."""
    sample = start.get("sample")
    if isinstance(sample, Mapping):
        sample = sample.get("name")
    for value in (sample, start.get("sample_name"), start.get("title")):
        if isinstance(value, (str, int, float)) and value != "":
            return str(value)
    return ""


def dimensions_of(start: Mapping[str, Any]) -> list[tuple[list[str], str]]:
    """``[([field, ...], stream), ...]`` of the hints of a plan, as far as they make sense."""
    hints = start.get("hints")
    given = hints.get("dimensions") if isinstance(hints, Mapping) else None
    found = []
    for entry in given if isinstance(given, (list, tuple)) else ():
        if isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], list):
            fields = [field for field in entry[0] if isinstance(field, str)]
            if fields and isinstance(entry[1], str):
                found.append((fields, entry[1]))
    return found


def names_in(start: Mapping[str, Any], key: str) -> list[str]:
    """A list of names in a start document, such as its ``motors``."""
    given = start.get(key)
    if not isinstance(given, (list, tuple)):
        return []
    return [name for name in given if isinstance(name, str)]


def motors_of(start: Mapping[str, Any]) -> list[str]:
    """The fields that were scanned, by the hints; else the motors that the plan names."""
    scanned = [field for fields, _ in dimensions_of(start) for field in fields if field != "time"]
    return list(dict.fromkeys(scanned or names_in(start, "motors")))


def duration_of(start: Mapping[str, Any], stop: Mapping[str, Any] | None) -> float | None:
    """Seconds from start to stop; None if they are not known."""
    if stop is None:
        return None
    seconds = seconds_of(stop) - seconds_of(start)
    return seconds if math.isfinite(seconds) else None


def show_duration(seconds: float | None) -> str:
    """A duration in the units that suit it, such as ``3 min 20 s``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days:,} d {hours:02} h"


def points_of(
    start: Mapping[str, Any], stop: Mapping[str, Any] | None
) -> tuple[int | None, int | None]:
    """How many events the primary stream (or the only one) has, and how many were planned.

    A derived run repeats the plan of its source, of which it may have other rows.
    """
    counts = (stop or {}).get("num_events")
    taken = None
    if isinstance(counts, Mapping):
        taken = counts.get(PRIMARY)
        if taken is None and len(counts) == 1:
            taken = next(iter(counts.values()))
    return _whole(taken), None if is_derived(start) else _whole(start.get("num_points"))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _show_points(taken: int | None, planned: int | None) -> str:
    if planned is None or taken == planned:
        return "" if taken is None else f"{taken}"
    return f"{'?' if taken is None else taken}/{planned}"
