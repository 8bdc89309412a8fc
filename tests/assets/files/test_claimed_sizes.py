"""No memory is taken for a claimed size before the file is known to have the data."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import daskbroker
from daskbroker.core.errors import FillError
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import image_claim, stream_place
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5, write_npys, write_tiffs
from daskbroker.testing.runs import RunBuilder

TIFF = "multipart/related;type=image/tiff"
MEMORY = 600 * 2**20
"""Bytes of addresses that a case may take beside what the process has."""


def datums(spec, folder, name, shape, count=2, kwargs=None, key="point_number"):
    """A run whose ``img`` is in a file by datums."""
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(shape), "x": 0.5})
    place = {"root": str(folder), "resource_path": name, "resource_kwargs": kwargs or {}}
    found = run.resource(spec, **place)
    for number in range(count):
        more = {key: number} if key else {}
        run.event(descriptor, {"img": run.datum(found, **more), "x": 0.5}, filled={"img": False})
    return run.stop()


def streamed(mimetype, path, shape, parameters, indices=(0, 2)):
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(shape, external="STREAM:"), "x": 0.5})
    found = run.stream_resource(
        "img", mimetype=mimetype, uri=f"file://localhost{path}", parameters=parameters
    )
    run.stream_datum(found, descriptor, indices)
    for _ in range(2):
        run.event(descriptor, {"x": 0.5})
    return run.stop()


def sparse(path, shape, **options):
    """Create a dataset of a large declared shape, of which nothing is written."""
    with h5py.File(path, "w") as file:
        file.create_dataset(AD_DATASET, shape, np.uint16, **options)
    return path


def inflating(path, data, chunk=(1, 128, 128), mask=0, **options):
    """Create a dataset whose chunks unpack to more than the size of a chunk."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            AD_DATASET, (2, *chunk[1:]), np.uint16, chunks=chunk, compression="gzip", **options
        )
        for frame in range(2):
            dataset.id.write_direct_chunk((frame, 0, 0), data, mask)
    return path


# -- cases: each gives documents ---------------------------------------------------------------


def other_shape(folder):
    sparse(folder / "f.h5", (3, 10**5, 10**5))
    return datums("AD_HDF5", folder, "f.h5", (1, 6, 8))


def same_shape(folder):
    """The descriptor has the same wrong shape."""
    sparse(folder / "f.h5", (3, 10**6, 10**6))
    return datums("AD_HDF5", folder, "f.h5", (1, 10**6, 10**6))


def no_shape(folder):
    sparse(folder / "f.h5", (3, 10**5, 10**5), chunks=(1, 1000, 1000), compression="gzip")
    return datums("AD_HDF5", folder, "f.h5", [])


def stream_of_same_shape(folder):
    sparse(folder / "f.h5", (3, 10**6, 10**6))
    parameters = {"dataset": AD_DATASET}
    return streamed("application/x-hdf5", folder / "f.h5", (1, 10**6, 10**6), parameters)


def many_frames_a_point(folder):
    sparse(folder / "f.h5", (10**12, 6, 8), chunks=(1, 6, 8))
    kwargs = {"frame_per_point": 10**9}
    return datums("AD_HDF5", folder, "f.h5", (10**9, 6, 8), kwargs=kwargs)


def points_that_overflow(folder):
    """2**62 * 4 is 0 in 64 bits."""
    write_hdf5(folder / "f.h5", frames(8))
    docs = datums("AD_HDF5", folder, "f.h5", (4, 6, 8), kwargs={"frame_per_point": 4})
    for name, doc in docs:
        if name == "datum":
            doc["datum_kwargs"] = {"point_number": 2**62}
    return docs


def chunks_that_inflate(folder):
    """Each chunk unpacks to 128 MB instead of 32 KB."""
    inflating(folder / "f.h5", _zeros(2**27))
    return datums("AD_HDF5", folder, "f.h5", (1, 128, 128))


@lru_cache
def _zeros(size):
    """Return deflated zeros, made without holding all of them in memory."""
    deflate, piece = zlib.compressobj(1), bytes(2**24)
    return b"".join(deflate.compress(piece) for _ in range(size // 2**24)) + deflate.flush()


def chunks_that_are_stored_too_large(folder):
    """Chunks that would unpack to 1 GB, of which the first part is valid."""
    inflating(folder / "f.h5", zlib.compress(bytes(2**20), 9) + _zeros(2**30))
    return datums("AD_HDF5", folder, "f.h5", (1, 128, 128))


def chunks_that_inflate_at_once(folder):
    inflating(folder / "f.h5", _zeros(2**30))
    return datums("AD_HDF5", folder, "f.h5", (1, 128, 128))


def chunks_with_a_checksum_that_inflate(folder):
    inflating(folder / "f.h5", _zeros(2**27), mask=0b10, fletcher32=True)
    return datums("AD_HDF5", folder, "f.h5", (1, 128, 128))


def chunk_larger_than_the_dataset(folder):
    with h5py.File(folder / "f.h5", "w") as file:
        file.create_dataset(
            AD_DATASET,
            (2, 6, 8),
            np.uint16,
            chunks=(40_000_000, 6, 8),
            maxshape=(None, 6, 8),
            compression="gzip",
        )
    return datums("AD_HDF5", folder, "f.h5", (1, 6, 8))


def tiff_header(folder):
    """A page of 300000 x 300000 pixels, of which the file has few bytes."""
    write_tiffs(folder, frames(2, (64, 64)), "img_{:05d}.tif")
    for path in folder.glob("*.tif"):
        with tifffile.TiffFile(path, mode="r+b") as file:
            for tag in ("ImageWidth", "ImageLength"):
                file.pages[0].tags[tag].overwrite(300_000)
    return streamed(TIFF, f"{folder}/", (1, 64, 64), {"template": "img_{:05d}.tif"})


def tiff_header_that_is_claimed(folder):
    tiff_header(folder)
    shape = (1, 300_000, 300_000)
    return streamed(TIFF, f"{folder}/", shape, {"template": "img_{:05d}.tif"})


def tiff_strip_that_inflates(folder):
    path = folder / "img_{:05d}.tif"
    for number in range(2):
        tifffile.imwrite(
            str(path).format(number), frames(1, (64, 64))[0], compression="zlib", rowsperstrip=64
        )
        data = _zeros(2**30)
        with tifffile.TiffFile(str(path).format(number), mode="r+b") as file:
            file.filehandle.seek(0, 2)
            end = file.filehandle.tell()
            file.filehandle.write(data)
            tags = file.pages[0].tags
            tags["StripOffsets"].overwrite([end])
            tags["StripByteCounts"].overwrite([len(data)])
    return streamed(TIFF, f"{folder}/", (1, 64, 64), {"template": "img_{:05d}.tif"})


def tiff_frames_a_point(folder):
    write_tiffs(folder, frames(2), "img_{:06d}.tif")
    kwargs = {"template": "%s%s_%6.6d.tif", "filename": "img", "frame_per_point": 2**31}
    return datums("AD_TIFF", folder, "", (2**31, 6, 8), kwargs=kwargs)


def npy_header(folder):
    write_npys(folder / "n", frames(2))
    for path in folder.glob("*.npy"):
        claimed = path.read_bytes().replace(b"'shape': (6, 8), }", b"'shape': (10**6,)}")
        path.write_bytes(claimed.replace(b"(10**6,)}", b"(9000000, 900000), }"))
    return datums("NPY_SEQ", folder, "n", (9000000, 900000), key="index")


def more_than_there_is_memory(folder):
    """The file has all of the data."""
    for number in range(2):
        np.save(folder / f"n_{number}.npy", np.zeros((6, 8), "u1"))
        path = folder / f"n_{number}.npy"
        head = path.read_bytes()[:128].replace(b"(6, 8), }  ", b"(2147483648,), }")
        path.write_bytes(head[:127] + b"\n")
        os.truncate(path, 128 + 2**31)
    return datums("NPY_SEQ", folder, "n", (2**31,), key="index")


def events_without_values(folder):
    """There is only the claim."""
    run = RunBuilder()
    claim = image_claim((10**6, 10**6), dtype_numpy="<f8")
    descriptor = run.descriptor({"img": claim, "x": 0.5})
    for _ in range(2):
        run.event(descriptor, {"x": 0.5, "img": None}, filled={"img": False})
    return run.stop()


def pipe(folder):
    os.mkfifo(folder / "f.h5")
    return datums("AD_HDF5", folder, "f.h5", (1, 6, 8))


def pipe_behind_a_link(folder):
    os.mkfifo(folder / "pipe")
    (folder / "f.h5").symlink_to("pipe")
    return datums("AD_HDF5_SWMR", folder, "f.h5", (1, 6, 8))


def pipe_of_tiff(folder):
    os.mkfifo(folder / "img_000000.tif")
    kwargs = {"template": "%s%s_%6.6d.tif", "filename": "img"}
    return datums("AD_TIFF", folder, "", (1, 6, 8), kwargs=kwargs)


def pipe_of_npy(folder):
    os.mkfifo(folder / "n_0.npy")
    return datums("NPY_SEQ", folder, "n", (6, 8), key="index")


def a_socket(folder):
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(folder)
        made.bind("f.h5")
        os.chdir(here)
    return datums("AD_HDF5", folder, "f.h5", (1, 6, 8))


def device(folder):
    (folder / "n_0.npy").symlink_to("/dev/zero")
    return datums("NPY_SEQ", folder, "n", (6, 8), key="index")


def of_the_system(folder):
    (folder / "n_0.npy").symlink_to("/proc/self/mem")
    return datums("NPY_SEQ", folder, "n", (6, 8), key="index")


def a_folder(folder):
    (folder / "f.h5").mkdir()
    return datums("AD_HDF5", folder, "f.h5", (1, 6, 8))


CASES = {
    other_shape: "declares the shape (1, 6, 8), the file holds (1, 100000, 100000)",
    same_shape: "are declared, but the file has only",
    no_shape: "are declared, but the file has only",
    stream_of_same_shape: "are declared, but the file has only",
    many_frames_a_point: "are declared, but the file has only",
    points_that_overflow: "too few for place",
    chunks_that_inflate: "unpack to the 32768 bytes of a chunk",
    chunks_that_are_stored_too_large: "is not possible in this file",
    chunks_that_inflate_at_once: "is not possible in this file",
    chunks_with_a_checksum_that_inflate: "unpack to the 32768 bytes of a chunk",
    chunk_larger_than_the_dataset: "for rows of 96 bytes",
    tiff_header: "declares the shape (1, 64, 64), the file holds",
    tiff_header_that_is_claimed: "",
    tiff_strip_that_inflates: "decompresses to more than",
    tiff_frames_a_point: "no such file",
    npy_header: "the file declares an array of (9000000, 900000)",
    more_than_there_is_memory: "there is not enough memory for the requested cells",
    events_without_values: "of which none has a value",
    pipe: "is a pipe; only regular files are read",
    pipe_behind_a_link: "is a pipe; only regular files are read",
    pipe_of_tiff: "is a pipe; only regular files are read",
    pipe_of_npy: "is a pipe; only regular files are read",
    a_socket: "is a socket; only regular files are read",
    device: "is a device; only regular files are read",
    of_the_system: "",
    a_folder: "is a folder; only regular files are read",
}
VIEWS = ("table", "dataset", "documents", "lazy")


def ask(header, view):
    if view == "table":
        return header.table()["img"].compute(scheduler="synchronous")
    if view == "dataset":
        return header.dataset()["img"].compute(scheduler="synchronous")
    if view == "lazy":
        return header.dataset(chunks=None)["img"].values
    return [doc for name, doc in header.documents() if name == "event"]


def answers(folder):
    """Return the error of each view for each case, in a process with limited memory and time."""
    found = {}
    with daskbroker.temp() as db:
        for case in CASES:
            (Path(folder) / case.__name__).mkdir()
            docs = case(Path(folder) / case.__name__)
            insert_all(db, docs)
            found[case.__name__] = {"run": docs[0][1]["uid"]}
        with suppress(FillError):
            ask(db[-1], "documents")  # what is imported late
        with open("/proc/self/statm") as file:
            have = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
        for told in found.values():
            header = db[told["run"]]
            told["x"] = len(header.table()[["x"]].compute(scheduler="synchronous"))
            for view in VIEWS:
                signal.alarm(20)
                try:
                    ask(header, view)
                except FillError as error:
                    told[view] = str(error)
                else:
                    told[view] = "no error"
                signal.alarm(0)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    script = f"""
        import json, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_claimed_sizes import answers
        print(json.dumps(answers({str(tmp_path_factory.mktemp("claims"))!r})))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    known = {"DASK_DASKBROKER__PEEK_AFTER_STOP": "false"}  # full claims are to be believed
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=250, env=os.environ | known
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_claims_are_refused_before_memory_is_taken(told, case):
    found = told[case.__name__]
    assert found["x"] == 2  # other columns are not touched
    for view in VIEWS:
        if case is events_without_values and view != "dataset" and view != "lazy":
            assert found[view] == "no error"  # cells are None
            continue
        for word in (found["run"], "'primary'", "'img'", CASES[case]):
            assert word in found[view], (view, found[view])


@pytest.mark.parametrize("with_events", [True, False])
def test_frames_that_a_stream_datum_claims(tmp_path, with_events):
    """Two thousand million of them, of which the file has two."""
    path = write_hdf5(tmp_path / "f.h5", frames(2))
    run = RunBuilder()
    claim = image_claim((1, 6, 8), external="STREAM:")
    descriptor = run.descriptor({"img": claim, "x": 0.5} if with_events else {"img": claim})
    found = run.stream_resource("img", **stream_place(path))
    run.stream_datum(found, descriptor, (0, 2**31))
    for _ in range(2 if with_events else 0):
        run.event(descriptor, {"x": 0.5})
    with daskbroker.temp() as db:
        insert_all(db, run.stop(num_events={"primary": 2}))
        header = db[-1]
        tracemalloc.start()
        lazy = header.dataset(chunks=None)["img"]
        np.testing.assert_array_equal(lazy[:2].values, frames(2)[:, None])
        np.testing.assert_array_equal(lazy[1].values, frames(2)[1:])
        if not with_events:
            assert len(lazy) == 2**31
            with pytest.raises(FillError, match="too few for place"):
                lazy[-1].values  # noqa: B018
            with pytest.raises(FillError, match="too few for place"):
                header.table()["img"].partitions[1].compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**29
