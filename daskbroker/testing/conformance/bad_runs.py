"""Conformance, bad runs: a run that cannot be read does not affect other runs."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import daskbroker
from daskbroker import BadRunWarning

from ...core.bad_runs import BadRun
from ...core.errors import StoreDamaged
from ...core.search import Search
from ..base import Conformance, check_run, insert_all
from ..runs import RunBuilder, make_run

UIDS = [f"run-{number:02}" for number in range(24)]
BAD = ("run-23", "run-12", "run-02")
"""The newest, one in the middle that offsets skip, one near the end."""
SOUND = [uid for uid in reversed(UIDS) if uid not in BAD]

PARTS: list[tuple[int, int | None]] = [
    (0, 1), (1, 3), (5, 11), (9, 10), (10, 12), (12, 14), (13, 19), (14, 15), (19, 20),
    (9, None), (18, None), (20, None), (30, 40),
]  # fmt: skip

Spoil = Callable[[str, str], None]


@contextmanager
def named(*uids: str) -> Iterator[None]:
    """Check that a block warns of each of these runs once, and of no other run."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(one.message) for one in caught if one.category is BadRunWarning]
    assert sorted(text.partition(":")[0] for text in texts) == sorted(f"run {u!r}" for u in uids)


def _is_read(header: Any, stream: str) -> bool:
    try:
        return len(header.table(stream).compute()) == 1
    except StoreDamaged:
        return False


class BadRunConformance(Conformance):
    """Lists, searches, tables, copies and sealing where some runs cannot be read.

    A subclass gives, beside the fixtures of :class:`~daskbroker.testing.base.Conformance`,

    ``spoil``
        A callable: ``spoil("start" | "stop" | "descriptor" | "event", uid)`` damages a document
        of this kind of a run (of an open run an event), as it may happen in the store: a bit that
        flips, or another writer. What is open notices it as soon as it reads.
    """

    @pytest.fixture
    def runs(self, broker: Any) -> dict[str, Any]:
        """Return 24 runs of which three are open, the oldest first."""
        runs = {}
        for number, uid in enumerate(UIDS):
            docs = make_run(
                3, uid=uid, time=1000.0 + number, scan_id=number % 3, stop=uid not in BAD[1:]
            )
            insert_all(broker, docs)
            runs[uid] = docs
        return runs

    @pytest.fixture
    def bad_lists(self, runs: Any, spoil: Spoil, reopen: Any) -> Any:
        """Return a broker on a store in which three headers cannot be read."""
        for kind, uid in zip(("start", "start", "start"), BAD):
            spoil(kind, uid)
        spoil("stop", "run-07")
        return reopen()

    def test_lists_leave_them_out(self, bad_lists: Any) -> None:
        db, bad = bad_lists, (*BAD, "run-07")
        sound = [uid for uid in SOUND if uid != "run-07"]
        assert len(db()) == len(db) == len(sound)  # before anybody has looked
        results = db()
        with named(*bad):
            assert [header.uid for header in results] == sound
        with named():
            assert {one.uid for one in results.bad} == set(bad)
            assert len(results) == len(sound)
        assert all(one.reason for one in results.bad)
        with named(*bad):
            assert {one.uid for one in db().bad} == set(bad)
        with named(*bad):
            assert [header.uid for header in reversed(db())] == sound[::-1]

    def test_lists_that_are_shown_name_them(self, bad_lists: Any) -> None:
        with named():
            for shown in (bad_lists, bad_lists(), bad_lists()[:3]):
                for text in (repr(shown), shown._repr_html_()):
                    assert "run-22" in text
                    assert "document" in text.partition("run-23")[2]

    def test_places_count_what_can_be_read(self, bad_lists: Any) -> None:
        db, sound = bad_lists, [uid for uid in SOUND if uid != "run-07"]
        with named("run-23"):
            assert db[-1].uid == sound[0]
        with named("run-23"):
            assert [header.uid for header in db[-3:]] == sound[:3]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BadRunWarning)
            for index, uid in enumerate(sound):
                assert db[-1 - index].uid == db()[index].uid == uid
            assert [header.uid for header in db()[9:14]] == sound[9:14]
            assert [header.uid for header in db[-15:-8]] == sound[8:15]
            assert db()[-1].uid == sound[-1]
            assert db[2].uid == next(uid for uid in sound if UIDS.index(uid) % 3 == 2)
            with pytest.raises(IndexError, match=f"only {len(sound)} runs"):
                db[-len(sound) - 1]

    def test_a_part_of_a_list_has_the_bad_runs_among_it(self, bad_lists: Any) -> None:
        """Bad runs before and after the part are not listed, in both directions."""
        bad = (*BAD, "run-07")
        store = bad_lists.header_source.store
        for oldest_first in (False, True):
            order = UIDS if oldest_first else UIDS[::-1]
            before = {uid: sum(u not in bad for u in order[: order.index(uid)]) for uid in order}
            for start, stop in PARTS:
                found = store.find(Search(), start, stop, oldest_first=oldest_first)
                met = [one.uid if isinstance(one, BadRun) else one[0]["uid"] for one in found]
                end = len(order) if stop is None else stop
                assert met == [uid for uid in order if start <= before[uid] < end]

    def test_searches_and_filters_leave_them_out(self, bad_lists: Any) -> None:
        db, sound = bad_lists, [uid for uid in SOUND if uid != "run-07"]
        wanted = [uid for uid in sound if UIDS.index(uid) % 3 == 2]
        queries: list[dict[str, Any]] = [
            {"scan_id": 2},
            {"scan_id": {"$in": [2]}},
            {"scan_id": 2, "since": 0},
            {"scan_id": 2, "descriptor": {"name": "primary"}},
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BadRunWarning)
            for query in queries:
                assert [header.uid for header in db(**query)] == wanted
                assert len(db(**query)) == len(wanted)
            assert [header.uid for header in db(full="count", search="substring")] == sound
            db.add_filter(scan_id=2)
            assert db[-1].uid == wanted[0]
            assert len(db()) == len(wanted)
            assert "21 runs" not in repr(db())
            assert wanted[0] in db()._repr_html_()

    def test_asking_for_one_is_an_error(self, bad_lists: Any) -> None:
        for uid in (*BAD, "run-07"):
            with pytest.raises(StoreDamaged, match=rf"run '{uid}'.*document"):
                bad_lists[uid]
        assert bad_lists["run-05"].uid == "run-05"

    def test_pickled_results_do_the_same(self, bad_lists: Any) -> None:
        results = pickle.loads(pickle.dumps(bad_lists()[:5]))
        with named("run-23"):
            assert [header.uid for header in results] == SOUND[:5]

    def test_a_run_calls_no_other_in_map(self, bad_lists: Any) -> None:
        with named("run-23"):
            outcomes = list(bad_lists()[:4].map(lambda header: header.uid, progress=False))
        assert sorted(outcome.result() for outcome in outcomes) == sorted(SOUND[:4])

    @pytest.mark.parametrize("kind", ["descriptor", "event"])
    def test_tables_leave_them_out(self, runs: Any, spoil: Spoil, reopen: Any, kind: str) -> None:
        spoil(kind, BAD[1])
        db = reopen()
        with named():
            assert len(list(db())) == len(db()) == len(UIDS)
        others = [uid for uid in UIDS if uid != BAD[1]]
        results = db()
        with named(BAD[1]):
            frame = results.table().compute()
        assert sorted(frame["run"].unique()) == sorted(others)
        assert [one.uid for one in results.bad] == [BAD[1]]
        with named(BAD[1]):
            assert set(db().dataset()["run"].values) == set(others)
        with named(BAD[1]):
            assert set(db().dataset(combine="tree").children) == set(others)
        with named(BAD[1]):
            starts = [doc["uid"] for name, doc in db().documents() if name == "start"]
        assert starts == others
        header = db[BAD[1]]
        for ask in (header.table, header.dataset, lambda: list(header.documents()), header.tree):
            with pytest.raises(StoreDamaged, match=rf"run '{BAD[1]}'"):
                ask()
        assert BAD[1] in header._repr_html_()

    @pytest.mark.parametrize("kind", ["descriptor", "event"])
    def test_a_table_of_nothing_else_says_why(
        self, runs: Any, spoil: Spoil, reopen: Any, kind: str
    ) -> None:
        spoil(kind, BAD[1])
        db = reopen()
        with named(BAD[1]), pytest.raises(KeyError, match="1 cannot"):
            db(uid=BAD[1]).table()

    def test_a_header_on_its_way_says_so_where_it_is_used(
        self, runs: Any, spoil: Spoil, reopen: Any
    ) -> None:
        spoil("event", BAD[1])
        header = pickle.loads(pickle.dumps(reopen()[BAD[1]].portable()))
        with pytest.raises(StoreDamaged, match=rf"run '{BAD[1]}'"):
            header.table()

    @pytest.mark.parametrize("kind", ["start", "stop", "descriptor", "event"])
    def test_copies_go_on(self, runs: Any, spoil: Spoil, reopen: Any, kind: str) -> None:
        bad = "run-07" if kind == "stop" else BAD[1]
        spoil(kind, bad)
        db = reopen()
        some = db(since=1004, until=1014)
        with warnings.catch_warnings(), daskbroker.temp() as other:
            warnings.simplefilter("ignore", BadRunWarning)
            report = daskbroker.copy(some, other)
            assert list(report.failed) == [bad]
            expected = [uid for uid in UIDS[4:15] if uid != bad]
            assert sorted(report.copied) == expected
            for uid in expected[::4]:
                check_run(other[uid], runs[uid])

    def test_sealing_goes_on(self, broker: Any, spoil: Spoil, reopen: Any) -> None:
        runs = {}
        for uid in ("first", "bad", "last"):
            run = RunBuilder(uid)
            for stream in ("primary", "baseline"):
                descriptor = run.descriptor({"x": 1.0}, stream)
                run.event(descriptor, {"x": 1.0})
            runs[uid] = run.documents
            insert_all(broker, run.documents)
        spoil("event", "bad")
        db = reopen()
        with named("bad"):
            assert db.seal() >= 4
        assert sum(_is_read(db["bad"], stream) for stream in ("primary", "baseline")) == 1
        with pytest.raises(StoreDamaged, match="bad"):
            db.seal("bad")
        with named():
            assert db.seal("first") == db.seal("last") == 0
        for uid in ("first", "last"):
            check_run(db[uid], runs[uid])
