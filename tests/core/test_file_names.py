"""Names of files for any text."""

from __future__ import annotations

import re

import pytest

from daskbroker.core.file_names import file_name


@pytest.mark.parametrize("text", ["3a8f21", "primary", "motor-1_monitor", "x" * 64])
def test_harmless_text_stays(text):
    assert file_name(text) == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../../etc/passwd", "a/b", "a\\b", "a\0b", "größe", "\ud800", "x" * 65]
)
def test_other_text_becomes_a_name_of_its_own(text):
    assert re.fullmatch("~[0-9a-f]{24}", file_name(text))


def test_different_texts_have_different_names():
    texts = ["a/b", "a\\b", "a b", "a_b", "A_b"]
    assert len({file_name(text).lower() for text in texts[:4]}) == 4
    assert file_name("a/b") == file_name("a/b")
