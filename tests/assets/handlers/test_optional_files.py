"""Formats that are read by packages which need not be installed: Zarr, CBF and EDF."""

from __future__ import annotations

import sys

import fabio.cbfimage
import fabio.edfimage
import numpy as np
import pytest
import zarr

from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames

ZARR = "application/x-zarr"
ROIS = [(), (slice(None), 2), (0, slice(None, None, -2), np.array([7, 0]))]


def cells(data, per_event, events, roi):
    found = data.reshape(-1, per_event, *data.shape[1:])[events]
    for axis, item in reversed(list(enumerate(roi, 1))):
        found = found[(slice(None),) * axis + (item,)]
    return found


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("options", [{}, {"compressors": None}, {"shards": (4, 6, 8)}])
@pytest.mark.parametrize("name", ["", "detector/data"])
def test_zarr(tmp_path, reader, version, options, name):
    if version == 2 and "shards" in options:
        options = {"dtype": ">i4"}
    data = frames(12).astype(options.get("dtype", "<u2"))
    array = zarr.create_array(
        str(tmp_path / name), shape=data.shape, dtype=data.dtype, chunks=(2, 6, 4),
        zarr_format=version, **{k: v for k, v in options.items() if k != "dtype"},
    )  # fmt: skip
    array[:] = data  # zarr before 3.1.6 writes shards wrongly if `data` is given above
    parameters = {"dataset": name} if name else {}
    reader.roots = tmp_path
    for roi in ROIS:
        for per_event in (1, 3):
            got = reader.stream(ZARR, tmp_path, (per_event, 6, 8), [3, 0, 3], roi, **parameters)
            np.testing.assert_array_equal(got, cells(data, per_event, [3, 0, 3], roi))
            assert got.dtype == data.dtype.newbyteorder("=")
    assert reader.stream_shape(ZARR, tmp_path, (3, 6, 8), **parameters) == (3, 6, 8)
    with pytest.raises(FillError, match="has 12 frames, too few for place 12"):
        reader.stream(ZARR, tmp_path, (1, 6, 8), [12], **parameters)


def test_an_array_that_grows(tmp_path, reader):
    array = zarr.create_array(str(tmp_path), data=frames(2), chunks=(1, 6, 8))
    assert len(reader.stream(ZARR, tmp_path, (1, 6, 8), [1])) == 1
    array.resize((3, 6, 8))
    array[2] = 7
    assert (reader.stream(ZARR, tmp_path, (1, 6, 8), [2]) == 7).all()


def test_zarr_outside_the_roots(tmp_path, reader):
    zarr.create_array(str(tmp_path / "in" / "a"), data=frames(2), chunks=(1, 6, 8))
    for path in (tmp_path / "in" / "a" / "c").rglob("0"):
        if path.is_file():
            path.rename(tmp_path / "secret")
            path.symlink_to(tmp_path / "secret")
            break
    reader.roots = tmp_path / "in"
    with pytest.raises(FillError, match="outside the readable roots"):
        reader.stream(ZARR, tmp_path / "in" / "a", (1, 6, 8), [0, 1])
    with pytest.raises(FillError, match="leads out of the folder"):
        reader.stream(ZARR, tmp_path / "in" / "a", (1, 6, 8), [0], dataset="../../b")
    with pytest.raises(FillError, match="no Zarr array 'b'"):
        reader.stream(ZARR, tmp_path / "in" / "a", (1, 6, 8), [0], dataset="b")


def write(kind, path, image):
    made = fabio.cbfimage.CbfImage if kind == "cbf" else fabio.edfimage.EdfImage
    made(data=image).write(str(path))


@pytest.mark.parametrize(("kind", "dtype"), [("cbf", "i4"), ("edf", "u2"), ("edf", "f4")])
def test_cbf_and_edf(tmp_path, reader, kind, dtype):
    data = frames(4, (6, 8), dtype)
    for number, frame in enumerate(data):
        write(kind, tmp_path / f"i_{number}.{kind}", frame)
    mimetype = f"multipart/related;type=image/x-{kind}"
    arguments = mimetype, f"{tmp_path}/", (2, 6, 8)
    for roi in ROIS:
        got = reader.stream(*arguments, [1, 0], roi, template=f"i_{{}}.{kind}")
        np.testing.assert_array_equal(got, cells(data, 2, [1, 0], roi))
        assert got.dtype == data.dtype
    assert reader.stream_shape(*arguments, template=f"i_{{}}.{kind}") == (2, 6, 8)


@pytest.mark.parametrize("n", [1, 2])
def test_pilatus_by_datums(tmp_path, reader, n):
    data = frames(4, (6, 8), np.int32)
    for number, frame in enumerate(data, 1):
        write("cbf", tmp_path / f"p_{number:05d}.cbf", frame)
    kwargs = {"template": "%s%s_%5.5d.cbf", "filename": "p", "frame_per_point": n}
    got = reader.resource("AD_CBF", tmp_path, [{"point_number": p} for p in (1, 0)], **kwargs)
    np.testing.assert_array_equal(got, data.reshape(-1, n, 6, 8)[[1, 0]])


@pytest.mark.parametrize("kind", ["cbf", "edf"])
def test_damaged_images(tmp_path, reader, kind):
    path = tmp_path / f"i_0.{kind}"
    write(kind, path, frames(1, (64, 64), np.int32)[0])
    sound = path.read_bytes()
    size = b"X-Binary-Size-Fastest-Dimension: 64" if kind == "cbf" else b"Dim_1 = 64 ;"
    huge = sound.replace(size, size.replace(b"64", b"99999999"))
    contents = [b"", b"none", sound[:100], sound[:-5000], huge]
    if kind == "cbf":  # EDF has no checksum
        middle = sound.index(b"\x0c\x1a\x04\xd5") + 50
        contents.append(sound[:middle] + bytes([sound[middle] ^ 64]) + sound[middle + 1 :])
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(FillError, match=r"spec 'multipart.*', path '"):
            reader.stream(
                *(f"multipart/related;type=image/x-{kind}", f"{tmp_path}/", (1, 64, 64), [0]),
                template=f"i_{{}}.{kind}",
            )


def test_files_of_several_images_are_refused(tmp_path, reader):
    """The first image alone would be read as if the others were not there."""
    image = fabio.edfimage.EdfImage(data=frames(1)[0])
    image.append_frame(data=frames(1)[0])
    image.write(str(tmp_path / "i_0.edf"))
    mimetype = "multipart/related;type=image/x-edf"
    with pytest.raises(FillError, match=r"path '.*i_0\.edf': the file has 2 images"):
        reader.stream(mimetype, f"{tmp_path}/", (1, 6, 8), [0], template="i_{}.edf")


def test_what_is_not_installed_is_named(tmp_path, reader, monkeypatch):
    zarr.create_array(str(tmp_path / "z"), data=frames(2), chunks=(1, 6, 8))
    write("cbf", tmp_path / "i_0.cbf", frames(1, (6, 8), np.int32)[0])
    monkeypatch.setitem(sys.modules, "zarr", None)
    monkeypatch.setitem(sys.modules, "fabio.cbfimage", None)
    with pytest.raises(FillError, match="by the package 'zarr', which is not installed"):
        reader.stream(ZARR, tmp_path / "z", (1, 6, 8), [0])
    with pytest.raises(FillError, match="by the package 'fabio', which is not installed"):
        reader.stream(
            *("multipart/related;type=image/x-cbf", f"{tmp_path}/", (1, 6, 8), [0]),
            template="i_{}.cbf",
        )
