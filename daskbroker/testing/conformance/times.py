"""Conformance: times. Tables of a time index agree with pandas, and what is shown is found."""

from __future__ import annotations

from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from ...core.clock import show_time
from ...core.errors import BadQuery
from ..base import Conformance, insert_all
from ..runs import RunBuilder, make_run

MIDNIGHT_IN_BERLIN = 1_795_647_600.0  # 2026-11-26


def timed_run(rng: np.random.Generator, begin: float, rows: int, number: int) -> list[Any]:
    """Return a run with events at random times; ``n`` differs between events of all runs."""
    builder = RunBuilder(time=begin)
    descriptor = builder.descriptor({"x": 0.5, "n": 1})
    pause = float(rng.choice([0.001, 0.3, 5.0]))
    times = begin + np.cumsum(rng.exponential(pause, rows))
    for row, time in enumerate(times.tolist()):
        data = {"x": float(rng.normal()), "n": 1000 * number + row}
        builder.event(descriptor, data, time=time)
    return builder.stop()


def by_time(frame: Any) -> pd.DataFrame:
    """Compute a table if it is lazy, and sort it by time, then by ``n``."""
    computed = frame.compute() if hasattr(frame, "compute") else frame
    return computed.sort_values(["time", "n"])


def same(found: Any, wanted: pd.DataFrame) -> None:
    """Check that two tables with a time index have the same rows."""
    pd.testing.assert_frame_equal(by_time(found), by_time(wanted), check_freq=False)


def check_time_index(table: Any, rng: np.random.Generator) -> None:
    """Check that all that people do to a table with a time index is what pandas does."""
    expected = table.compute().set_index("time").sort_index()
    indexed = table.set_index("time")
    assert str(indexed.index.dtype) == "datetime64[us, UTC]"
    same(indexed, expected)
    assert indexed.compute().index.is_monotonic_increasing
    assert list(indexed.divisions) == sorted(indexed.divisions)
    assert indexed.divisions[0] == expected.index[0]
    assert indexed.divisions[-1] == expected.index[-1]

    first, last = expected.index[np.sort(rng.integers(0, len(expected), 2))]
    for begin, end in ((first, last), (str(first), str(last)), (None, last)):
        same(indexed.loc[begin:end], expected.loc[begin:end])
    elsewhere = last.tz_convert("Asia/Tokyo")
    same(indexed.loc[:elsewhere], expected.loc[:elsewhere])
    same(table[table["time"] > first].set_index("time"), expected[expected.index > first])

    for rule, how in (("1s", "count"), ("100s", "mean"), ("1h", "count")):
        binned = getattr(indexed["x"].resample(rule), how)().compute()
        wanted = getattr(expected["x"].resample(rule), how)()
        pd.testing.assert_series_equal(binned, wanted, check_freq=False)

    places = np.sort(rng.choice(len(expected), min(20, len(expected)), replace=False))
    other = expected.iloc[places][["x"]].rename(columns={"x": "ring"})
    other = other[~other.index.duplicated()]
    wanted = pd.merge_asof(expected, other, left_index=True, right_index=True)
    for right in (other, dd.from_pandas(other, npartitions=min(3, len(other)))):
        same(dd.merge_asof(indexed, right, left_index=True, right_index=True), wanted)

    same(indexed.repartition(npartitions=2), expected)
    same(indexed.repartition(freq="30min"), expected)
    assert int(indexed.map_partitions(len).compute().sum()) == len(expected)


class TimeConformance(Conformance):
    """Times in tables, in searches and as they are shown."""

    @pytest.mark.parametrize(
        ("zone", "size"), [("UTC", "64 MiB"), ("Europe/Berlin", 1), ("Asia/Tokyo", "64 MiB")]
    )
    def test_a_time_index_is_that_of_pandas(self, broker: Any, zone: str, size: Any) -> None:
        """The index agrees for one run and for overlapping ones, sealed and not, in any zone."""
        broker.timezone = zone
        rng = np.random.default_rng(len(zone))
        with dask.config.set({"daskbroker.partition-size": size}):
            begin = 1.76e9
            for number in range(3):
                run = timed_run(rng, begin, int(rng.integers(30, 60)), number)
                for part in (run[:20], run[20:-1]):  # an open run, of several chunks
                    insert_all(broker, part)
                    if number:
                        broker.seal()
                insert_all(broker, run[-1:] if number == 1 else ())
                begin += float(rng.uniform(-20, 200))
            check_time_index(broker().table("primary"), rng)
            check_time_index(broker[-1].table()[["time", "x", "n"]], rng)

    def test_rows_that_are_not_shown_do_not_widen_a_time_index(self, broker: Any) -> None:
        """Rows that a rewind has replaced do not count."""
        builder = RunBuilder(time=1.76e9)
        descriptor = builder.descriptor({"x": 0.5, "n": 1})
        for row, number in enumerate([1, 2, 3, 1, 2, 3, 4]):
            builder.event(descriptor, {"x": float(row), "n": row}, seq_num=number)
        insert_all(broker, builder.stop())
        check_time_index(broker[-1].table(), np.random.default_rng(0))

    def test_times_come_back_exactly(self, broker: Any) -> None:
        """A time of whole microseconds is the same number after a table made a run of it."""
        from ...views.runs import table_to_stream

        builder = RunBuilder()
        descriptor = builder.descriptor({"n": 1})
        times = [1764115269.123456, 1764115269.3, 0.000001, 4102444800.000001, -0.5]
        for number, time in enumerate(times):
            builder.event(descriptor, {"n": number}, time=time)
        insert_all(broker, builder.stop())
        header = broker[-1]
        for table in (header.table(), broker.tz_convert(header.table().compute())):
            stream = table_to_stream(table, header)
            assert [doc["time"] for name, doc in stream if name == "event"] == times

    def test_a_lazy_table_in_another_zone_is_refused(self, broker: Any) -> None:
        """The error says what to write, and that works."""
        broker.timezone = "Asia/Tokyo"
        insert_all(broker, make_run(3))
        for ask in (
            lambda: broker[-1].table(timezone="Europe/Berlin"),
            lambda: broker().table("primary", timezone="Europe/Berlin"),
            lambda: broker[-1].table(format="dataset", timezone="Europe/Berlin"),
        ):
            with pytest.raises(BadQuery, match=r"compute first, then convert.*dt\.tz_convert"):
                ask()
        table = broker[-1].table(timezone="UTC")
        with pytest.raises(BadQuery, match=r"compute first: db\.tz_convert\(table\.compute\(\)\)"):
            broker.tz_convert(table)
        frame = broker.tz_convert(table.compute())
        assert str(frame["time"].dtype) == "datetime64[us, Asia/Tokyo]"
        assert (frame["time"] == table.compute()["time"]).all()

    def test_a_time_that_no_calendar_has(self, broker: Any) -> None:
        """Only that time is affected: it is NaT in a table, and shown as it is."""
        builder = RunBuilder(time=1.76e9)
        descriptor = builder.descriptor({"n": 1})
        for number, time in enumerate([1.76e9, 1e300, 1.76e12, -1e300, 1.76e9 + 2]):
            builder.event(descriptor, {"n": number}, time=time)
        insert_all(broker, builder.stop())
        table = broker[-1].table()
        frame = table.compute()
        assert frame["time"].isna().tolist() == [False, True, True, True, False]
        given = {event["time"] for name, event in broker[-1].documents() if name == "event"}
        assert given == {1.76e9, 1e300, 1.76e12, -1e300, 1.76e9 + 2}
        since = pd.Timestamp(1.76e9 + 1, unit="s", tz="UTC")
        assert table[table["time"] > since].compute()["n"].tolist() == [4]
        dataset = broker[-1].dataset()
        assert np.isnat(dataset["time"].values).sum() == 3

    @pytest.mark.parametrize(
        ("time", "shown"),
        [
            (MIDNIGHT_IN_BERLIN + 69.7, "2026-11-26 00:01:09+01:00"),
            (-0.5, "1970-01-01 00:59:59+01:00"),
            (1795647669700.0, "1795647669700.0 (as milliseconds 2026-11-26 00:01:09+01:00)"),
            (1795647669700000.0, "(as microseconds 2026-11-26 00:01:09+01:00)"),
            (1.795647669e18, "1.795647669e+18 (as nanoseconds 2026-11-26 00:01:09+01:00)"),
            (1e300, "1e+300 (no time)"),
            (-1e300, "-1e+300 (no time)"),
        ],
        ids=str,
    )
    def test_what_is_shown_is_found(self, broker: Any, time: float, shown: str) -> None:
        """Lists show a start document with any time, and searches find it."""
        broker.timezone = "Europe/Berlin"
        insert_all(broker, make_run(1, uid="early", time=-2e300))
        insert_all(broker, make_run(1, uid="it", time=time))
        insert_all(broker, make_run(1, uid="late", time=2e300))
        assert [header.uid for header in broker()] == ["late", "it", "early"]
        for text in (repr(broker["it"]), broker["it"]._repr_html_(), broker()._repr_html_()):
            assert shown in text
        text = show_time(time, broker.timezone)
        found = broker(since=text, until=text)
        assert [header.uid for header in found] == ["it"]
        assert [header.uid for header in broker(since=text)] == ["late", "it"]
        assert len(broker().table("primary")) == len(broker().dataset("primary")["time"]) == 3
        repr(found), found._repr_html_()

    def test_since_and_until_are_shown_in_the_zone(self, broker: Any) -> None:
        """Results show the zone in which the given times were read."""
        broker.timezone = "Europe/Berlin"
        shown = repr(broker(since="2026-11-26", until="2026-11-26 12:00"))
        assert "since='2026-11-26 00:00:00+01:00'" in shown
        assert "until='2026-11-26 12:00:59+01:00'" in shown
