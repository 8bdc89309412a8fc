"""Digests of content."""

from __future__ import annotations

import pytest

from daskbroker.core.digests import digest_of


@pytest.mark.parametrize(
    ("content", "size", "digest"),
    [
        ("run", 16, "f0ebc31c61313b7071b2a5cc6be9de19"),
        (b"run", 16, "f0ebc31c61313b7071b2a5cc6be9de19"),
        ("\ud800é", 8, "4bfef33a3118c6e7"),
        ("", 12, "b8e1dda3ac0aa3820ad2990b"),
    ],
)
def test_a_digest_stays_the_same_as_it_is_stored(content, size, digest):
    assert digest_of(content, size) == digest
