"""Times as databroker reads them: a text of any precision means the first instant of it."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np

from ..core.clock import possible_seconds, resolved_zone, zone_of
from ..core.errors import BadQuery

TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H", "%Y-%m-%d", "%Y-%m", "%Y")


def seconds(value: Any, timezone: str = "local") -> float | None:
    """Return a time that a user of databroker gives as POSIX seconds; None if it is None.

    A date means its first instant, unlike ``until`` of :meth:`daskbroker.DataBroker.__call__`.

    Parameters
    ----------
    value
        POSIX seconds, a datetime, or text in one of `TIME_FORMATS`.
    timezone
        Zone of datetimes and texts that have none.

    Raises
    ------
    BadQuery
        If a text has another form, a number cannot be seconds, or the value is anything else. It
        is a ValueError.
    """
    if isinstance(value, str):
        value = _parsed(value.strip())
    if value is None:
        return None
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        number = possible_seconds(value)
        if not math.isfinite(number):
            raise _not_a_time(value)
        return number
    if not isinstance(value, dt.datetime):
        raise _not_a_time(value)
    if value.tzinfo is None:
        value = value.replace(tzinfo=zone_of(resolved_zone(timezone)))
    return value.timestamp()


def _parsed(text: str) -> dt.datetime:
    for form in TIME_FORMATS:
        try:
            return dt.datetime.strptime(text, form)
        except ValueError:
            continue
    raise _not_a_time(text)


def _not_a_time(value: object) -> BadQuery:
    return BadQuery(
        f"{value!r:.200} is not a time; write it as 2026-11-26 14:30:00, or less of that, or give "
        "a datetime or POSIX seconds"
    )
