"""A mapping that forgets what was put first."""

from __future__ import annotations

from daskbroker.core.bounded_dict import BoundedDict


def test_the_latest_stay():
    known = BoundedDict(100)
    for number in range(110):
        known[number] = str(number)
    assert len(known) == 100
    assert 9 not in known
    assert known[10] == "10"


def test_to_put_again_forgets_nothing():
    known = BoundedDict(100)
    for number in range(100):
        known[number] = number
    known[5] = -5
    assert len(known) == 100
    assert (known[0], known[5]) == (0, -5)


def test_what_is_put_last_is_forgotten_last():
    known = BoundedDict(2)
    known["a"], known["b"] = 1, 2
    known.put_last("a", 3)
    known["c"] = 4
    assert known == {"a": 3, "c": 4}


def test_another_thread_drops_an_entry_meanwhile():
    class Shared(BoundedDict):
        def __iter__(self):
            keys = super().__iter__()
            self.popitem()  # what another thread may do before `next`
            return keys

    known = Shared(2)
    for number in range(5):
        known[number] = number
    assert dict.keys(known) == {0, 4}
