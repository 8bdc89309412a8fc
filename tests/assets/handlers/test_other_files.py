"""Single TIFF files of many pages, sequences of JPEG files, tables in text files."""

from __future__ import annotations

import os

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from daskbroker.core.errors import FillError, FrameMissing
from daskbroker.testing.files import frames

PAGES = "image/tiff"
JPEG = "multipart/related;type=image/jpeg"
CSV = "text/csv;header=absent"
ROIS = [(), (slice(None), 2), (0, slice(None, None, -2), np.array([7, 0]))]


def cells(data, per_event, events, roi=()):
    found = data.reshape(-1, per_event, *data.shape[1:])[events]
    for axis, item in reversed(list(enumerate(roi, 1))):
        found = found[(slice(None),) * axis + (item,)]
    return found


# -- pages of a TIFF file --------------------------------------------------------------------

KINDS = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "ImageJ": {"imagej": True},
    "one page after another": {"metadata": None},
    "zlib": {"compression": "zlib"},
    "LZW": {"compression": "lzw", "predictor": True},
    "Zstd": {"compression": "zstd"},
    "PackBits": {"compression": "packbits"},
    "tiles": {"compression": "zstd", "tile": (16, 16)},
}


@pytest.fixture(scope="module", params=KINDS)
def pages(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "f.tif"
    options = {"photometric": "minisblack", **KINDS[request.param]}
    if request.param == "one page after another":
        with tifffile.TiffWriter(path) as file:
            for frame in frames(12):
                file.write(frame, contiguous=False, **options)
    else:
        tifffile.imwrite(path, frames(12), **options)
    return path


@pytest.mark.parametrize("roi", ROIS)
def test_pages_are_frames(pages, reader, roi):
    for per_event in (1, 3):
        shape = (per_event, 6, 8)
        got = reader.stream(PAGES, pages, shape, [3, 0, 3], roi, chunk_shape=[1, 6, 8])
        np.testing.assert_array_equal(got, cells(frames(12), per_event, [3, 0, 3], roi))
        assert got.dtype == np.dtype("=u2")
        assert reader.stream_shape(PAGES, pages, shape) == shape
    with pytest.raises(FillError, match=r"has 12 frames, too few for place 12"):
        reader.stream(PAGES, pages, (1, 6, 8), [12])


def test_a_file_of_one_page_and_one_in_colour(tmp_path, reader):
    tifffile.imwrite(tmp_path / "one.tif", frames(1)[0])
    np.testing.assert_array_equal(
        reader.stream(PAGES, tmp_path / "one.tif", (1, 6, 8), [0])[0], frames(1)
    )
    colours = frames(4, (6, 8, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    np.testing.assert_array_equal(
        reader.stream(PAGES, tmp_path / "rgb.tif", (2, 6, 8, 3), [1])[0], colours[2:]
    )


def test_a_file_that_gets_more_pages(tmp_path, reader):
    path = tmp_path / "f.tif"
    for count in (2, 5):
        tifffile.imwrite(path, frames(count), photometric="minisblack")
        got = reader.stream(PAGES, path, (1, 6, 8), [count - 1])
        np.testing.assert_array_equal(got[0, 0], frames(count)[-1])


def test_roots_hold_for_pages(tmp_path, reader):
    tifffile.imwrite(tmp_path / "f.tif", frames(2))
    reader.roots = tmp_path / "other"
    with pytest.raises(FillError, match="outside the readable roots"):
        reader.stream(PAGES, tmp_path / "f.tif", (1, 6, 8), [0])


def test_compressed_sequences(tmp_path, reader):
    """JPEG loses something, so it is compared with what tifffile gives."""
    data = np.full((3, 64, 64), 90, np.uint8) + np.arange(64, dtype=np.uint8)
    for name in ("lzw", "zstd", "jpeg"):
        for number, frame in enumerate(data):
            tifffile.imwrite(tmp_path / f"{name}_{number}.tif", frame, compression=name)
        expected = np.stack([tifffile.imread(tmp_path / f"{name}_{n}.tif") for n in (2, 0)])
        got = reader.stream(
            "multipart/related;type=image/tiff",
            *(f"{tmp_path}/", (1, 64, 64), [2, 0]),
            template=name + "_{}.tif",
        )
        np.testing.assert_array_equal(got[:, 0], expected)
        assert abs(got[:, 0].astype(int) - data[[2, 0]]).max() <= (3 if name == "jpeg" else 0)


def _replace_strip(path, data):
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.filehandle.seek(0, 2)
        end = file.filehandle.tell()
        file.filehandle.write(data)
        tags = file.pages[0].tags
        tags["StripOffsets"].overwrite([end])
        tags["StripByteCounts"].overwrite([len(data)])


def test_parts_of_an_image_that_are_larger_than_it(tmp_path, reader):
    huge = bytearray(imagecodecs.jpeg8_encode(np.zeros((64, 64), np.uint8)))
    at = huge.index(b"\xff\xc0") + 5
    huge[at : at + 4] = b"\xff\xdc\xff\xdc"  # height and width
    cases = {"zstd": imagecodecs.zstd_encode(bytes(2**28)), "jpeg": bytes(huge)}
    for name, data in cases.items():
        path = tmp_path / f"{name}_0.tif"
        tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression=name)
        _replace_strip(path, data)
        with pytest.raises(FillError, match=r"spec 'multipart.*', path '"):
            reader.stream(
                "multipart/related;type=image/tiff",
                *(f"{tmp_path}/", (1, 64, 64), [0]),
                template=name + "_{}.tif",
            )


def test_compressions_of_unknown_size_are_not_read(tmp_path, reader):
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((64, 64, 3), np.uint8), compression="webp")
    with pytest.raises(FillError, match="compressed by WEBP, which is not supported"):
        reader.stream(PAGES, tmp_path / "f.tif", (1, 64, 64, 3), [0])


# -- JPEG ------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", [(), (3,)])
def test_jpeg_files(tmp_path, reader, colours):
    expected = []
    for number in range(4):
        image = np.full((16, 24, *colours), 60 * number, np.uint8)
        data = imagecodecs.jpeg8_encode(image, level=95)
        (tmp_path / f"i_{number:03d}.jpeg").write_bytes(data)
        expected.append(imagecodecs.jpeg8_decode(data))
        assert abs(expected[-1].astype(int) - image).max() < 5
    stack, template = np.stack(expected), {"template": "i_{:03d}.jpeg"}
    for roi in ROIS:
        got = reader.stream(JPEG, f"{tmp_path}/", (2, 16, 24, *colours), [1, 0], roi, **template)
        np.testing.assert_array_equal(got, cells(stack, 2, [1, 0], roi))
    shape = (1, 16, 24, *colours)
    assert reader.stream_shape(JPEG, f"{tmp_path}/", shape, **template) == shape


def test_jpeg_files_in_cmyk(tmp_path, reader):
    """Their channels are inverted in the file, and 0 without ink here, as in Pillow."""
    image = Image.new("CMYK", (24, 16), (0, 40, 80, 120))
    image.save(tmp_path / "i_0.jpeg", quality=100)
    got = reader.stream(JPEG, f"{tmp_path}/", (1, 16, 24, 4), [0], template="i_{}.jpeg")
    np.testing.assert_array_equal(got[0, 0], np.asarray(Image.open(tmp_path / "i_0.jpeg")))
    assert abs(got[0, 0, 0, 0].astype(int) - (0, 40, 80, 120)).max() < 5


def test_damaged_jpeg_files(tmp_path, reader):
    random = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    data = imagecodecs.jpeg8_encode(random)
    at = data.index(b"\xff\xc0") + 5
    bad = {
        "text": b"no image at all",
        "empty": b"",
        "head": data[:12],
        "cut": data[: len(data) // 2],
        "huge": data[:at] + b"\xff\xdc\xff\xdc" + data[at + 4 :],
    }
    for name, content in bad.items():
        (tmp_path / f"{name}_0.jpg").write_bytes(content)
        with pytest.raises(FillError, match=r"spec 'multipart.*', path '"):
            reader.stream(JPEG, f"{tmp_path}/", (1, 64, 64), [0], template=name + "_{}.jpg")


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mimetype", "head"),
    [(CSV, ""), ("text/csv", "a,b,c\n"), ("text/csv; header=present", "a,b,c\n")],
)
def test_lines_of_numbers(tmp_path, reader, mimetype, head):
    data = np.arange(24).reshape(8, 3) * 0.5
    path = tmp_path / "f.csv"
    path.write_text(head + "".join(",".join(map(str, line)) + "\n" for line in data))
    got = reader.stream(mimetype, path, (3,), [5, 0])  # a line an event
    np.testing.assert_array_equal(got, data[[5, 0]])
    got = reader.stream(mimetype, path, (2, 3), [3, 0], (slice(None), 1))  # two lines an event
    np.testing.assert_array_equal(got, data.reshape(4, 2, 3)[[3, 0], :, 1])
    assert reader.stream_shape(mimetype, path, (2, 3)) == (2, 3)
    with path.open("a") as file:
        file.write("1,2,3\n")
    np.testing.assert_array_equal(reader.stream(mimetype, path, (3,), [8]), [[1, 2, 3]])


def test_whole_numbers_and_other_separators(tmp_path, reader):
    (tmp_path / "f.csv").write_text("1\t2\n3\t4\n")
    got = reader.stream(CSV, tmp_path / "f.csv", (2,), [1], delimiter="\t")
    np.testing.assert_array_equal(got, [[3, 4]])
    assert got.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,,\n\n,2,\n", [[1, np.nan, np.nan], [np.nan, 2, np.nan]]),
        ('\ufeff1\r\n""\r\n"3"\r\n\r\n', [[1], [np.nan], [3]]),
    ],
)
def test_missing_numbers(tmp_path, reader, text, expected):
    (tmp_path / "f.csv").write_bytes(text.encode())
    shape = (len(expected[0]),)
    got = reader.stream(CSV, tmp_path / "f.csv", shape, list(range(len(expected))))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("text", ["\n1\n2\n", "1\r\n\r\n2\r\n", "1\n2\n\n\n3"])
def test_an_empty_line_among_single_numbers(tmp_path, reader, text):
    """It may be a missing number, without which later numbers would get into other events."""
    (tmp_path / "f.csv").write_text(text, newline="")
    number = text.splitlines().index("") + 1
    with pytest.raises(FillError, match=rf"path '.*line {number} .* is empty.* write \"\""):
        reader.stream(CSV, tmp_path / "f.csv", (1,), [0])


def test_integers_of_64_bits_without_sign(tmp_path, reader):
    for last in (1, 2**64 - 1):
        (tmp_path / "f.csv").write_text(f"{2**63}\n{last}\n")
        got = reader.stream(CSV, tmp_path / "f.csv", (1,), [0, 1])
        assert got.dtype == np.uint64
        assert got.ravel().tolist() == [2**63, last]


@pytest.mark.parametrize("text", ["{},2\n1,0.5\n", "{},2\n,3\n", "{},2\n0.5,2\n", "-{},2\n1e3,2\n"])
def test_large_integers_are_not_rounded(tmp_path, reader, text):
    """Beside floats, of other columns and of their own, and above a missing number."""
    (tmp_path / "f.csv").write_text(text.format(2**53))
    got = reader.stream(CSV, tmp_path / "f.csv", (2,), [0])
    assert abs(got[0, 0]) == 2**53
    for number in (2**53 + 1, "7" * 5000):  # Python makes no int of so many digits
        (tmp_path / "f.csv").write_text(text.format(number))
        message = r"path '.*column 0 .* integers that float64 would round"
        with pytest.raises(FillError, match=message):
            reader.stream(CSV, tmp_path / "f.csv", (2,), [0])


@pytest.mark.parametrize("text", ["1,2\n3\n", "1,a\n", "", "\0\0"])
def test_text_that_is_no_table_of_numbers(tmp_path, reader, text):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(FillError, match=r"spec 'text/csv;header=absent'.*(table|other values)"):
        reader.stream(CSV, tmp_path / "f.csv", (2,), [0])


def test_no_other_file_than_the_named_one(tmp_path, reader):
    os.mkfifo(tmp_path / "f.csv")
    with pytest.raises(FillError, match="is a pipe"):
        reader.stream(CSV, tmp_path / "f.csv", (2,), [0])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_that_were_appended_one_by_one(tmp_path, reader, compression):
    """The package tifffile counts each as an image of its own; all are frames."""
    shape = (6, 8)
    data = frames(6, shape)
    for folder, parts in (("one", [data]), ("two", [data[:3], data[3:]])):
        (tmp_path / folder).mkdir()
        for number, part in enumerate(parts):
            path = tmp_path / folder / f"im_{number}.tiff"
            for frame in part:
                tifffile.imwrite(
                    path, frame, append=True, photometric="minisblack", compression=compression
                )
    path, place = tmp_path / "one" / "im_0.tiff", tmp_path / "two"
    got = reader.stream("image/tiff", path, (1, *shape), range(6))
    np.testing.assert_array_equal(got, data[:, None])
    region = (0, slice(1, 3), slice(None, None, 2))
    got = reader.stream("image/tiff", path, (1, *shape), [5, 0], region)
    np.testing.assert_array_equal(got, data[[5, 0], 1:3, ::2])
    mimetype = "multipart/related;type=image/tiff"
    given = {"template": "im_{:d}.tiff", "chunk_shape": [3, *shape]}
    got = reader.stream(mimetype, place, (3, *shape), range(2), **given)
    np.testing.assert_array_equal(got, data.reshape(2, 3, *shape))
    region = (slice(1, 3), slice(1, 3), 2)
    got = reader.stream(mimetype, place, (3, *shape), range(2), region, **given)
    np.testing.assert_array_equal(got, data.reshape(2, 3, *shape)[:, 1:3, 1:3, 2])
    assert reader.stream_shape(mimetype, place, (3, *shape), **given) == (3, *shape)


def test_pages_that_differ_are_not_lost(tmp_path, reader):
    """The error names them, and is not that of a lost frame; a preview is no frame."""
    data = frames(3)
    for name, other in (("shape", data[1, :4]), ("dtype", data[1].astype("f4"))):
        path = tmp_path / f"{name}.tiff"
        for page in (data[0], other):
            tifffile.imwrite(path, page, append=True, photometric="minisblack")
        np.testing.assert_array_equal(reader.stream(PAGES, path, (6, 8), [0])[0], data[0])
        with pytest.raises(FillError, match=rf"page 1 of \({len(other)}, 8\)") as caught:
            reader.stream(PAGES, path, (6, 8), [1])
        assert type(caught.value) is FillError
    with tifffile.TiffWriter(tmp_path / "preview.tiff") as writer:
        writer.write(data[0], photometric="minisblack")
        writer.write(data[0, :2, :2], photometric="minisblack", subfiletype=1)
    with pytest.raises(FrameMissing, match="has 1 frames, too few for place 1"):
        reader.stream(PAGES, tmp_path / "preview.tiff", (6, 8), [1])
