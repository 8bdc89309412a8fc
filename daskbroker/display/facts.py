"""Facts of a run that lists show, taken from its start and stop documents without its data.

The documents may come from any writer, so no key or type is taken for granted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.clock import seconds_of, show_time
from ..core.documents import PRIMARY
from ..core.scanned import dimensions_of
from ..core.search import OPEN, is_derived


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run that a list shows.

    Attributes
    ----------
    uid, scan_id, time, plan, sample, motors, points, duration, status
        Facts as text: ``time`` in the zone of the broker, ``points`` as ``taken`` or
        ``taken/planned``. A fact that is not known is empty.
    is_open
        Whether the run has no stop document.
    is_derived
        Whether its start document says that it was made from other runs.
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
        """Collect the facts from the documents of a run."""
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
        """The status, with ``derived`` if the run is derived."""
        return ", ".join([self.status] * bool(self.status) + ["derived"] * self.is_derived)


def text_of(value: Any) -> str:
    """Return a value of metadata as text; None as an empty text."""
    return "" if value is None else str(value)


def sample_of(start: Mapping[str, Any]) -> str:
    """Return the name of the sample, else the title of the run, else an empty text."""
    sample = start.get("sample")
    if isinstance(sample, Mapping):
        sample = sample.get("name")
    for value in (sample, start.get("sample_name"), start.get("title")):
        if isinstance(value, (str, int, float)) and value != "":
            return str(value)
    return ""


def names_in(start: Mapping[str, Any], key: str) -> list[str]:
    """Return the names in a list of a start document, such as its ``motors``."""
    given = start.get(key)
    if not isinstance(given, (list, tuple)):
        return []
    return [name for name in given if isinstance(name, str)]


def motors_of(start: Mapping[str, Any]) -> list[str]:
    """Return the scanned fields, from the hints; else the motors that the plan names."""
    scanned = [field for fields, _ in dimensions_of(start) for field in fields if field != "time"]
    return list(dict.fromkeys(scanned or names_in(start, "motors")))


def duration_of(start: Mapping[str, Any], stop: Mapping[str, Any] | None) -> float | None:
    """Return the seconds from start to stop; None if they are not known."""
    if stop is None:
        return None
    seconds = seconds_of(stop) - seconds_of(start)
    return seconds if math.isfinite(seconds) else None


def show_duration(seconds: float | None) -> str:
    """Return a duration as text in suitable units, such as ``3 min 20 s``."""
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
    """Return the numbers of events taken in the primary stream (or the only one) and planned.

    Each is None if it is not known. The number planned is ignored for a derived run, which repeats
    the plan of its source but may have other rows.
    """
    counts = (stop or {}).get("num_events")
    taken = None
    if isinstance(counts, Mapping):
        taken = counts.get(PRIMARY)
        if taken is None and len(counts) == 1:
            taken = next(iter(counts.values()))
    return _count_of(taken), None if is_derived(start) else _count_of(start.get("num_points"))


def _count_of(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _show_points(taken: int | None, planned: int | None) -> str:
    if planned is None or taken == planned:
        return "" if taken is None else f"{taken}"
    return f"{'?' if taken is None else taken}/{planned}"
