"""Classic handlers: whatever class takes a path, then the keywords of a datum."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from area_detector_handlers.handlers import (
    AreaDetectorHDF5Handler,
    AreaDetectorTiffHandler,
)
from ophyd.sim import NumpySeqHandler

from daskbroker.assets.handlers import Datums
from daskbroker.assets.handlers.classic import ClassicHandler
from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames, write_hdf5, write_npys, write_tiffs


class Rings:
    """Handler that computes frames without a file."""

    def __init__(self, path, radius):
        self.radius = radius

    def __call__(self, gap):
        return np.full((2, 3), gap * self.radius)


class Tables:
    """Handler that returns a list of data frames, as at some beamlines."""

    def __init__(self, path):
        pass

    def __call__(self, count):
        return [pd.DataFrame({"x": range(count)})] * count


class Fails:
    def __init__(self, path):
        self.calls = 0

    def __call__(self, **datum):
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("called again")
        return np.zeros(2)


class Reads:
    """Handler that returns an h5py dataset, not read."""

    def __init__(self, path):
        self.file = h5py.File(path, "r")

    def __call__(self):
        return self.file["/entry/data/data"]


def test_computed(reader):
    """A resource without a file: root "/", resource_path ""."""
    reader.registry.register("newton", Rings)
    got = reader.resource("newton", "/", [{"gap": 0.5}, {"gap": 2.0}], radius=4)
    np.testing.assert_array_equal(got, np.stack([np.full((2, 3), 2.0), np.full((2, 3), 8.0)]))


@pytest.mark.parametrize("roi", [(), (0,), (slice(None), slice(2, 5)), (slice(None), 1, -1)])
def test_installed_handlers_equal_our_own(tmp_path, reader, roi):
    """area-detector-handlers and ophyd, adapted, give what our block handlers give."""
    hdf5 = write_hdf5(tmp_path / "f.h5", frames(6), compression="gzip")
    tiff = write_tiffs(tmp_path / "t", frames(6), "img_{:03d}.tif")
    stem = write_npys(tmp_path / "n", frames(6))
    template = {"template": "%s%s_%3.3d.tif", "filename": "img"}
    points = [{"point_number": p} for p in (2, 0, 1)]
    cases = [
        ("AD_HDF5", AreaDetectorHDF5Handler, hdf5, points, {"frame_per_point": 2}, roi),
        ("AD_TIFF", AreaDetectorTiffHandler, f"{tiff}/", points, template, roi),
        ("NPY_SEQ", NumpySeqHandler, stem, [{"index": 3}, {"index": 1}], {}, roi[1:]),
    ]
    ours = [
        reader.resource(spec, path, datums, region, **kwargs)
        for spec, _, path, datums, kwargs, region in cases
    ]
    for spec, theirs, _, _, _, _ in cases:
        reader.registry.register(spec, theirs)
    for expected, (spec, _, path, datums, kwargs, region) in zip(ours, cases, strict=True):
        got = reader.resource(spec, path, datums, region, **kwargs)
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype


def test_arrays_of_the_other_byte_order(reader):
    """They become native, as those of block handlers, with or without a common shape."""
    reader.registry.register("B", lambda path: lambda n: np.arange(n, dtype=">u2"))
    for lengths in ([3, 3], [3, 2]):
        cells = reader.resource("B", "/", [{"n": n} for n in lengths])
        assert all(cell.dtype == "=u2" and cell.dtype.isnative for cell in cells)
        assert [cell.tolist() for cell in cells] == [list(range(n)) for n in lengths]


def test_tables_pass_as_they_are(reader):
    reader.registry.register("T", Tables)
    got = reader.resource("T", "/", [{"count": 1}, {"count": 2}])
    assert [len(cell) for cell in got] == [1, 2]
    assert isinstance(got[1][0], pd.DataFrame)
    with pytest.raises(FillError, match="returned a list, which has no dimensions"):
        reader.resource("T", "/", [{"count": 1}], (slice(0, 1),))


def test_unread_datasets_are_read(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(4))
    reader.registry.register("R", Reads)
    got = reader.resource("R", path, [{}], (slice(1, 3),))
    np.testing.assert_array_equal(got, frames(4)[None, 1:3])


def test_cells_without_common_shape_are_a_list():
    handler = ClassicHandler(lambda path: lambda n: np.arange(n), "/")
    got = handler.read(Datums.of([{"n": 2}, {"n": 0}, {"n": 2}]))
    assert [cell.tolist() for cell in got] == [[0, 1], [], [0, 1]]


def test_numbers_and_types():
    handler = ClassicHandler(lambda path: lambda v: v, "/")
    assert handler.read(Datums.of([{"v": 1.5}, {"v": 2.5}])).tolist() == [1.5, 2.5]
    mixed = handler.read(Datums.of([{"v": 1}, {"v": 2.5}]))
    assert [cell.dtype.kind for cell in mixed] == ["i", "f"]
    assert handler.read(Datums.of([{"v": None}, {"v": "a"}])) == [None, "a"]
    masked = np.ma.masked_less(np.arange(3), 1)
    assert handler.read(Datums.of([{"v": masked}]))[0].mask.tolist() == [True, False, False]


def test_keywords_are_plain_values_and_may_differ():
    seen = []
    handler = ClassicHandler(lambda path: lambda **datum: seen.append(datum) or 0, "/")
    handler.read(Datums({"index": np.arange(2)}, 2))
    handler.read(Datums.of([{"a": 1}, {"b": "x"}, {}]))
    assert seen == [{"index": 0}, {"index": 1}, {"a": 1}, {"b": "x"}, {}]
    assert type(seen[0]["index"]) is int


def test_failures_name_everything(reader):
    reader.registry.register("F", Fails)
    reader.registry.register("newton", Rings)
    label = "run 'r', stream 's', key 'k', spec 'F', path '/d/f': RuntimeError: called again"
    with pytest.raises(FillError, match=label) as caught:
        reader.resource("F", "/d/f", [{}, {}])
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(FillError, match=r"TypeError: .*'radius'"):
        reader.resource("newton", "/", [{"gap": 1}])
    with pytest.raises(FillError, match=r"TypeError: .*'gab'"):
        reader.resource("newton", "/", [{"gab": 1}], radius=1)


def test_roots_are_checked_as_far_as_a_handler_tells(tmp_path, reader):
    (tmp_path / "in").mkdir()
    write_npys(tmp_path / "out", frames(1))
    (tmp_path / "in" / "f_0.npy").symlink_to(tmp_path / "out_0.npy")
    reader.roots = [tmp_path / "in"]
    reader.registry.register("NPY_SEQ", NumpySeqHandler)
    with pytest.raises(FillError, match="outside the readable roots"):
        reader.resource("NPY_SEQ", tmp_path / "in" / "f", [{"index": 0}])
    reader.registry.register("G", lambda path, **kwargs: lambda **datum: 0)
    assert reader.resource("G", tmp_path / "in", [{}], template="a..b/c").tolist() == [0]
    for kwargs, datum in (({"template": "x/../%d"}, {}), ({}, {"name": "..\\x"})):
        with pytest.raises(FillError, match=r"contains '\.\.'"):
            reader.resource("G", tmp_path / "in", [datum], **kwargs)
