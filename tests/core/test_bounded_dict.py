"""A mapping that forgets what was put first."""

from __future__ import annotations

from daskbroker.core.bounded_dict import MAX_ENTRIES, BoundedDict


def test_the_latest_stay():
    known = BoundedDict()
    for number in range(MAX_ENTRIES + 10):
        known[number] = str(number)
    assert len(known) == MAX_ENTRIES
    assert 9 not in known
    assert known[10] == "10"


def test_to_put_again_forgets_nothing():
    known = BoundedDict()
    for number in range(MAX_ENTRIES):
        known[number] = number
    known[5] = -5
    assert len(known) == MAX_ENTRIES
    assert (known[0], known[5]) == (0, -5)
