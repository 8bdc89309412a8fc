"""What documents say of frames, events and names of files."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.assets.handlers import Datums
from daskbroker.assets.handlers.layout import frame_count, parse_slice
from daskbroker.assets.handlers.name_templates import numbered_name
from daskbroker.assets.regions import axes_of
from daskbroker.core.column_kinds import MISSING
from daskbroker.core.errors import FillError


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("img_{:05d}.tif", "img_00012.tif"),
        ("{}.tif", "12.tif"),
        ("{0:d}", "12"),
        ("{{x}}_{:>4}", "{x}_  12"),
        ("{:s}_{:3d}", "scan_ 12"),
        ("%s%s_%6.6d.tif", "scan_000012.tif"),
        ("%s%s_%04d.tif", "scan_0012.tif"),
        ("100%%_%d", "100%_12"),
        ("plain.tif", "plain.tif"),
    ],
)
def test_names_by_template(template, name):
    assert numbered_name(template, "scan", 12) == name


def test_a_file_name_is_no_template():
    assert numbered_name("{:s}_{:d}", "{0.real}", 1) == "{0.real}_1"
    assert numbered_name("%s_%d", "%d", 1) == "%d_1"


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("", ()),
        (":", (slice(None),)),
        (":, 5, ::2", (slice(None), 5, slice(None, None, 2))),
        ("[1:-1,:3]", (slice(1, -1), slice(None, 3))),
        (":,-2:", (slice(None), slice(-2, None))),
    ],
)
def test_slices_as_text(text, region):
    assert parse_slice(text) == region


@pytest.mark.parametrize("text", ["1 2", "a", ",", "1::2::3", "__import__('os')", "..."])
def test_texts_that_are_no_slice(text):
    with pytest.raises(FillError, match=r"the parameter 'slice'.* is not valid; write for example"):
        parse_slice(text)


def test_datums_by_rows_and_by_columns():
    datums = Datums.of([{"a": 1, "b": "x"}, {"a": 2}, {"a": 3, "b": None}])
    assert list(datums.rows()) == [{"a": 1, "b": "x"}, {"a": 2}, {"a": 3, "b": None}]
    assert list(datums.take(np.array([2, 0])).rows()) == [{"a": 3, "b": None}, {"a": 1, "b": "x"}]
    assert list(datums.take(slice(1, 2)).columns["b"]) == [MISSING]
    assert list(Datums({}, 2).rows()) == [{}, {}]
    assert len(Datums.range(3, 7)) == 4


@pytest.mark.parametrize("bad", [-1, 1.5, "1", None, MISSING, 2**63, float("nan")])
def test_positions_are_whole_numbers(bad):
    assert Datums.of([{"i": 2.0}, {"i": True}]).integers("i").tolist() == [2, 1]
    with pytest.raises(FillError, match="'i' of a datum must be an integer of 0 or more"):
        Datums.of([{"i": 0}, {"i": bad}]).integers("i")


def test_keywords_that_a_handler_does_not_know():
    with pytest.raises(FillError, match="are unknown to the handler; they have 'j'"):
        Datums.of([{"i": 0, "j": 1}]).integers("i")
    with pytest.raises(FillError, match="lack 'i'; they have 'j'"):
        Datums.of([{"j": 1}]).integers("i")
    assert len(Datums.of([]).integers("i")) == 0


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ((0, 0, 0), "more dimensions than the cell"),
        ((4,), "place 4 is outside"),
        ((np.array([0, -5]),), "place -5 is outside"),
        (("x",), "is not a valid index"),
        ((np.array([0.5]),), "cannot select"),
        ((None,), "is not a valid index"),
    ],
)
def test_regions_beyond_the_cell(roi, message):
    with pytest.raises(FillError, match=message):
        axes_of(roi, (4, 3))


@pytest.mark.parametrize("bad", [-1, 1.5, None, "x", [2], float("nan"), 1e300, 2**62])
def test_numbers_of_frames_that_make_no_sense(bad):
    with pytest.raises(FillError, match="'frame_per_point', the number of frames of an event"):
        frame_count(bad, "frame_per_point")


def test_numbers_of_frames():
    assert [frame_count(good, "n") for good in (0, 2, 2.0, "3", np.int64(4))] == [0, 2, 2, 3, 4]
