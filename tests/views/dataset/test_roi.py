"""``roi``: only a region of each cell is shown, and read."""

from __future__ import annotations

import dask
import numpy as np
import pytest

from daskbroker.assets.filling.blocks import BlockReader
from daskbroker.core.errors import BadQuery
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run, stream_run

FULL = np.s_[:, :, :]


@pytest.fixture(params=[datum_run, stream_run], ids=["datum", "stream"])
def header_and_frames(request, db, tmp_path):
    docs, data = request.param(tmp_path, 12)
    insert_all(db, docs)
    return db[-1], data.reshape(12, 1, 6, 8)


@pytest.fixture
def elements(monkeypatch):
    """Sizes of what is read of files."""
    sizes = []
    read = BlockReader.read

    def noted(*args, **kwargs):
        block = read(*args, **kwargs)
        sizes.append(np.size(block))
        return block

    monkeypatch.setattr(BlockReader, "read", noted)
    return sizes


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 5}], ids=repr)
@pytest.mark.parametrize(
    "roi",
    [FULL, np.s_[0, 2:4], np.s_[..., 1:7:2], np.s_[0, -1, ::-2], np.s_[:, 5:2:-1, 3]],
    ids=repr,
)
def test_it_is_what_a_slice_is(header_and_frames, roi, chunks):
    header, data = header_and_frames
    image = header.dataset(roi={"img": roi}, chunks=chunks)["img"]
    parts = roi if isinstance(roi, tuple) else (roi,)
    expected = header.dataset(chunks=None)["img"][(slice(None), *parts)]
    assert image.dims == expected.dims
    assert image.attrs == expected.attrs
    np.testing.assert_array_equal(image.values, data[(slice(None), *parts)])
    if image.ndim > 1:
        np.testing.assert_array_equal(image[3:9, ::-1].values, image.values[3:9, ::-1])
        np.testing.assert_array_equal(image[[4, 1], ..., -1].values, image.values[[4, 1], ..., -1])


def test_it_reaches_the_file_whatever_is_made_of_it(header_and_frames, elements):
    header, data = header_and_frames
    image = header.dataset(roi={"img": np.s_[0, 2:4, 1:3]})["img"]
    found = (image - image[0]).astype("f4").where(image < 40_000).mean("time").values
    cells = data[:, 0, 2:4, 1:3].astype("f4")
    expected = np.where(cells < 40_000, (data - data[:1])[:, 0, 2:4, 1:3].astype("f4"), np.nan)
    np.testing.assert_allclose(found, np.nanmean(expected, 0))
    assert sum(elements) <= 3 * 12 * 4


def test_blocks_hold_more_of_smaller_cells(header_and_frames):
    header, _ = header_and_frames
    with dask.config.set({"daskbroker.partition-size": 200}):
        whole, part = header.dataset(), header.dataset(roi={"img": np.s_[0, 2:4]})
    assert len(part.chunks["time"]) < len(whole.chunks["time"])
    assert part["img"].data.name != whole["img"].data.name


@pytest.mark.parametrize(
    ("roi", "said"),
    [
        ({"x": np.s_[0]}, "roi names 'x'.*there are: img"),
        ({"nothing": np.s_[0]}, "roi names 'nothing'"),
        ({"img": np.s_[0, 0, 0, 0]}, "more indices than axes"),
        ({"img": np.s_[0, 6]}, "6 is outside"),
        ({"img": np.s_[0, [1, 2]]}, "a slice or an integer"),
    ],
)
def test_what_is_no_region_is_refused(header_and_frames, roi, said):
    header, _ = header_and_frames
    with pytest.raises(BadQuery, match=said):
        header.dataset(roi=roi)
