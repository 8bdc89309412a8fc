"""Layouts of single detectors give what area-detector-handlers give, in blocks."""

from __future__ import annotations

import h5py
import hdf5plugin
import numpy as np
import pytest
from area_detector_handlers.eiger import EigerHandler
from area_detector_handlers.handlers import (
    AreaDetectorHDF5SingleHandler,
    AreaDetectorHDF5SWMRTimestampHandler,
    AreaDetectorHDF5TimestampHandler,
    BulkXSPRESS,
    TimepixHDF5Handler,
    Xspress3HDF5Handler,
)

from daskbroker.assets.files.readable import ReadableRoots
from daskbroker.assets.handlers.contract import Datums
from daskbroker.assets.handlers.hdf5.frames import AreaDetectorHDF5
from daskbroker.assets.handlers.stored_frames import NoReference
from daskbroker.core.errors import FillError, FrameMissing
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

DETECTOR = "entry/instrument/detector"


def by_theirs(handler, datums):
    with handler:
        return np.stack([np.asarray(handler(**datum)) for datum in datums])


def check(reader, spec, path, datums, expected, rois, **kwargs):
    """Compare all cells, and regions of them."""
    for roi in ((), *rois):
        got = np.asarray(reader.resource(spec, path, datums, roi, **kwargs))
        wanted = expected
        for axis, item in reversed(list(enumerate(roi, 1))):
            wanted = wanted[(slice(None),) * axis + (item,)]
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == expected.dtype


# -- one frame a file ------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_HDF5_SWMR"])
@pytest.mark.parametrize("options", [{}, {"chunks": (6, 8)}, {"compression": "gzip"}])
def test_a_dataset_that_is_one_frame(tmp_path, reader, spec, options):
    options = {"chunks": (6, 8), **options} if "compression" in options else options
    path = write_hdf5(tmp_path / "f.h5", frames(1)[0], **options)
    point = {"point_number": 0}
    rois = [(0,), (slice(None), 2), (slice(None), np.array([4, 0]), slice(None, None, -3))]
    check(reader, spec, path, [point, point], np.stack([frames(1)] * 2), rois)
    with pytest.raises(FillError, match="has 1 frames, too few for place 1"):
        reader.resource(spec, path, [{"point_number": 1}])


@pytest.mark.parametrize("roots", [False, True])
def test_a_virtual_dataset_that_is_one_frame(tmp_path, reader, roots):
    """Of one file, of modules above each other and beside each other; rows of numbers may grow."""
    data = frames(2, (6, 4))
    for number, module in enumerate(data):
        write_hdf5(tmp_path / f"m{number}.h5", module, "/m", chunks=(3, 4))
    sources = [h5py.VirtualSource(f"m{n}.h5", "/m", (6, 4)) for n in range(2)]
    layouts = {}
    for name, (shape, parts) in {
        "whole": ((6, 4), [np.s_[:]]),
        "above": ((12, 4), [np.s_[:6], np.s_[6:]]),
        "beside": ((6, 8), [np.s_[:, :4], np.s_[:, 4:]]),
    }.items():
        layouts[name] = h5py.VirtualLayout(shape, data.dtype)
        for part, source in zip(parts, sources):
            layouts[name][part] = source
    wanted = {"whole": data[0], "above": np.concatenate(data), "beside": np.hstack(data)}
    point = {"point_number": 0}
    rois = [(0,), (slice(None), 2), (slice(None), np.array([4, 0]), slice(None, None, -3))]
    reader.roots = [tmp_path] if roots else None
    for name, layout in layouts.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_virtual_dataset(AD_DATASET, layout)
        handler = AreaDetectorHDF5(str(tmp_path / f"{name}.h5"))
        handler.readable = ReadableRoots.of(reader.roots)
        assert handler.cell_shape(Datums.of([point])) == (1, *wanted[name].shape)
        expected = np.stack([wanted[name][None]] * 2)
        path = tmp_path / f"{name}.h5"
        check(reader, "AD_HDF5", path, [point, point], expected, rois)
        if name == "whole":
            (located,) = handler.frames_of(Datums.of([point])).stored
            assert (located.path, located.shape) == (str(tmp_path / "m0.h5"), (1, 6, 4))
        else:
            with pytest.raises(NoReference, match=r"parts of other datasets|virtual"):
                handler.frames_of(Datums.of([point]))
    rows = h5py.VirtualLayout((6, 4), data.dtype, maxshape=(None, 4))
    rows[: h5py.h5s.UNLIMITED] = h5py.VirtualSource("m0.h5", "/m", (6, 4), maxshape=(None, 4))[
        : h5py.h5s.UNLIMITED
    ]
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_virtual_dataset(AD_DATASET, rows)
    got = reader.resource("AD_HDF5", tmp_path / "rows.h5", [{"point_number": 3}])
    np.testing.assert_array_equal(got[0], data[0, 3:4])


def test_rows_of_numbers_that_can_grow_are_frames(tmp_path, reader):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset(AD_DATASET, data=frames(5, (8,)), maxshape=(None, 8), chunks=(1, 8))
    got = reader.resource("AD_HDF5", tmp_path / "f.h5", [{"point_number": 3}])
    np.testing.assert_array_equal(got[0], frames(5, (8,))[3:4])


@pytest.mark.parametrize("n", [1, 2])
def test_a_file_for_each_frame(tmp_path, reader, n):
    for number, frame in enumerate(frames(6)):
        write_hdf5(tmp_path / f"img_{number:04d}.h5", frame)
    kwargs = {"template": "%s%s_%4.4d.h5", "filename": "img", "frame_per_point": n}
    datums = [{"point_number": p} for p in (2, 0)]
    theirs = AreaDetectorHDF5SingleHandler(str(tmp_path), **kwargs)
    expected = np.stack([theirs(**datum) for datum in datums])
    check(reader, "AD_HDF5_SINGLE", tmp_path, datums, expected, [(0,), (slice(None), 2)], **kwargs)


# -- other places ----------------------------------------------------------------------------


def test_timepix(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(6), f"{DETECTOR}/data")
    datums = [{"point_number": p} for p in (1, 0)]
    expected = by_theirs(TimepixHDF5Handler(str(path), frame_per_point=3), datums)
    check(reader, "TPX_HDF5", path, datums, expected, [(1, 2)], frame_per_point=3)


@pytest.mark.parametrize("n", [1, 3])
def test_times_of_frames(tmp_path, reader, n):
    path = tmp_path / "f.h5"
    attributes = "/entry/instrument/NDAttributes/NDArrayEpicsTS"
    write_hdf5(path, np.arange(6, dtype=np.uint32) + 1_000_000, f"{attributes}Sec")
    write_hdf5(path, np.arange(6, dtype=np.uint32) * 111_111_111, f"{attributes}nSec")
    datums = [{"point_number": p} for p in (1, 0)]
    expected = by_theirs(AreaDetectorHDF5TimestampHandler(str(path), n), datums)
    rois = [] if n == 1 else [(1,), (slice(None, None, -1),)]
    for spec in ("AD_HDF5_TS", "AD_HDF5_SWMR_TS"):
        check(reader, spec, path, datums, expected, rois, frame_per_point=n)
    assert AreaDetectorHDF5SWMRTimestampHandler.specs == {"AD_HDF5_SWMR_TS"}


# -- Xspress3 and fly scans ------------------------------------------------------------------


def test_spectra_of_channels(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(5, (4, 16)), f"{DETECTOR}/data", chunks=(1, 4, 16))
    datums = [{"frame": f, "channel": c} for f, c in ((0, 1), (4, 4), (2, 1), (2, 1))]
    expected = by_theirs(Xspress3HDF5Handler(str(path)), datums)
    check(reader, "XSP3", path, datums, expected, [(3,), (slice(2, 14, 5),)])
    for channel in (0, 5):
        with pytest.raises(FillError, match=f"no channel {channel} among 4"):
            reader.resource("XSP3", path, [{"frame": 0, "channel": channel}])
    with pytest.raises(FillError, match="too few for place 5"):
        reader.resource("XSP3", path, [{"frame": 5, "channel": 1}])
    with pytest.raises(FillError, match="datums lack 'channel'"):
        reader.resource("XSP3", path, [{"frame": 4}])


@pytest.mark.parametrize("spec", sorted(BulkXSPRESS.specs))
def test_whole_datasets(tmp_path, reader, spec):
    path = write_hdf5(tmp_path / "f.h5", frames(5, (4, 16)), f"{DETECTOR}/data")
    write_hdf5(path, np.arange(5) * 0.5, f"{DETECTOR}/NDAttributes/TIME")
    theirs = BulkXSPRESS(str(path))
    check(reader, spec, path, [{}], theirs()[None], [(2,), (slice(None), 1, slice(3, 5))])
    check(reader, spec, path, [{"target": "TIME"}], theirs("TIME")[None], [(3,)])
    theirs.close()


# -- Eiger -----------------------------------------------------------------------------------


def eiger(folder, counts=(3, 3, 2), group="entry/data"):
    """A master and its files as DECTRIS' file writer lays them out."""
    data, at = frames(sum(counts), (20, 30), np.uint32), 0
    with h5py.File(folder / "s_7_master.h5", "w") as master:
        for number, count in enumerate(counts, 1):
            name = f"s_7_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as file:
                file.create_dataset(
                    "entry/data/data",
                    data=data[at : at + count],
                    chunks=(1, 20, 30),
                    **hdf5plugin.Bitshuffle(),
                )
            master[f"{group}/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            at += count
        for name in EigerHandler.EIGER_MD_LAYOUT.values():
            master[name] = np.zeros((20, 30)) if name.endswith("mask") else 1.0
    return data


@pytest.mark.parametrize("spec", sorted(EigerHandler.specs))
@pytest.mark.parametrize("group", ["entry/data", "entry"])
@pytest.mark.parametrize("roots", [False, True])
def test_masters_of_eiger(tmp_path, reader, spec, group, roots):
    data = eiger(tmp_path, group=group)
    reader.roots = tmp_path if roots else None
    stem, datums = tmp_path / "s", [{"seq_id": 7}]
    if group == "entry/data":
        expected = by_theirs(EigerHandler(str(stem), images_per_file=1), datums)
        np.testing.assert_array_equal(expected[0], data)
    rois = [(4,), (slice(1, None, 3), 2), (np.array([7, 0]), slice(None), 5), (slice(0, 0),)]
    check(reader, spec, stem, datums, data[None], rois, images_per_file=3)
    datums = [{"seq_id": 7, "frame_num": n} for n in (5, 0)]
    check(reader, spec, stem, datums, data[[5, 0]], [(3,), (slice(None), 4)], frame_per_point=1)
    with pytest.raises(FillError, match="no frame 8 among 8"):
        reader.resource(spec, stem, [{"seq_id": 7, "frame_num": 8}], images_per_file=3)


@pytest.mark.parametrize("roots", [False, True])
def test_a_file_of_an_eiger_that_is_missing(tmp_path, reader, roots):
    """It is no shorter stack, but lost frames."""
    eiger(tmp_path)
    reader.roots = tmp_path if roots else None
    (tmp_path / "s_7_data_000003.h5").unlink()
    message = r"spec 'AD_EIGER2'.*s_7_data_000003\.h5', which is not there"
    with pytest.raises(FrameMissing, match=message):
        reader.resource("AD_EIGER2", tmp_path / "s", [{"seq_id": 7}], images_per_file=3)


def test_an_eiger_outside_the_roots(tmp_path, reader):
    inside = tmp_path / "in"
    inside.mkdir()
    eiger(tmp_path)
    (tmp_path / "s_7_master.h5").rename(inside / "s_7_master.h5")
    for path in tmp_path.glob("*data*"):
        (inside / path.name).symlink_to(path)
    reader.roots = inside
    with pytest.raises(FillError, match="outside the readable roots"):
        reader.resource("AD_EIGER2", inside / "s", [{"seq_id": 7}], images_per_file=3)
