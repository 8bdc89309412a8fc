"""Sequences of TIFF files."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tifffile
from area_detector_handlers.handlers import AreaDetectorTiffHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskbroker.assets.handlers.contract import CellsDiffer
from daskbroker.core.errors import FillError, FrameMissing
from daskbroker.testing.files import frames, write_tiffs

TIFF = "multipart/related;type=image/tiff"
TEMPLATE = "%s%s_%6.6d.tif"
REGIONS = [
    (),
    (0,),
    (slice(1, None),),
    (slice(None), slice(2, 5)),
    (slice(None, None, -1), 3, slice(None, None, -2)),
    (np.array([1, 0, 1]), slice(None), np.array([7, 0])),
    (slice(0, 0),),
]


@pytest.fixture(scope="module", params=["plain", "zlib", "big-endian"])
def folder(request, tmp_path_factory):
    options = {"plain": {}, "zlib": {"compression": "zlib"}, "big-endian": {"byteorder": ">"}}
    path = tmp_path_factory.mktemp("tiff")
    return write_tiffs(path, frames(12), "img_{:06d}.tif", **options[request.param])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_as_area_detector_handlers(folder, reader, n):
    theirs = AreaDetectorTiffHandler(str(folder), TEMPLATE, "img", frame_per_point=n)
    points = [3, 0, 0, 1]
    expected = np.stack([theirs(point_number=p) for p in points])
    datums = [{"point_number": p} for p in points]
    got = reader.resource(
        *("AD_TIFF", folder, datums), template=TEMPLATE, filename="img", frame_per_point=n
    )
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.dtype("=u2")


@pytest.mark.parametrize("roi", REGIONS)
def test_regions(folder, reader, roi):
    expected = frames(12).reshape(6, 2, 6, 8)[[4, 1]]
    for axis, item in reversed(list(enumerate(roi, 1))):
        expected = expected[(slice(None),) * axis + (item,)]
    points = [{"point_number": p} for p in (4, 1)]
    parameters = {"template": TEMPLATE, "filename": "img", "frame_per_point": 2}
    got = reader.resource("AD_TIFF", folder, points, roi, **parameters)
    np.testing.assert_array_equal(got, expected)
    for template in ("img_{:06d}.tif", "img_{0:06d}.tif", "%s%s_%6.6d.tif"):
        got = reader.stream(
            *(TIFF, f"{folder}/", (2, 6, 8), [4, 1], roi),
            template=template,
            filename="img",
            chunk_shape=[1, 6, 8],
        )
        np.testing.assert_array_equal(got, expected)


def test_only_the_needed_files_are_opened(tmp_path, reader):
    folder = write_tiffs(tmp_path, frames(6), "img_{}.tif")
    (folder / "img_4.tif").unlink()
    template = {"template": "img_{}.tif"}
    got = reader.stream(TIFF, folder, (3, 6, 8), [1, 0], (slice(0, 3, 2),), **template)
    np.testing.assert_array_equal(got, frames(6).reshape(2, 3, 6, 8)[[1, 0], ::2])
    with pytest.raises(FillError, match=r"no such file.*img_4\.tif"):
        reader.stream(TIFF, folder, (3, 6, 8), [1], **template)


@given(
    pages=st.sampled_from([1, 2, 3, 6]),
    events=st.lists(st.integers(0, 1), max_size=4),
    picked=st.lists(st.integers(0, 5), max_size=5),
)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_several_frames_a_file(paged, reader, pages, events, picked):
    """An event of 6 frames in 6, 3, 2 or 1 files."""
    expected = frames(12).reshape(2, 6, 6, 8)[np.array(events, np.int64)]
    parameters = {"template": "p_{:03d}.tif", "chunk_shape": [pages, 6, 8]}
    arguments = (TIFF, paged[pages], (6, 6, 8), events)
    if events:
        np.testing.assert_array_equal(reader.stream(*arguments, **parameters), expected)
    roi = (np.array(picked, np.int64), 2)
    got = reader.stream(*arguments, roi, **parameters)
    if events:
        np.testing.assert_array_equal(got, expected[:, roi[0], 2])
    else:
        assert len(got) == 0


@pytest.fixture(scope="module")
def paged(tmp_path_factory):
    return {
        pages: write_tiffs(
            tmp_path_factory.mktemp("pages"), frames(12), "p_{:03d}.tif", frames_per_file=pages
        )
        for pages in (1, 2, 3, 6)
    }


def test_a_file_with_too_few_or_too_many_pages(tmp_path, reader):
    """Too few are lost frames; a single page has no axis of pages."""
    write_tiffs(tmp_path, frames(6), "i_{}.tif", frames_per_file=3)
    read = partial(reader.stream, TIFF, tmp_path, (3, 6, 8), [0, 1], template="i_{}.tif")
    for pages, error in ((1, FrameMissing), (2, FrameMissing), (4, FillError)):
        write_tiffs(tmp_path, frames(pages), "i_{}.tif", frames_per_file=pages, start=1)
        with pytest.raises(error, match=rf"i_1\.tif' holds {pages} frames?, where") as caught:
            read(chunk_shape=[3, 6, 8])
        assert type(caught.value) is error
        for roi in ((0,), (slice(1), 2), (slice(None), 2)):  # so that whole cells are read
            with pytest.raises(CellsDiffer, match=r"i_1\.tif' holds an array of"):
                read(roi, chunk_shape=[3, 6, 8])
    chunk = {"template": "i_{}.tif", "chunk_shape": [3, 6, 8]}
    tifffile.imwrite(tmp_path / "i_0.tif", frames(1)[0])
    assert reader.stream_shape(TIFF, tmp_path, (3, 6, 8), **chunk) == (3, 6, 8)


def test_stacked_files_are_cells(paged, reader):
    for pages, cell in ((1, (6, 8)), (3, (3, 6, 8))):
        got = reader.stream(
            *(TIFF, paged[pages], (1, 6, 8), [1, 3]),
            template="p_{:03d}.tif",
            join_method="stack",
            chunk_shape=[1, 6, 8],
        )
        np.testing.assert_array_equal(got, frames(12).reshape(-1, *cell)[[1, 3]])


def test_shape_is_told_without_reading(paged, reader):
    template = {"template": "p_{:03d}.tif"}
    for pages in (1, 2, 3, 6):
        chunk = {"chunk_shape": [pages, 6, 8]}
        assert reader.stream_shape(TIFF, paged[pages], (6, 6, 8), **template, **chunk) == (6, 6, 8)
    assert reader.stream_shape(TIFF, paged[1], (6, 8), **template, join_method="stack") == (6, 8)


def test_second_folder_counts_from_zero_or_goes_on(tmp_path, reader):
    anew = write_tiffs(tmp_path / "anew", frames(4, start=3), "i_{}.tif")
    on = write_tiffs(tmp_path / "on", frames(4, start=3), "i_{}.tif", start=3)
    for folder in (anew, on):
        got = reader.stream(TIFF, folder, (1, 6, 8), [3, 5], template="i_{}.tif", indices=(3, 7))
        np.testing.assert_array_equal(got[:, 0], frames(7)[[3, 5]])


def test_files_of_other_shape_make_a_list(tmp_path, reader):
    write_tiffs(tmp_path, frames(2), "i_{}.tif")
    write_tiffs(tmp_path, frames(1, (3, 3)), "i_{}.tif", start=2)
    got = reader.stream(TIFF, tmp_path, (6, 8), [0, 2, 1], template="i_{}.tif", join_method="stack")
    assert [cell.shape for cell in got] == [(6, 8), (3, 3), (6, 8)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "lack 'template'"),
        ({"template": "{0.__class__}.tif"}, "fields other than a whole number"),
        ({"template": "{:999999999d}.tif"}, "fields other than a whole number"),
        ({"template": "%999999999d.tif"}, "wider than 64 digits"),
        ({"template": "%(x)s.tif"}, "fields other than %s and %d"),
        ({"template": "{"}, "is not valid"),
        ({"template": "{}", "chunk_shape": [4, 6, 8]}, "files of 4 frames do not make events of 6"),
    ],
)
def test_parameters_that_make_no_sense(paged, reader, parameters, message):
    with pytest.raises(FillError, match=message):
        reader.stream(TIFF, paged[1], (6, 6, 8), [0], **parameters)


def test_truncated_file(tmp_path, reader):
    for options in ({}, {"compression": "zlib"}):
        folder = write_tiffs(tmp_path, frames(1, (300, 300)), "i_{}.tif", **options)
        file = folder / "i_0.tif"
        file.write_bytes(file.read_bytes()[:-5000])
        for roi in ((), (slice(None), slice(250, 300))):
            with pytest.raises(FillError, match="spec 'multipart/related;type=image/tiff'"):
                reader.stream(TIFF, folder, (1, 300, 300), [0], roi, template="i_{}.tif")


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16"
 SizeX="6" SizeY="4" SizeC="1" SizeZ="2" SizeT="1"><Channel ID="C:0" SamplesPerPixel="1"/>
<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="img_0.tif">urn:uuid:a</UUID></TiffData>
<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="{}">urn:uuid:b</UUID></TiffData>
</Pixels></Image></OME>"""


@pytest.mark.parametrize("other", ["../out/s.ome.tif", "linked.tif"])
def test_metadata_that_names_other_files(tmp_path, reader, other):
    """Of an image in several files tifffile opens the others by itself."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    # tifffile opens a file of another folder if it has the UUID by which it is named.
    part = OME.format(other).replace('UUID="urn:uuid:a"', 'UUID="urn:uuid:b"')
    nines = np.full((4, 6), 9, np.uint16)
    tifffile.imwrite(outside / "s.ome.tif", nines, description=part, metadata=None)
    (inside / "linked.tif").symlink_to(outside / "s.ome.tif")
    text = OME.format(other)
    tifffile.imwrite(
        inside / "img_0.tif", np.ones((4, 6), np.uint16), description=text, metadata=None
    )
    whole = np.ones((2, 4, 6), np.uint16)
    tifffile.imwrite(inside / "ok_0.tif", whole, ome=True, metadata={"axes": "ZYX"})
    read = lambda name: reader.stream(  # noqa: E731
        TIFF, f"{inside}/", (2, 4, 6), [0], template=name + "_{}.tif", join_method="stack"
    )
    assert read("img")[0, 1].max() == 9  # the trick is one
    reader.roots = [inside]
    with pytest.raises(FillError, match="a part of an image in several files"):
        read("img")
    np.testing.assert_array_equal(read("ok")[0], whole)
    reader.roots = None
    (outside / "s.ome.tif").unlink()
    with pytest.raises(FillError, match="a part of the image is missing, or is in another file"):
        read("img")
