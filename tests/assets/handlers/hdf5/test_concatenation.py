"""Virtual datasets that concatenate others are read from their sources, without HDF5's lock."""

from __future__ import annotations

import itertools
import os
import resource

import h5py
import numpy as np
import pytest

from daskbroker.assets.files.readable import ANYWHERE
from daskbroker.assets.handlers.hdf5.open_datasets import OpenDatasets
from daskbroker.assets.handlers.stored_frames import NoReference
from daskbroker.core.errors import FillError, FrameMissing
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

COUNTS = (4, 4, 3)
DATA = frames(sum(COUNTS), (20, 30))


def sources(folder, **options):
    """Write data files as an Eiger does, with some frames each."""
    starts = np.cumsum((0, *COUNTS))
    for number, (low, high) in enumerate(itertools.pairwise(starts), 1):
        path = folder / f"series_data_{number:06d}.h5"
        write_hdf5(path, DATA[low:high], compression="bitshuffle", **options)
    return folder


def master(folder, dtype=DATA.dtype, step=1, **options):
    """Write the master file, which concatenates them."""
    layout = h5py.VirtualLayout((len(DATA) * step, *DATA.shape[1:]), dtype)
    at = 0
    for number, count in enumerate(COUNTS, 1):
        name = f"series_data_{number:06d}.h5"
        source = h5py.VirtualSource(name, AD_DATASET, (count, *DATA.shape[1:]))
        layout[at : at + count * step : step] = source
        at += count * step
    path = folder / "series_master.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset(AD_DATASET, layout, **options)
    return path


@pytest.fixture
def past_hdf5(monkeypatch):
    """Make each read of values by HDF5 itself fail."""
    monkeypatch.setattr("daskbroker.assets.handlers.hdf5.row_source._read_span", None)


def points(*numbers):
    return [{"point_number": number} for number in numbers]


@pytest.mark.usefixtures("past_hdf5")
@pytest.mark.parametrize("numbers", [range(11), [10, 3, 4, 3], [5], []])
@pytest.mark.parametrize("roi", [(), (slice(None), 7), (slice(None), slice(3, 15, 2), 4)])
@pytest.mark.parametrize("roots", [False, True])
def test_from_the_sources(tmp_path, reader, numbers, roi, roots):
    path = master(sources(tmp_path))
    reader.roots = tmp_path if roots else None
    got = reader.resource("AD_HDF5", path, points(*numbers), roi)
    np.testing.assert_array_equal(got, DATA[list(numbers)][:, None][(slice(None), *roi)])


@pytest.mark.usefixtures("past_hdf5")
def test_a_master_of_masters(tmp_path, reader):
    master(sources(tmp_path))
    layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
    layout[:] = h5py.VirtualSource("series_master.h5", AD_DATASET, DATA.shape)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_virtual_dataset(AD_DATASET, layout)
    got = reader.resource("AD_HDF5", tmp_path / "f.h5", points(*range(11)))
    np.testing.assert_array_equal(got[:, 0], DATA)


@pytest.mark.usefixtures("past_hdf5")
def test_external_links_of_a_master(tmp_path, reader):
    sources(tmp_path)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["entry/data/data_000002"] = h5py.ExternalLink("series_data_000002.h5", AD_DATASET)
    got = reader.resource("AD_HDF5", tmp_path / "f.h5", points(0, 3), key="/entry/data/data_000002")
    np.testing.assert_array_equal(got[:, 0], DATA[[4, 7]])


def test_a_linked_file_that_is_open_in_the_other_mode(tmp_path):
    """HDF5 opens a linked file in the mode of the first one, and no file in both modes."""
    write_hdf5(tmp_path / "s.h5", DATA)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["d"] = h5py.ExternalLink("s.h5", AD_DATASET)
    first = OpenDatasets(str(tmp_path / "s.h5"), swmr=False).get(AD_DATASET, ANYWHERE)
    rows = OpenDatasets(str(tmp_path / "f.h5"), swmr=True).get("d", ANYWHERE)
    assert rows.shape == first.shape
    np.testing.assert_array_equal(rows.read(np.arange(2), [range(20), range(30)]), DATA[:2])


def missing(folder):
    path = master(folder, fillvalue=9)
    (folder / "series_data_000002.h5").unlink()
    return path


def other_dtype(folder):
    return master(folder, dtype=np.uint32)


def with_gaps(folder):
    return master(folder, step=2)


def tiled(folder):
    """Two sources side by side."""
    height, width = DATA.shape[1:]
    layout = h5py.VirtualLayout((4, height, 2 * width), DATA.dtype)
    for number, half in enumerate((slice(None, width), slice(width, None))):
        part = write_hdf5(folder / f"half_{number}.h5", DATA[:4])
        layout[..., half] = h5py.VirtualSource(part.name, AD_DATASET, (4, height, width))
    with h5py.File(folder / "tiled.h5", "w") as file:
        file.create_virtual_dataset(AD_DATASET, layout, fillvalue=9)
    return folder / "tiled.h5"


def missing_tile(folder):
    path = tiled(folder)
    (folder / "half_1.h5").unlink()
    return path


@pytest.mark.parametrize("case", [missing, missing_tile])
def test_a_source_that_is_missing_is_a_missing_frame(tmp_path, reader, case):
    """HDF5 gives fill values, which look like data."""
    path = case(sources(tmp_path))
    name = "series_data_000002.h5" if case is missing else "half_1.h5"
    for roi in ((), (0, slice(2, 4), 3)):
        with pytest.raises(FrameMissing, match=name):
            reader.resource("AD_HDF5", path, points(0, 3 if case is missing_tile else 5), roi)
    if case is missing:  # other parts are there
        got = reader.resource("AD_HDF5", path, points(0, 3, 8))
        np.testing.assert_array_equal(got[:, 0], DATA[[0, 3, 8]])


@pytest.mark.parametrize("case", [master, tiled])
def test_a_source_that_cannot_be_opened_is_an_error(tmp_path, reader, case):
    """HDF5 gives fill values, as for one that this user may not read."""
    path = case(sources(tmp_path), **({"fillvalue": 9} if case is master else {}))
    name = "series_data_000002.h5" if case is master else "half_1.h5"
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / name)
    places = points(0, 3 if case is tiled else 5)
    with h5py.File(path) as file:
        assert file[AD_DATASET][places[1]["point_number"], -1, -1] == 9
    with pytest.raises(FillError, match=name) as caught:
        reader.resource("AD_HDF5", path, places)
    assert not isinstance(caught.value, FrameMissing)


@pytest.mark.parametrize("case", [tiled, other_dtype, with_gaps])
def test_too_many_open_files_are_an_error(tmp_path, case):
    """HDF5 gives fill values where it may open one file fewer than the number of sources needs."""
    path = str(case(sources(tmp_path)))
    with h5py.File(path) as file:
        expected = file[AD_DATASET][:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(7)]
    for number in free:
        os.close(number)
    outcomes = []
    for limit in free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            rows = OpenDatasets(path, swmr=False).get(AD_DATASET, ANYWHERE)
            values = rows.read(np.arange(len(expected)), [range(n) for n in rows.shape[1:]])
        except OSError:
            outcomes.append("error")
        else:
            outcomes.append("right" if np.array_equal(values, expected) else "wrong")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {*outcomes} == {"error", "right"}


def other_source(folder, *shape, name=AD_DATASET):
    """A master, one of whose files was written again after it."""
    path = master(folder, fillvalue=9)
    (folder / "series_data_000002.h5").unlink()
    write_hdf5(folder / "series_data_000002.h5", frames(shape[0], shape[1:], start=1), name)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "/entry/data/b"},
            r"no dataset '/entry/data/data' in the file .* '/entry/data/b'",
        ),
        ({"height": 40}, r"has the shape \(\d+, 40, \d+\), and .* maps all of it to a part"),
    ],
)
def test_a_source_that_is_not_as_it_was_mapped(tmp_path, reader, options, message):
    """HDF5 gives fill values, or single frames made of parts of others."""
    shape = (COUNTS[1], options.pop("height", DATA.shape[1]), DATA.shape[2])
    path = other_source(sources(tmp_path), *shape, **options)
    with h5py.File(path) as file:
        number = COUNTS[0] + 1
        assert not np.array_equal(file[AD_DATASET][number], frames(shape[0], shape[1:], start=1)[1])
    with pytest.raises(FillError, match=f"'series_data_000002.h5'.*{message}") as caught:
        reader.resource("AD_HDF5", path, points(0, number))
    assert not isinstance(caught.value, FrameMissing)
    got = reader.resource("AD_HDF5", path, points(0))
    np.testing.assert_array_equal(got[:, 0], DATA[:1])


@pytest.mark.parametrize("roots", [False, True])
def test_a_source_that_has_more_frames_than_are_mapped(tmp_path, reader, roots):
    reader.roots = tmp_path if roots else None
    path = other_source(sources(tmp_path), COUNTS[1] + 2, *DATA.shape[1:])
    got = reader.resource("AD_HDF5", path, points(COUNTS[0] + 1))
    np.testing.assert_array_equal(got[0], frames(2, DATA.shape[1:], start=1)[1:])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8], ids=["same dtype", "other dtype"])
@pytest.mark.parametrize("chunks", [None, (1, 6, 8)], ids=["plain", "chunks"])
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
def test_a_source_that_ends_early(tmp_path, reader, dtype, chunks, sliced):
    """Frames of a series that was aborted are there. HDF5 gives zeros for those after them."""
    write_hdf5(tmp_path / "s.h5", frames(2), chunks=chunks)
    write_hdf5(tmp_path / "narrow.h5", frames(4)[..., :5], chunks=chunks and (1, 6, 5))
    layout = h5py.VirtualLayout((8, 6, 8), dtype)
    for number, name in enumerate(("s.h5", "narrow.h5")):
        source = h5py.VirtualSource(name, AD_DATASET, (4, 6, 8))
        layout[4 * number : 4 * number + 4] = source[:4] if sliced else source
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_virtual_dataset(AD_DATASET, layout)
    got = reader.resource("AD_HDF5", tmp_path / "f.h5", points(1, 0))
    np.testing.assert_array_equal(got[:, 0], np.minimum(frames(2)[::-1], np.iinfo(dtype).max))
    with pytest.raises(FrameMissing, match=r"'s.h5' has the shape \(2, 6, 8\), too small for .* 3"):
        reader.resource("AD_HDF5", tmp_path / "f.h5", points(1, 3))
    rows = OpenDatasets(str(tmp_path / "f.h5"), swmr=False).get(AD_DATASET, ANYWHERE)
    for places in ([1, 3], [4]) if dtype == np.uint16 else ([1],):
        with pytest.raises(NoReference, match=r"f\.h5' has sources"):
            rows.locate(np.array(places))
    with pytest.raises(FillError, match=r"'narrow.h5' has the shape \(4, 6, 5\)"):
        reader.resource("AD_HDF5", tmp_path / "f.h5", points(4))


def test_sources_of_single_values(tmp_path, reader):
    layout = h5py.VirtualLayout((2, 1), np.float64)
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["value"] = number + 0.5
        layout[number] = h5py.VirtualSource(f"{number}.h5", "value", ())
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("values", layout)
    got = reader.stream("application/x-hdf5", tmp_path / "all.h5", (1,), [1, 0], dataset="values")
    assert np.ravel(got).tolist() == [1.5, 0.5]


@pytest.mark.parametrize("case", [tiled, other_dtype, with_gaps])
def test_what_is_no_concatenation_is_as_hdf5_has_it(tmp_path, reader, case):
    path = case(sources(tmp_path))
    with h5py.File(path) as file:
        expected = file[AD_DATASET][:]
    got = reader.resource("AD_HDF5", path, points(*range(len(expected))))
    np.testing.assert_array_equal(got[:, 0], expected)
    assert got.dtype == expected.dtype


def test_a_source_that_is_too_short(tmp_path, reader):
    """HDF5 gives no values either."""
    path = tmp_path / "series_data_000002.h5"
    sources(tmp_path)
    path.unlink()
    write_hdf5(path, DATA[:2], compression="bitshuffle")
    with pytest.raises(FillError, match=r"run 'r', stream 's', key 'k', spec .*, path "):
        reader.resource("AD_HDF5", master(tmp_path), points(*range(11)))


def test_a_source_that_is_replaced(tmp_path, reader):
    path = master(sources(tmp_path))
    reader.resource("AD_HDF5", path, points(5))
    other = write_hdf5(tmp_path / "other.h5", DATA[:4] + 1, compression="bitshuffle")
    other.rename(tmp_path / "series_data_000002.h5")
    got = reader.resource("AD_HDF5", path, points(5))
    np.testing.assert_array_equal(got[0, 0], DATA[1] + 1)
