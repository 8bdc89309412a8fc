"""Clocks: the zone of a broker, and how an instant is shown in it.

Documents hold POSIX seconds and tables hold UTC. A zone is for what people read and write:
:func:`show_time` is how every time is shown, :mod:`daskbroker.core.timespan` how one is read,
and what the one shows the other reads.
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

import pandas as pd

from .errors import BadQuery, ConfigError

__all__ = ["resolved_zone", "seconds_of", "show_time", "tz_convert", "utc_only", "zone_of"]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LEAST, MOST = -62_135_596_800.0, 253_402_300_800.0
"""POSIX seconds of the years that a calendar of Python, pandas and Arrow has: 1 to 9999."""
LOCAL = ("local", "localtime")
UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_OFFSET = re.compile(r"([+-])(\d{2}):([0-5]\d)")


# -- zones -----------------------------------------------------------------------------------


def zone_of(name: str | dt.tzinfo) -> dt.tzinfo:
    """A time zone by its IANA name, or by an offset such as ``"+01:00"``.

    Raises
    ------
    ConfigError
        For a name that no zone has.
    """
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
    """The name of a zone that means the same on every machine.

    ``"local"`` is the zone of this one: its IANA name, or, if that cannot be found out, its
    offset from UTC as it is now.

    Raises
    ------
    ConfigError
        For a name that no zone has.
    """
    if name not in LOCAL:
        zone_of(name)
        return name
    now = dt.datetime.now().astimezone()
    for candidate in _local_names():
        try:
            # A name that is found is not believed where the clock says something else.
            if now.astimezone(ZoneInfo(candidate)).utcoffset() == now.utcoffset():
                return candidate
        except (OSError, ValueError, KeyError):
            continue
    return now.isoformat()[-6:] if now.utcoffset() else "UTC"


def _local_names() -> Iterator[str]:
    """What the zone of this machine may be called, as the C library finds it."""
    chosen = os.environ.get("TZ")
    if chosen is not None:
        yield chosen.removeprefix(":").rpartition("zoneinfo/")[2] or "UTC"
        return
    yield os.path.realpath("/etc/localtime").rpartition("zoneinfo/")[2]
    try:
        yield Path("/etc/timezone").read_text(encoding="utf8").strip()
    except (OSError, ValueError):
        return


# -- showing ---------------------------------------------------------------------------------


def seconds_of(doc: Mapping[str, Any], default: float = -math.inf) -> float:
    """The time of a document; where it has none, as in a database of others, the default, which
    comes before all others.
    """
    value = doc.get("time")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    try:
        return default if math.isnan(value) else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def show_time(value: Any, zone: str | dt.tzinfo = "UTC") -> str:
    """An instant as it is shown everywhere: to the second, in a zone, with its offset.

    Parameters
    ----------
    value
        POSIX seconds, as a document has them. What is none is shown as it is: with a hint if
        it is a time in milliseconds or the like, with "no time" otherwise.
    zone
        Of the broker.

    Returns
    -------
    str
        Such as ``2026-11-26 00:01:09+01:00``, which ``since`` and ``until`` read.
    """
    seconds = seconds_of({"time": value})
    tz = zone_of(zone)
    shown = _calendar(seconds, tz)
    if shown is not None:
        return shown
    raw = repr(value)
    raw = raw if len(raw) <= 40 else f"{raw[:39]}…"
    for unit, count in UNITS.items():
        shown = _calendar(seconds / count, tz)
        if shown is not None:
            return f"{raw} (as {unit} {shown})"
    return f"{raw} (no time)"


def _calendar(seconds: float, tz: dt.tzinfo) -> str | None:
    """Date and time, cut to the second; None outside the calendar."""
    if not LEAST <= seconds < MOST:
        return None
    try:
        moment = EPOCH + dt.timedelta(seconds=math.floor(seconds))
        return moment.astimezone(tz).isoformat(" ")
    except OverflowError:  # by the offset of the zone
        return None


# -- tables ----------------------------------------------------------------------------------


def utc_only(zone: str | dt.tzinfo | None) -> None:
    """Refuse a zone other than UTC for a lazy table.

    Raises
    ------
    BadQuery, ConfigError
    """
    if zone is not None and zone_of(zone) not in (dt.UTC, ZoneInfo("UTC")):
        raise BadQuery(
            f"timezone={str(zone)!r}: the times of a lazy table are in UTC, because Dask loses "
            "rows in other zones; compute first, then convert: frame = table.compute(); "
            f"frame['time'] = frame['time'].dt.tz_convert({str(zone)!r})"
        )


def tz_convert(computed: Any, zone: str | dt.tzinfo) -> Any:
    """A computed frame, series or index of pandas with its times in a zone.

    Raises
    ------
    BadQuery
        For a lazy one.
    """
    tz = zone_of(zone)
    if isinstance(computed, pd.DatetimeIndex):
        return computed.tz_convert(tz) if computed.tz is not None else computed
    if isinstance(computed, pd.Index):
        return computed
    if not isinstance(computed, (pd.Series, pd.DataFrame)):
        raise BadQuery(
            f"only what is computed is converted to a time zone, not a {type(computed).__name__}; "
            "compute first: db.tz_convert(table.compute())"
        )
    converted = computed.set_axis(tz_convert(computed.index, tz))
    if isinstance(converted, pd.Series):
        return converted.dt.tz_convert(tz) if _is_zoned(converted) else converted
    zoned = {
        place: converted.iloc[:, place].dt.tz_convert(tz)
        for place in range(converted.shape[1])
        if _is_zoned(converted.iloc[:, place])
    }
    for place, column in zoned.items():
        converted.isetitem(place, column)
    return converted


def _is_zoned(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.DatetimeTZDtype)
