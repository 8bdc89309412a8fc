"""``since`` and ``until``: conversion of instants as users write them to POSIX seconds."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

import numpy as np

from .clock import possible_seconds, zone_of
from .errors import BadQuery
from .printable import shown

__all__ = ["timespan", "timestamp", "zone_of"]

EXAMPLES = "'2026-11-23', '2026-11-23 14:30', '2026-11-23T14:30:00+01:00', POSIX seconds"

_MONTH = re.compile(r"(\d{4})(?:-(\d{1,2}))?")
_DAY = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_WEEK = re.compile(r"\d{4}-?W\d{2}")
_SECONDS = re.compile(r"[+-]?(\d{9,}|\d+\.\d*|\d+(\.\d*)?[eE][+-]?\d+)")
"""A number; fewer than nine digits alone are years, days or mistakes."""
_CLOCK = re.compile(r"[T ](\d{2}(?::?\d{2}){0,2})(?:[.,](\d+))?")
_LENGTHS = {2: 3600.0, 4: 60.0, 6: 1.0}
"""Seconds of the period that a time of day stands for, by its number of digits."""
DATES = ("Y", "M", "W", "D")
"""Units of ``datetime64`` whose values NumPy converts to dates, not to datetimes."""
_HALF = 4.9e-7
"""Seconds by which an instant may differ from its text with microseconds, which is rounded."""


def timespan(
    since: Any, until: Any, zone: str | dt.tzinfo = "UTC"
) -> tuple[float | None, float | None]:
    """Return both ends, inclusive, as POSIX seconds; None for an open end."""
    return (
        None if since is None else timestamp(since, zone),
        None if until is None else timestamp(until, zone, end=True),
    )


def timestamp(value: Any, zone: str | dt.tzinfo = "UTC", *, end: bool = False) -> float:
    """Return an instant as POSIX seconds.

    Parameters
    ----------
    value
        A number of POSIX seconds, a datetime, date, pandas or NumPy timestamp, or text: ISO, a
        number, or what :func:`daskbroker.core.clock.show_time` returns, also of a time that is
        none. Without a zone of its own it is local time of ``zone``.
    zone
        Time zone of the broker.
    end
        Whether a period stands for its last instant rather than its first. Periods are dates, and
        text to the hour, minute, second or a part of it; numbers and datetimes are instants. So is
        a NumPy datetime64, unless its unit is days, weeks, months or years: then it is a date or
        such a period, as it is for NumPy itself. A fraction of a second of a datetime or datetime64
        may have been rounded to the microsecond, as in tables, so half of one is allowed for.

    Raises
    ------
    BadQuery
        If the value is anything else, a number outside of the years 1 to 9999, or a local time
        that a change of the clocks skipped.
    """
    tz = zone_of(zone)
    try:
        found = _instant(value.strip() if isinstance(value, str) else value, tz, end=end)
    except (OverflowError, ValueError) as error:  # years that no calendar of ours has
        # A more exact message was made below.
        if isinstance(error, BadQuery):
            raise
        found = None
    if found is None or not math.isfinite(found):
        raise BadQuery(f"{shown(value)} is not a time; write for example {EXAMPLES}")
    return found


def _instant(value: object, tz: dt.tzinfo, *, end: bool) -> float | None:
    """Return POSIX seconds, or None if the value is not an instant at all."""
    # A bool is an int to isinstance, but no instant.
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (int, float, np.integer, np.floating)):
        return possible_seconds(value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else _from_numpy(value, tz, end=end)
    if isinstance(value, dt.datetime):
        # NaT differs from itself.
        return None if value != value else _from_datetime(value, tz, end=end)
    if isinstance(value, dt.date):
        return _period(value.year, value.month, value.day, tz, end=end)
    return _from_text(value, tz, end=end) if isinstance(value, str) else None


def _from_numpy(value: np.datetime64, tz: dt.tzinfo, *, end: bool) -> float | None:
    # A date stands for the whole day.
    unit: Any = np.datetime_data(value.dtype)
    if unit[0] in DATES:
        day = (value + np.timedelta64(1, unit) if end else value).astype("M8[D]").item()
        # The day is beyond the calendar of Python.
        if not isinstance(day, dt.date):
            return None
        first = _posix(dt.datetime(day.year, day.month, day.day), tz, late=False, gaps=True)
        return math.nextafter(first, -math.inf) if end else first
    moment = value.astype("M8[us]")
    if not isinstance(moment.item(), dt.datetime):
        return None
    return _from_datetime(moment.item(), tz, end=end)


def _from_datetime(moment: dt.datetime, tz: dt.tzinfo, *, end: bool) -> float:
    """Return the POSIX seconds of a datetime, which may come from a table.

    If it has a fraction of a second, that may have been rounded to the microsecond.
    """
    found = _posix(moment, tz, late=end)
    # Whole seconds were not rounded when they were shown.
    if not moment.microsecond:
        return found
    return found + (_HALF if end else -_HALF)


def _from_text(text: str, tz: dt.tzinfo, *, end: bool) -> float:
    text, _, hint = text.partition(" (")  # which show_time gives of a number that is no time
    month = _MONTH.fullmatch(text)
    if month:
        return _period(int(month[1]), int(month[2]) if month[2] else None, None, tz, end=end)
    # After years, which are numbers too.
    if _SECONDS.fullmatch(text):
        return float(text) if hint else possible_seconds(text)
    day = _DAY.fullmatch(text)
    if day:
        return _period(int(day[1]), int(day[2]), int(day[3]), tz, end=end)
    clock = _CLOCK.search(text)
    # A date in another form of ISO 8601, perhaps of a week.
    if clock is None:
        first = dt.date.fromisoformat(text)
        last = first + dt.timedelta(days=6 if end and _WEEK.fullmatch(text) else 0)
        return _period(last.year, last.month, last.day, tz, end=end)
    moment = _posix(dt.datetime.fromisoformat(text), tz, late=end)
    digits = clock[2] or ""
    # The text may have been rounded to microseconds, as shown times are.
    if len(digits) >= 6:
        return moment + (_HALF if end else -_HALF)
    length = 10.0 ** -len(digits) if digits else _LENGTHS[len(clock[1].replace(":", ""))]
    # The end of the period that the digits stand for.
    return math.nextafter(moment + length, -math.inf) if end else moment


def _period(year: int, month: int | None, day: int | None, tz: dt.tzinfo, *, end: bool) -> float:
    """Return the first or last instant of a year, month or day."""
    first = dt.datetime(year, month or 1, day or 1)
    # The first instant; the clock may skip it, then the next one counts.
    if not end:
        return _posix(first, tz, late=end, gaps=True)
    if day is not None:
        after = first + dt.timedelta(days=1)
    elif month is not None:
        after = dt.datetime(year + month // 12, month % 12 + 1, 1)
    else:
        after = dt.datetime(year + 1, 1, 1)
    return math.nextafter(_posix(after, tz, late=False, gaps=True), -math.inf)


def _posix(moment: dt.datetime, tz: dt.tzinfo, *, late: bool, gaps: bool = False) -> float:
    """Return the POSIX seconds of a datetime, local to ``tz`` if it has no zone.

    If the clocks show a time twice, it is the later one if ``late``, as for ``until``, else the
    earlier. A time that they skip is an error unless ``gaps``, as at the bounds of dates.
    """
    # It has its own zone.
    if moment.tzinfo is not None:
        return moment.timestamp()
    local = moment.replace(tzinfo=tz, fold=int(late))
    back = dt.datetime.fromtimestamp(local.timestamp(), tz)
    # The clock was put forward past this time of day.
    if back.replace(tzinfo=None, fold=0) != moment.replace(fold=0) and not gaps:
        raise BadQuery(
            f"the clocks of {tz} skipped {moment}; give the zone, as in '{moment}+00:00'"
        )
    return local.timestamp()
