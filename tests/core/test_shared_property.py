"""Cached properties of several instances in several threads."""

from __future__ import annotations

import threading

from daskbroker.core.shared_property import unlocked_property


class Reader:
    def __init__(self, begin: threading.Event, end: threading.Event) -> None:
        self.begin, self.end = begin, end
        self.times = 0

    @unlocked_property
    def rows(self) -> int:
        """The number of times that this was computed."""
        self.begin.set()
        assert self.end.wait(10)
        self.times += 1
        return self.times


def test_one_reader_does_not_wait_for_another():
    ready, one, both = threading.Event(), threading.Event(), threading.Event()
    slow, quick = Reader(one, both), Reader(ready, one)
    thread = threading.Thread(target=lambda: slow.rows)
    thread.start()
    assert one.wait(10)
    assert (quick.rows, quick.rows) == (1, 1)
    both.set()
    thread.join()
    assert slow.__dict__["rows"] == 1
