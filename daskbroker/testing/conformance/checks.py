"""Conformance of checks: a sound store has no damage, and lost data are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import daskbroker

from ..base import Conformance, Put, insert_all
from ..runs import (
    baseline_run,
    external_run,
    make_run,
    paged_run,
    ragged_run,
    rewound_run,
    stream_datum_run,
)

SHAPES = (
    make_run, baseline_run, external_run, paged_run, ragged_run, rewound_run, stream_datum_run,
)  # fmt: skip


class CheckConformance(Conformance):
    """Tests of ``daskbroker.check`` on the store."""

    @pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
    def test_check_finds_nothing_in_a_sound_run(
        self, put: Put, broker: Any, shape: Callable[[], Any]
    ) -> None:
        """A check finds nothing in runs of every shape, in each state."""
        header = put(shape())
        check = daskbroker.check(broker)
        assert list(map(str, check)) == []
        assert (check.runs, check.damages) == (1, 0)
        assert list(daskbroker.check(header)) == []

    def test_check_names_a_lost_reference(self, put: Put, broker: Any) -> None:
        """The message names the datum with run, stream and key."""
        documents = list(external_run())
        lost = next(doc for name, doc in documents if name == "datum")
        header = put([pair for pair in documents if pair[1] is not lost])
        insert_all(broker, make_run(3))
        found = list(daskbroker.check(broker))
        assert {(one.run, one.stream, one.key) for one in found} == {(header.uid, "primary", "img")}
        assert repr(lost["datum_id"]) in found[0].problem

    def test_check_of_some_runs(self, broker: Any) -> None:
        """A search, a slice, a header or a list of headers chooses the runs to check."""
        insert_all(broker, [*make_run(3, uid="one-run"), *make_run(3, uid="other-run")])
        for runs in (broker(uid="one-run"), broker()[:1], broker["one-run"], [broker["one-run"]]):
            check = daskbroker.check(runs)
            assert list(check) == []
            assert check.runs == 1
