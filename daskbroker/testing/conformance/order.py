"""Conformance of the order of runs where several are shown together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..base import Conformance, insert_all
from ..runs import make_run


def _each_once(uids: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, uids)))


class OrderConformance(Conformance):
    """Lists begin with the newest run; tables, Datasets, trees and documents with the oldest."""

    def runs(self, broker: Any) -> list[str]:
        """Insert six runs in an order other than that of time; return their uids, oldest first."""
        for number in (2, 5, 1, 4, 0, 3):
            # The last two at the same time: the one that was inserted last is the newer one.
            begin = 1e9 + 100 * min(number, 4)
            docs = make_run(3, uid=f"run-{number}", time=begin, scan_id=number)
            insert_all(broker, docs)
        oldest_first = ["run-0", "run-1", "run-2", "run-3", "run-5", "run-4"]
        assert [header.uid for header in broker()] == oldest_first[::-1]
        return oldest_first

    def test_views_of_many_runs_have_the_oldest_first(self, broker: Any) -> None:
        uids = self.runs(broker)
        results = broker()
        frame = results.table().compute()
        assert _each_once(frame["run"]) == uids
        assert frame.index.tolist() == [1, 2, 3] * len(uids)
        assert _each_once(results.dataset()["run"].values) == uids
        assert list(results.dataset(combine="tree").children) == uids
        assert [doc["uid"] for name, doc in results.documents() if name == "start"] == uids

    def test_lists_have_the_newest_first(self, broker: Any) -> None:
        uids = self.runs(broker)
        results = broker()
        assert [header.uid for header in results] == uids[::-1]
        assert [header.uid for header in results[:2]] == uids[:-3:-1]
        assert [header.uid for header in reversed(results)] == uids
        assert results[0].uid == broker[-1].uid == uids[-1]

    def test_a_slice_has_its_own_runs(self, broker: Any) -> None:
        uids = self.runs(broker)
        newest = broker()[:3]
        assert _each_once(newest.table().compute()["run"]) == uids[-3:]
        assert _each_once(newest.dataset()["run"].values) == uids[-3:]
        assert list(newest.dataset(combine="tree").children) == uids[-3:]
        assert [doc["uid"] for name, doc in newest.documents() if name == "start"] == uids[-3:]
        assert _each_once(broker()[2:4].table().compute()["run"]) == uids[2:4]

    def test_inserted_elsewhere_the_order_is_the_same(self, broker: Any, tmp_path: Any) -> None:
        """The order is the same also for runs of one time."""
        from ...connect import connect

        uids = self.runs(broker)
        with connect(tmp_path / "copy") as other:
            insert_all(other, broker().documents())
            assert [header.uid for header in other()] == uids[::-1]
