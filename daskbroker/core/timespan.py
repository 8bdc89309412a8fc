"""``since`` and ``until``: instants as users write them, as POSIX seconds."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from .errors import BadQuery, ConfigError

__all__ = ["timespan", "timestamp", "zone_of"]

_PARTIAL = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?$")
EXAMPLES = "'2026-11-23', '2026-11-23 14:30', '2026-11-23T14:30:00+01:00', POSIX seconds"


def zone_of(name: str | dt.tzinfo) -> dt.tzinfo:
    """A time zone by its IANA name.

    Raises
    ------
    ConfigError
        For a name that no zone has.
    """
    if isinstance(name, dt.tzinfo):
        return name
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigError(
            f"there is no time zone {name!r}; use a name such as 'Europe/Berlin'"
        ) from None


def timespan(
    since: Any, until: Any, zone: str | dt.tzinfo = "UTC"
) -> tuple[float | None, float | None]:
    """Both ends, inclusive, as POSIX seconds; None where open."""
    return (
        None if since is None else timestamp(since, zone),
        None if until is None else timestamp(until, zone, end=True),
    )


def timestamp(value: Any, zone: str | dt.tzinfo = "UTC", *, end: bool = False) -> float:
    """An instant as POSIX seconds.

    Parameters
    ----------
    value
        A number of POSIX seconds, a datetime, date, pandas or NumPy timestamp, or ISO text.
        Without a zone of its own it is local time of ``zone``.
    zone
        Of the broker.
    end
        A year, month, day or minute stands for its last instant rather than its first.

    Raises
    ------
    BadQuery
        For anything else, and for a local time that a change of the clocks left out.
    """
    tz = zone_of(zone)
    try:
        found = _instant(value.strip() if isinstance(value, str) else value, tz, end)
    except (OverflowError, ValueError) as error:  # years that no calendar of ours has
        if isinstance(error, BadQuery):
            raise
        found = None
    if found is None or not math.isfinite(found):
        raise BadQuery(f"{_shown(value)} is no instant; write for example {EXAMPLES}")
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:100]}…"


def _instant(value: Any, tz: dt.tzinfo, end: bool) -> float | None:
    """POSIX seconds; None for what is no instant at all."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (int, float, np.integer, np.floating)):
        return float(value)
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            return None
        value = dt.datetime(1970, 1, 1) + dt.timedelta(
            microseconds=int(value.astype("datetime64[us]").astype(np.int64))
        )
    if isinstance(value, dt.datetime):
        return None if value != value else _posix(value, tz, end)  # NaT differs from itself
    if isinstance(value, dt.date):
        return _period(value.year, value.month, value.day, tz, end)
    return _from_text(value, tz, end) if isinstance(value, str) else None


def _from_text(text: str, tz: dt.tzinfo, end: bool) -> float:
    partial = _PARTIAL.match(text)
    if partial:
        year, month, day = (int(part) if part else None for part in partial.groups())
        return _period(year or 0, month, day, tz, end)
    if re.fullmatch(r"\d{8}", text):
        day_meant = dt.date.fromisoformat(text)
        return _period(day_meant.year, day_meant.month, day_meant.day, tz, end)
    moment = _posix(dt.datetime.fromisoformat(text), tz, end)
    whole_minute = re.search(r"\d{1,2}:\d{2}(?!:?\d)", text) and not re.search(
        r":\d{2}:\d{2}", text
    )
    return math.nextafter(moment + 60, -math.inf) if end and whole_minute else moment


def _period(year: int, month: int | None, day: int | None, tz: dt.tzinfo, end: bool) -> float:
    """First or last instant of a year, month or day."""
    first = dt.datetime(year, month or 1, day or 1)
    if not end:
        return _posix(first, tz, end, gaps=True)
    if day is not None:
        after = first + dt.timedelta(days=1)
    elif month is not None:
        after = dt.datetime(year + month // 12, month % 12 + 1, 1)
    else:
        after = dt.datetime(year + 1, 1, 1)
    return math.nextafter(_posix(after, tz, False, gaps=True), -math.inf)


def _posix(moment: dt.datetime, tz: dt.tzinfo, late: bool, *, gaps: bool = False) -> float:
    """POSIX seconds of a datetime, local to ``tz`` if it has no zone.

    Of a time that the clocks show twice, ``since`` means the earlier, ``until`` the later.
    """
    if moment.tzinfo is not None:
        return moment.timestamp()
    local = moment.replace(tzinfo=tz, fold=int(late))
    back = dt.datetime.fromtimestamp(local.timestamp(), tz)
    if back.replace(tzinfo=None, fold=0) != moment.replace(fold=0) and not gaps:
        raise BadQuery(
            f"the clocks of {tz} never showed {moment}; give the zone, as in '{moment}+00:00'"
        )
    return local.timestamp()
