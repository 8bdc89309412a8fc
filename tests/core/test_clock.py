"""Zones, and how an instant is shown in one."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from daskbroker.core.clock import resolved_zone, seconds_of, show_time, tz_convert, utc_only
from daskbroker.core.errors import BadQuery, ConfigError
from daskbroker.core.timespan import timespan

BERLIN = "Europe/Berlin"
ZONES = ("UTC", BERLIN, "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "-03:30")
INSTANTS = (
    0.0, -0.5, 1, 1795647669.7, 1774745999.99, 1792891800.5, 1792895400.25, -2e9 - 0.25, 4e9,
    253402214400.0, -62135510400.0, 1.76e12, 1.76e15 + 0.25, 1.76e18, 2**62, 1e300, -1e300,
    5e-324, 2.5e11,
)  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("seconds", INSTANTS, ids=repr)
def test_what_is_shown_is_read_back(seconds, zone):
    shown = show_time(seconds, zone)
    since, until = timespan(shown, shown, "Asia/Tokyo")  # it says in which zone it is
    assert since <= seconds <= until
    assert until - since <= 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1795647669.7, "2026-11-26 00:01:09+01:00"),
        (1792891800.0, "2026-10-25 02:30:00+01:00"),
        (1792888200.0, "2026-10-25 02:30:00+02:00"),
        (1795647669700, "1795647669700 (as milliseconds 2026-11-26 00:01:09+01:00)"),
        (1795647669.7e6, "1795647669700000.0 (as microseconds 2026-11-26 00:01:09+01:00)"),
        (1795647669700000000, "1795647669700000000 (as nanoseconds 2026-11-26 00:01:09+01:00)"),
        (1e300, "1e+300 (no time)"),
        (10**400, f"{str(10**400)[:39]}… (no time)"),
        (float("nan"), "nan (no time)"),
        (float("inf"), "inf (no time)"),
        (None, "None (no time)"),
        (True, "True (no time)"),
        ("2026\x1b[2J", "'2026\\x1b[2J' (no time)"),
        ({"a": "b" * 50}, "{'a': 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb… (no time)"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_time_is_shown_as_what_it_is(value, shown):
    assert show_time(value, BERLIN) == shown


def test_seconds_of_documents():
    assert seconds_of({"time": 5}) == 5.0
    for time in (None, "5", float("nan"), True, [5]):
        assert seconds_of({"time": time}) == float("-inf")
        assert seconds_of({"time": time}, 0.0) == 0.0
    assert seconds_of({}) == float("-inf")
    assert (seconds_of({"time": 10**400}), seconds_of({"time": -(10**400)})) == (
        float("inf"),
        float("-inf"),
    )


@pytest.mark.parametrize(
    ("machine", "zone"),
    [
        (BERLIN, BERLIN),
        (":America/New_York", "America/New_York"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("<+0330>-3:30", "+03:30"),
        ("XYZ4", "-04:00"),
        ("", "UTC"),
        ("UTC", "UTC"),
        ("Nowhere/Land", "UTC"),
    ],
)
def test_the_zone_of_a_machine_has_a_name_that_others_know(machine, zone):
    code = "from daskbroker.core.clock import resolved_zone; print(resolved_zone('local'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TZ": machine}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == zone
    assert resolved_zone(zone) == zone


def test_a_zone_that_there_is_not():
    for name in ("Europe/Nowhere", "", "+1", "+24:00", "+01:75", "local time"):
        with pytest.raises(ConfigError, match=r"there is no time zone .*'local'"):
            resolved_zone(name)


def test_only_utc_is_lazy():
    for zone in (None, "UTC", "+00:00"):
        utc_only(zone)
    for zone in (BERLIN, "+01:00", "Europe/London"):
        with pytest.raises(BadQuery, match=r"compute first, then convert"):
            utc_only(zone)


def test_computed_times_are_converted():
    index = pd.DatetimeIndex(["2026-07-01", None], tz="UTC")
    frame = pd.DataFrame({"time": index, "x": [1, 2], "naive": index.tz_localize(None)}, index)
    frame.attrs = {"stream": "primary"}
    local = tz_convert(frame, BERLIN)
    assert local.attrs == frame.attrs
    assert local["time"].tolist() == frame["time"].dt.tz_convert(BERLIN).tolist()
    assert local.index.equals(index.tz_convert(BERLIN))
    assert local[["x", "naive"]].to_numpy().tolist() == frame[["x", "naive"]].to_numpy().tolist()
    assert str(frame["time"].dtype) == str(frame.index.dtype) == f"datetime64[{index.unit}, UTC]"
    assert str(tz_convert(frame["time"], BERLIN).dtype) == f"datetime64[{index.unit}, {BERLIN}]"
    assert tz_convert(frame.reset_index(drop=True)["x"], BERLIN).tolist() == [1, 2]
    assert tz_convert(index, BERLIN).equals(index.tz_convert(BERLIN))
    with pytest.raises(BadQuery, match="compute first"):
        tz_convert([1], BERLIN)
