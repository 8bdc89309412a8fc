"""Time zones, and the display of times in them.

Documents hold POSIX seconds and tables hold UTC. A zone is for what people read and write:
:func:`show_time` displays every time, :mod:`daskbroker.core.timespan` parses times, and parses
all that :func:`show_time` displays.

pandas is imported by the functions that need it: lists of runs are made without it.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from .errors import BadQuery, ConfigError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
EARLIEST_SECONDS, LATEST_SECONDS = -62_135_596_800.0, 253_402_300_800.0
"""POSIX seconds of the years that the calendars of Python, pandas and Arrow share: 1 to 9999."""
LOCAL = ("local", "localtime")
UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_OFFSET = re.compile(r"([+-])(\d{2}):([0-5]\d)")


# -- zones -----------------------------------------------------------------------------------


def zone_of(name: str | dt.tzinfo) -> dt.tzinfo:
    """Return the time zone of an IANA name, or of an offset such as ``"+01:00"``.

    Raises
    ------
    ConfigError
        If no zone has the name.
    """
    # Given as a zone already.
    if isinstance(name, dt.tzinfo):
        return name
    try:
        offset = _OFFSET.fullmatch(name)
        if offset is None:
            return ZoneInfo(name)
        delta = dt.timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return dt.timezone(-delta if offset[1] == "-" else delta)
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigError(
            f"there is no time zone {name!r}; use a name such as 'Europe/Berlin', an offset such "
            "as '+01:00', or 'local' for the zone of this machine"
        ) from None


def resolved_zone(name: str) -> str:
    """Return the name of a zone that means the same on every machine.

    ``"local"`` becomes the IANA name of this machine's zone or, if that cannot be determined, its
    present offset from UTC. Any other name is returned as it is.

    Raises
    ------
    ConfigError
        If no zone has the name.
    """
    # Only the machine's own zone needs to be looked up.
    if name not in LOCAL:
        zone_of(name)
        return name
    now = dt.datetime.now().astimezone()
    for candidate in _local_names():
        try:
            # A name that disagrees with the machine's clock is not used.
            if now.astimezone(ZoneInfo(candidate)).utcoffset() == now.utcoffset():
                return candidate
        # The name is not known to the database of zones here.
        except (OSError, ValueError, KeyError):
            continue
    return now.isoformat()[-6:] if now.utcoffset() else "UTC"


def _local_names() -> Iterator[str]:
    """Yield candidates for the name of this machine's zone, as the C library looks for it."""
    chosen = os.environ.get("TZ")
    # The variable goes before the files, as in the C library.
    if chosen is not None:
        yield chosen.removeprefix(":").rpartition("zoneinfo/")[2] or "UTC"
        return
    yield os.path.realpath("/etc/localtime").rpartition("zoneinfo/")[2]
    # If the former is a copy and no link, it has no name; Debian has the name in another file.
    try:
        yield Path("/etc/timezone").read_text(encoding="utf8").strip()
    except (OSError, ValueError):
        return


# -- showing ---------------------------------------------------------------------------------


def seconds_of(doc: Mapping[str, Any], default: float = -math.inf) -> float:
    """Return the time of a document in POSIX seconds, or the default if it has no valid one.

    A document of another writer's database may have none. The default sorts before all others.
    """
    value = doc.get("time")
    # A bool is an int to isinstance, but no time.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    try:
        return default if math.isnan(value) else float(value)
    # An integer beyond floats; it sorts as the farthest time.
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def possible_seconds(number: Any) -> float:
    """Return a number that a user gives as POSIX seconds, if it can be that.

    What is not finite is left to the caller.

    Raises
    ------
    BadQuery
        If it is outside of the calendar, as a time in milliseconds is.
    """
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if EARLIEST_SECONDS <= value < LATEST_SECONDS or not math.isfinite(value):
        return value
    hint = ""
    if other := _in_other_unit(value, dt.UTC):
        unit, shown = other
        hint = (
            f"; {unit}? Then write {value / UNITS[unit]!r}, which is {shown}. A run whose start "
            f"document has such a number is found by the text that lists show, "
            f"'{value!r} (as {unit} …)'"
        )
    raise BadQuery(
        f"{value!r} is not a time in POSIX seconds, which are of the years 1 to 9999{hint}"
    )


def show_time(value: Any, zone: str | dt.tzinfo = "UTC") -> str:
    """Return an instant as text: to the second, in a zone, with its offset.

    Parameters
    ----------
    value
        POSIX seconds, as a document has them. Any other value is shown as it is: with a hint if
        it is a time in milliseconds, microseconds or nanoseconds, with "no time" otherwise.
    zone
        Time zone of the broker.

    Returns
    -------
    str
        Text such as ``2026-11-26 00:01:09+01:00``, which ``since`` and ``until`` parse.
    """
    seconds = seconds_of({"time": value})
    tz = zone_of(zone)
    shown = _calendar(seconds, tz)
    if shown is not None:
        return shown
    raw = repr(value)
    raw = raw if len(raw) <= 40 else f"{raw[:39]}…"
    # Some programs write times in other units: shown with a hint, never corrected.
    if other := _in_other_unit(seconds, tz):
        unit, shown = other
        return f"{raw} (as {unit} {shown})"
    return f"{raw} (no time)"


def _in_other_unit(number: float, tz: dt.tzinfo) -> tuple[str, str] | None:
    """Return the first of :data:`UNITS` in which a number is in the calendar, and that time."""
    for unit, count in UNITS.items():
        shown = _calendar(number / count, tz)
        if shown is not None:
            return unit, shown
    return None


def _calendar(seconds: float, tz: dt.tzinfo) -> str | None:
    """Return date and time, truncated to the second, or None outside of the calendar."""
    if not EARLIEST_SECONDS <= seconds < LATEST_SECONDS:
        return None
    try:
        moment = EPOCH + dt.timedelta(seconds=math.floor(seconds))
        return moment.astimezone(tz).isoformat(" ")
    except OverflowError:  # the offset of the zone leads out of the calendar
        return None


# -- tables ----------------------------------------------------------------------------------


def utc_only(zone: str | dt.tzinfo | None) -> None:
    """Check that the zone for a lazy table is UTC, or None.

    Raises
    ------
    BadQuery
        If it is another zone, in which Dask loses rows.
    ConfigError
        If no zone has the name.
    """
    if zone is not None and zone_of(zone) not in (dt.UTC, ZoneInfo("UTC")):
        raise BadQuery(
            f"timezone={str(zone)!r}: the times of a lazy table are in UTC, because Dask loses "
            "rows in other zones; compute first, then convert: frame = table.compute(); "
            f"frame['time'] = frame['time'].dt.tz_convert({str(zone)!r})"
        )


def tz_convert(computed: Any, zone: str | dt.tzinfo) -> Any:
    """Return a pandas frame, series or index with its times in a zone.

    Times without a zone, and an index that holds no times, stay as they are.

    Raises
    ------
    BadQuery
        If the object is lazy, or of any other type.
    """
    import pandas as pd

    tz = zone_of(zone)
    if isinstance(computed, pd.DatetimeIndex):
        return computed.tz_convert(tz) if computed.tz is not None else computed
    # Labels that are no times stay.
    if isinstance(computed, pd.Index):
        return computed
    if not isinstance(computed, (pd.Series, pd.DataFrame)):
        raise BadQuery(
            f"only what is computed is converted to a time zone, not a {type(computed).__name__}; "
            "compute first: db.tz_convert(table.compute())"
        )
    converted = computed.set_axis(tz_convert(computed.index, tz))
    if isinstance(converted, pd.Series):
        return converted.dt.tz_convert(tz) if is_zoned(converted.dtype) else converted
    zoned = {
        position: converted.iloc[:, position].dt.tz_convert(tz)
        for position in range(converted.shape[1])
        if is_zoned(converted.iloc[:, position].dtype)
    }
    for position, column in zoned.items():  # by position, as several columns may have one name
        converted.isetitem(position, column)
    return converted


def is_zoned(dtype: object) -> bool:
    """Return whether a dtype of pandas is that of instants in a time zone."""
    import pandas as pd

    return isinstance(dtype, pd.DatetimeTZDtype)
