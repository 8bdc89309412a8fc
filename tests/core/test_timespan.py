"""Instants as users write them; the clocks of Berlin change on 29 March and 25 October 2026."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from daskbroker.core.errors import BadQuery, ConfigError
from daskbroker.core.schema import posix_to_datetime
from daskbroker.core.timespan import timespan, timestamp, zone_of

BERLIN = "Europe/Berlin"


def utc(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "first"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (np.int32(7), 7.0),
        (np.float32(0.5), 0.5),
        ("2026", utc("2025-12-31 23:00")),
        ("2026-11", utc("2026-10-31 23:00")),
        ("2026-11-23", utc("2026-11-22 23:00")),
        ("2026-1-5", utc("2026-01-04 23:00")),
        ("20261123", utc("2026-11-22 23:00")),
        (" 2026-11-23 14:30 ", utc("2026-11-23 13:30")),
        ("2026-11-23T14:30:15.5", utc("2026-11-23 13:30:15.500")),
        ("2026-11-23T14:30+05:00", utc("2026-11-23 09:30")),
        ("2026-11-23T14:30Z", utc("2026-11-23 14:30")),
        (dt.date(2026, 7, 1), utc("2026-06-30 22:00")),
        (dt.datetime(2026, 7, 1, 12), utc("2026-07-01 10:00")),
        (dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC), utc("2026-07-01 12:00")),
        (pd.Timestamp("2026-07-01 12:00"), utc("2026-07-01 10:00")),
        (pd.Timestamp("2026-07-01 12:00", tz="UTC"), utc("2026-07-01 12:00")),
        (np.datetime64("2026-07-01T12:00"), utc("2026-07-01 10:00")),
    ],
    ids=str,
)
def test_since(value, first):
    assert timestamp(value, BERLIN) == first


@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("2026", utc("2026-12-31 23:00")),
        ("2026-12", utc("2026-12-31 23:00")),
        ("2026-11", utc("2026-11-30 23:00")),
        ("2026-11-23", utc("2026-11-23 23:00")),
        ("20261123", utc("2026-11-23 23:00")),
        (dt.date(2026, 11, 23), utc("2026-11-23 23:00")),
        ("2026-11-23 14:30", utc("2026-11-23 13:31")),
        ("2026-11-23T14:30+01:00", utc("2026-11-23 13:31")),
        ("2026-11-23T1430", utc("2026-11-23 13:31")),
        ("2026-11-23T14", utc("2026-11-23 14:00")),
        ("2026-11-23 14:30:00", utc("2026-11-23 13:30:01")),
        ("20261123T143000Z", utc("2026-11-23 14:30:01")),
        ("2026-11-23 14:30:00.25+05:30", utc("2026-11-23 09:00:00.26")),
        ("2026-W48-1", utc("2026-11-23 23:00")),
        ("2026-W48", utc("2026-11-29 23:00")),
        (np.datetime64("2026-11-23"), utc("2026-11-23 23:00")),
        (np.datetime64("2026-11"), utc("2026-11-30 23:00")),
        (np.datetime64("2026-11-23", "W"), utc("2026-11-25 23:00")),
        (np.datetime64("2026"), utc("2026-12-31 23:00")),
        ("2026-11-23 14:30:00+01:00", utc("2026-11-23 13:30:01")),
        ("2026-03-29", utc("2026-03-29 22:00")),
        ("2026-10-25", utc("2026-10-25 23:00")),
    ],
    ids=str,
)
def test_until_is_the_last_instant_of_a_period(value, after):
    last = timestamp(value, BERLIN, end=True)
    assert last < after
    assert after - last < 1e-6


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        (dt.datetime(2026, 11, 23, 14, 30), utc("2026-11-23 13:30")),
        (pd.Timestamp("2026-11-23 14:30", tz=BERLIN), utc("2026-11-23 13:30")),
        (5, 5.0),
        ("1795440600.125", 1795440600.125),
        ("1795440600", 1795440600.0),
        ("1e300 (no time)", 1e300),
        (253_402_300_799, 253_402_300_799.0),
        ("-0.5", -0.5),
        ("1795440600125.0 (as milliseconds 2026-11-23 14:30:00+01:00)", 1795440600125.0),
    ],
)
def test_numbers_and_datetimes_are_instants(value, instant):
    assert timestamp(value, BERLIN) == timestamp(value, BERLIN, end=True) == instant


def test_a_number_that_cannot_be_seconds_is_refused():
    for value in (1795440600125, 1795440600125.0, "1795440600125", np.int64(1795440600125)):
        for end in (False, True):
            with pytest.raises(BadQuery, match=r"milliseconds\? Then write 1795440600\.125.*2026"):
                timestamp(value, BERLIN, end=end)
    for value, hint in ((1.7954406e15, "microseconds"), (1795440600125000000, "nanoseconds")):
        with pytest.raises(BadQuery, match=rf"{hint}\?"):
            timespan(None, value)
    for value in (1e300, "1e300", -1e12):
        with pytest.raises(BadQuery, match="is not a time in POSIX seconds, which are of the year"):
            timestamp(value)


@pytest.mark.parametrize("seconds", [1795440600.1234567, 1795440600.4999998, 0.1 + 0.2])
def test_what_a_table_shows_to_the_microsecond_is_found(seconds):
    shown = posix_to_datetime(np.array([seconds]))
    naive = shown.tz_convert(None).values[0]
    texts = (str(shown[0]), str(shown.tz_convert(BERLIN)[0]), naive, shown[0], naive.item())
    for text in (*texts, naive.astype("M8[ns]")):
        since, until = timespan(text, text, "UTC")
        assert since <= seconds <= until


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-29 02:30",
        dt.datetime(2026, 3, 29, 2),
        pd.Timestamp("2026-03-29 02:59:59"),
    ],
)
@pytest.mark.parametrize("end", [False, True])
def test_a_time_that_the_clocks_left_out_is_refused(value, end):
    with pytest.raises(BadQuery, match=r"clocks of Europe/Berlin skipped.*give the zone"):
        timestamp(value, BERLIN, end=end)


def test_the_minute_before_a_change_of_the_clocks_ends_with_it():
    assert timestamp("2026-03-29 01:59", BERLIN, end=True) == pytest.approx(utc("2026-03-29 01:00"))
    assert timestamp("2026-10-25 01:59", BERLIN, end=True) == pytest.approx(utc("2026-10-25 00:00"))


def test_of_a_time_shown_twice_since_is_the_earlier_and_until_the_later():
    since, until = timespan("2026-10-25 02:30", "2026-10-25 02:30:00", BERLIN)
    assert since == utc("2026-10-25 00:30")
    assert until == pytest.approx(utc("2026-10-25 01:30:01"), abs=1e-6)


def test_a_day_whose_midnight_was_left_out_begins_after_it():
    assert timestamp("2018-11-04", "America/Sao_Paulo") == utc("2018-11-04 03:00")
    assert timestamp("2018-11-03", "America/Sao_Paulo", end=True) < utc("2018-11-04 03:00")


@pytest.mark.parametrize(
    "value",
    [
        None, True, np.True_, float("nan"), float("inf"), 10**400, "", "someday", "14:30",
        "2026-02-30", "2026-13", "0000", "202611", "2026-W60", "1e999", "12",
        dt.datetime.min, dt.date.max, pd.NaT,
        np.datetime64("NaT", "us"), np.datetime64("20000-01-01"), dt.time(1), [], b"2026", ...,
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_is_no_instant_is_refused(value):
    with pytest.raises(BadQuery, match=r"is not a time; write for example '2026"):
        timestamp(value, BERLIN, end=True)


def test_open_ends():
    assert timespan(None, None) == (None, None)
    assert timespan(1, None) == (1.0, None)


def test_zones():
    assert zone_of(BERLIN) == ZoneInfo(BERLIN)
    assert zone_of(dt.UTC) is dt.UTC
    assert timestamp("2026-01-01") == utc("2026-01-01")
    assert timestamp("2026-01-01", "-03:30") == utc("2026-01-01 03:30")
    for name in ("Europe/Nowhere", "+25:00", "", "../../etc/passwd", 5):
        with pytest.raises(ConfigError, match="no time zone"):
            zone_of(name)


@pytest.mark.parametrize("unit", ["h", "m", "s", "ms", "us", "ns"])
def test_a_datetime64_to_the_hour_or_less_is_an_instant(unit):
    """As a datetime is; only one in days, weeks, months or years is a date."""
    value = np.datetime64("2026-11-23T14").astype(f"M8[{unit}]")
    instant = utc("2026-11-23 13:00")
    for end in (False, True):
        assert timestamp(value, BERLIN, end=end) == instant
        assert timestamp(pd.Timestamp("2026-11-23T14"), BERLIN, end=end) == instant
    half = np.datetime64("2026-11-23T14:00:00.5")
    assert timestamp(half, BERLIN, end=True) - timestamp(half, BERLIN) < 1e-6
