"""Names of variables and streams in files."""

from __future__ import annotations

import itertools

import pytest

from daskbroker.core.group_names import group_name, of_group_name

ODD = ["", ".", "..", ".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json", "a/b", "a\\b"]
PARTS = ["%", "25", "2E", "2F", "5C", "00", "1B", ".", "/", "\\", "\0", "\x1b", "a"]


def test_every_name_comes_back_and_has_a_name_of_its_own():
    names = {
        *ODD,
        *("".join(parts) for n in (1, 2, 3, 4) for parts in itertools.product(PARTS, repeat=n)),
    }
    made = {name: group_name(name) for name in names}
    assert len(set(made.values())) == len(names)
    assert {name: of_group_name(found) for name, found in made.items()} == {n: n for n in names}
    assert not any(set("/\\\0\x1b") & set(found) or found in ("", *ODD) for found in made.values())


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_no_name_acts_on_a_terminal(code):
    found = group_name(f"a{chr(code)}b")
    assert found.isprintable()
    assert of_group_name(found) == f"a{chr(code)}b"


@pytest.mark.parametrize("name", ["det", "a.b", "größe", "50%", "a%b", ".hidden", "...", "%2f"])
def test_other_names_stay(name):
    assert group_name(name) == name
