"""No file outside the readable roots is opened, whatever leads there."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.assets.files.readable import ANYWHERE, ReadableRoots
from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames, write_hdf5, write_npys, write_tiffs

TIFF = "multipart/related;type=image/tiff"


@pytest.fixture
def folders(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        write_hdf5_in(folder)
        write_tiffs(folder / "tiffs", frames(2), "img_{:03d}.tif")
        write_npys(folder / "n", frames(2))
    return inside, outside


def write_hdf5_in(folder):
    folder.mkdir()
    write_hdf5(folder / "f.h5", frames(2))


def test_every_way_out_is_refused(folders, reader):
    inside, outside = folders
    (inside / "link.h5").symlink_to(outside / "f.h5")
    (inside / "linked").symlink_to(outside)
    (inside / "l_0.npy").symlink_to(outside / "n_0.npy")
    point, index = [{"point_number": 0}], [{"index": 0}]
    tries = {
        "absolute": lambda: reader.resource("AD_HDF5", outside / "f.h5", point),
        "..": lambda: reader.resource("AD_HDF5", inside / ".." / "out" / "f.h5", point),
        "link": lambda: reader.resource("AD_HDF5", inside / "link.h5", point),
        ".. after link": lambda: reader.resource(
            "AD_HDF5", inside / "linked" / ".." / "out" / "f.h5", point
        ),
        "folder": lambda: reader.resource("AD_HDF5", inside / "linked" / "f.h5", point),
        "npy": lambda: reader.resource("NPY_SEQ", outside / "n", index),
        "npy link": lambda: reader.resource("NPY_SEQ", inside / "l", index),
        "npy file": lambda: reader.resource("npy", outside / "n_0.npy", [{}]),
        "tiff name": lambda: reader.resource(
            *("AD_TIFF", inside, point),
            template="%s%s_%3.3d.tif",
            filename="../out/tiffs/img",
        ),
        "tiff template": lambda: reader.resource(
            *("AD_TIFF", inside, point),
            template=f"{outside}/tiffs/img%.0s%.0s_%3.3d.tif",
            filename="",
        ),
        "stream template": lambda: reader.stream(
            TIFF, f"{inside}/", (1, 6, 8), [0], template="../out/tiffs/img_{:03d}.tif"
        ),
        "%-escapes": lambda: reader.stream(
            "application/x-hdf5",
            f"{inside}/%2e%2e/out/f.h5",
            (1, 6, 8),
            [0],
            dataset="/entry/data/data",
        ),
    }
    for read in tries.values():
        assert len(read()) == 1
    reader.roots = [inside]
    for name, read in tries.items():
        with pytest.raises(FillError, match="outside the readable roots"):
            print(name, read())


def test_what_is_inside_is_read(folders, reader):
    inside, _ = folders
    reader.roots = [inside]
    (inside / "link.h5").symlink_to(inside / "f.h5")
    for name in ("f.h5", "link.h5", "tiffs/../f.h5"):
        got = reader.resource("AD_HDF5", inside / name, [{"point_number": 1}])
        np.testing.assert_array_equal(got[0, 0], frames(2)[1])


def test_a_root_is_a_folder_and_no_beginning_of_a_name(tmp_path):
    roots = ReadableRoots.of([tmp_path / "data"])
    (tmp_path / "data-of-others").mkdir()
    with pytest.raises(FillError, match=r"data-of-others.*outside the readable roots"):
        roots.check(str(tmp_path / "data-of-others" / "f.h5"))
    assert roots.check(str(tmp_path / "data" / "f.h5")) == str(tmp_path / "data" / "f.h5")
    assert ReadableRoots.of(tmp_path) == ReadableRoots.of([str(tmp_path)])
    assert ReadableRoots.of(["/"]).check("/etc") == "/etc"


def test_no_roots_no_limit():
    assert ReadableRoots.of(None) is ANYWHERE
    assert ANYWHERE.check("../a") == "../a"
    with pytest.raises(FillError, match="'/etc', outside the readable roots"):
        ReadableRoots.of([]).check("/etc")
