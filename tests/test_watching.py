"""Runs that a request of ``db.watch`` reads."""

from __future__ import annotations

import pytest

from daskbroker.core.errors import SearchWarning
from daskbroker.core.search import Search
from daskbroker.stores.embedded import index
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

RUNS = 300


@pytest.fixture
def matched(monkeypatch):
    """The uids of the runs that were matched in Python."""
    uids = []
    plain = Search.matches

    def noted(self, start, stop):
        uids.append(start["uid"])
        return plain(self, start, stop)

    monkeypatch.setattr(Search, "matches", noted)
    return uids


def test_a_look_matches_what_is_new_and_not_every_run(db, matched, monkeypatch):
    """Also by a part of a word, for which no store has an index."""
    monkeypatch.setattr(index, "MOST_WAITING", 1)  # others are matched until they are indexed
    with db.batch():
        for number in range(RUNS):
            insert_all(db, make_run(1, uid=f"old-{number}", time=1e9 + number, sample="gold"))
    lasting = make_run(1, uid="lasting", time=1e9 - 5)
    insert_all(db, lasting[:-1])
    with pytest.warns(SearchWarning, match="'sampel'.*'sample'"):
        db.watch(sampel="silver")
    words = db.watch(full="ilv", search="substring", interval=0.01, timeout=0.05)
    with pytest.warns(SearchWarning, match="'note'"):
        ended = db.watch(interval=0.01, timeout=0.05, stop={"note": "silver"})
    matched.clear()
    insert_all(db, make_run(1, uid="other", time=3e9))
    insert_all(db, make_run(1, uid="wanted", time=2e9, sample="silver"))
    insert_all(db, [*lasting[:-1], ("stop", {**lasting[-1][1], "note": "silver"})])
    assert [header.uid for header in words] == ["lasting", "wanted"]
    assert matched.count("other") == matched.count("wanted") == 1
    assert "old-1" not in matched
    assert [header.uid for header in ended] == ["lasting"]
