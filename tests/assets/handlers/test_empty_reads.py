"""An empty region of cells has the shape and dtype that the same region would have otherwise."""

from __future__ import annotations

import h5py
import numpy as np
import zarr
from PIL import Image

from daskbroker.assets.handlers.contract import Datums
from daskbroker.assets.handlers.csv import StreamCSV
from daskbroker.assets.handlers.hdf5.detectors import Eiger, FlyScan, SingleHDF5, Xspress3
from daskbroker.assets.handlers.hdf5.frames import AreaDetectorHDF5, FrameHDF5, StreamHDF5
from daskbroker.assets.handlers.jpeg import StreamJPEG
from daskbroker.assets.handlers.npy import FrameNPY, SequenceNPY, SingleNPY, StreamNPY
from daskbroker.assets.handlers.tiff import AreaDetectorTIFF, StreamTIFF
from daskbroker.assets.handlers.zarr import StreamZarr
from daskbroker.assets.regions import take_roi
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5, write_npys, write_tiffs

DATA = frames(4, (5, 3), ">i2")
FRAME = DATA.shape[1:]
CLAIM = {"dtype": "array", "shape": [1, *FRAME]}
DETECTOR = "entry/instrument/detector/data"


def points(*numbers):
    return Datums.of([{"point_number": n} for n in numbers])


def nothings(*numbers):
    return Datums.of([{} for _ in numbers])


def named(name, **more):
    return lambda *numbers: Datums.of([{name: n, **more} for n in numbers])


def indices(*numbers):
    return Datums({"index": np.array(numbers, np.int64)}, len(numbers))


def handlers_in(folder):
    """Handlers, each with a function from numbers to datums."""
    whole = str(write_hdf5(folder / "whole.h5", DATA))
    spectra = str(write_hdf5(folder / "spectra.h5", DATA, DETECTOR))
    for number, frame in enumerate(DATA):
        write_hdf5(folder / f"s_{number}.h5", frame)
        Image.fromarray(frame.astype("u1")).save(folder / f"j_{number}.jpg")
    with h5py.File(folder / "e_0_master.h5", "w") as file:
        file["entry/data/data_000001"] = DATA
    write_npys(folder / "n", DATA)
    np.save(folder / "one.npy", DATA)
    write_tiffs(folder / "t", DATA, "t_{:06d}.tif")
    zarr.create_array(store=str(folder / "z"), data=DATA.astype("<i2"), chunks=(2, *FRAME))
    (folder / "c.csv").write_text("".join(f"{n},{n / 2}\n" for n in range(4)))
    tiffs, here, one = str(folder / "t"), str(folder), str(folder / "s_1.h5")
    named_t = {"template": "%s%s_%6.6d.tif", "filename": "t"}
    stream = {"data_key": CLAIM, "chunk_shape": [1, *FRAME]}
    two = {"shape": [2, *FRAME]}
    return {
        "AD_HDF5": (AreaDetectorHDF5(whole, 2), points),
        "AD_HDF5, one frame": (AreaDetectorHDF5(one), lambda *n: points(*[0] * len(n))),
        "AD_HDF5_SWMR_STREAM": (FrameHDF5(whole, swmr=False), named("frame")),
        "AD_HDF5_SINGLE": (SingleHDF5(here, "%s%s_%d.h5", "s", frame_per_point=2), points),
        "XSP3": (Xspress3(spectra), named("frame", channel=2)),
        "XSP3_FLY": (FlyScan(spectra), nothings),
        "AD_EIGER": (Eiger(f"{here}/e"), lambda *n: named("seq_id")(*[0] * len(n))),
        "AD_EIGER_SLICE": (Eiger(f"{here}/e"), named("frame_num", seq_id=0)),
        "AD_TIFF": (AreaDetectorTIFF(tiffs, **named_t, frame_per_point=2), points),
        "NPY_SEQ": (SequenceNPY(f"{here}/n"), named("index")),
        "npy": (SingleNPY(f"{here}/one.npy"), nothings),
        "npy_FRAMEWISE": (FrameNPY(f"{here}/one.npy"), named("frame_no")),
        "HDF5": (StreamHDF5(whole, dataset=AD_DATASET, data_key=two, swmr=False), indices),
        "TIFF": (StreamTIFF(tiffs, template="t_{:06d}.tif", **stream), indices),
        "TIFFs": (
            StreamTIFF(tiffs, template="t_{:06d}.tif", **{**stream, "data_key": two}), indices
        ),
        "NPY": (StreamNPY(f"{here}/n", join_method="concat", **stream), indices),
        "JPEG": (StreamJPEG(here, template="j_{:d}.jpg", **stream), indices),
        "CSV": (StreamCSV(f"{here}/c.csv", data_key={"shape": [1, 2]}), indices),
        "Zarr": (StreamZarr(f"{here}/z", data_key=CLAIM), indices),
    }  # fmt: skip


NEEDS_DATUM = {
    "AD_HDF5_SINGLE", "XSP3_FLY", "AD_EIGER", "AD_EIGER_SLICE", "AD_TIFF", "NPY_SEQ", "TIFF",
    "TIFFs", "NPY", "JPEG",
}  # fmt: skip
"""Handlers that know a file only by a datum, or what a datum asks of it."""


def test_empty_regions(tmp_path):
    for name, (handler, datums) in handlers_in(tmp_path).items():
        whole = handler.read(datums(0, 1))
        assert handler.cell_shape(datums(0)) == whole.shape[1:], name
        assert handler.cell_dtype(datums(0)) == whole.dtype, name
        before = [()]
        for axis in range(whole.ndim - 1):
            for part in (slice(0, 0), slice(1, 0), np.array([], np.int64)):
                before.append((slice(None),) * axis + (part,))
        before.append((0,) if whole.ndim < 3 else (0, slice(2, 2)))
        for roi in before:
            wanted = take_roi(whole, roi)
            found = handler.read(datums(0, 1), roi)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), (name, roi)
            none = handler.read(datums(), roi)
            if name in NEEDS_DATUM:
                assert len(none) == 0, name
                assert isinstance(none, list), name
            else:
                assert (none.shape, none.dtype) == (wanted[:0].shape, wanted.dtype), (name, roi)
