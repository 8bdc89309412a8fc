"""Numbers of uids: the same one by one and together, spread evenly, close for one run."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.stores.embedded.uid_keys import KEY_BITS, uid_key, uid_keys

texts = st.text(max_size=40) | st.uuids().map(str) | st.text("ab\0", max_size=20)


@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from(["event", "datum"]))
def test_one_by_one_and_together(uids, kind):
    assert uid_keys(uids, kind, 5).tolist() == [uid_key(uid, kind, 5) for uid in uids]


@given(st.integers(1, 48).flatmap(lambda n: st.lists(st.text("abc-9\0é", min_size=n, max_size=n))))
def test_uids_of_one_length(uids):
    if uids:
        assert uid_keys(uids, "event", 1).tolist() == [uid_key(uid, "event", 1) for uid in uids]


@pytest.mark.parametrize("make", [lambda n: str(uuid.UUID(int=n)), lambda n: f"resource/{n}"])
def test_they_are_spread_evenly(make):
    keys = uid_keys([make(n) for n in range(20_000)], "event", 3) - (3 << KEY_BITS)
    assert keys.min() >= 0
    assert keys.max() < 2**KEY_BITS
    assert len(np.unique(keys)) > 19_990
    counts = np.bincount(keys >> (KEY_BITS - 4), minlength=16)
    assert counts.min() > 1100  # of 1,250
    assert counts.max() < 1400


def test_runs_and_kinds_are_apart():
    assert uid_key("a", "event", 1) != uid_key("a", "datum", 1)
    assert uid_key("a", "event", 2) - uid_key("a", "event", 1) == 2**KEY_BITS


def test_lone_surrogates():
    assert uid_keys(["\ud800"], "event", 1).tolist() == [uid_key("\ud800", "event", 1)]
