"""Suite of stores: files of one key that differ in dtype or shape, or of which one is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from ...core.errors import FillError
from ..base import Conformance, Put, insert_run
from ..claim_runs import LEGACY, claim_run, run_of_parts
from ..detector_runs import SHAPE, image_claim, stacked
from ..files import frames, write_npys
from ..runs import RunBuilder
from .claim_checks import warned


class FillUnlikeFilesConformance(Conformance):
    """What datasets, tables and documents have of files that are unlike."""

    def test_first_and_last_have_a_dtype_in_common(self, put: Put, tmp_path: Path) -> None:
        parts = [frames(2, SHAPE, np.uint8), frames(2, SHAPE, "<u4", start=2)]
        header = put(run_of_parts(tmp_path, parts, [1, *SHAPE], **LEGACY))
        image = header.dataset()["img"]
        assert image.dtype == np.uint32
        np.testing.assert_array_equal(image.values[:, 0], np.concatenate(parts))
        filled = [d["data"]["img"] for n, d in header.documents(fill=True) if n == "event"]
        for cells in (header.table().compute()["img"], filled):
            assert [cell.dtype for cell in cells] == [np.uint32] * 4
            np.testing.assert_array_equal(stacked(cells)[:, 0], np.concatenate(parts))

    def test_files_of_one_resource(self, put: Put, tmp_path: Path) -> None:
        """Whatever files are read together."""
        data = frames(4, SHAPE, np.uint8)
        write_npys(tmp_path / "f", data)
        *_, last = sorted(tmp_path.glob("f*.npy"))
        np.save(last, data[-1].astype("<u4"))
        claim = image_claim()
        del claim["dtype_numpy"]
        run = RunBuilder()
        descriptor = run.descriptor({"img": claim})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        for index in range(4):
            run.event(descriptor, {"img": run.datum(resource, index=index)})
        header = put(run.stop())
        assert header.dataset()["img"].dtype == np.uint32
        filled = [d["data"]["img"] for n, d in header.documents(fill=True) if n == "event"]
        for cells in (header.table().compute()["img"], filled):
            assert [cell.dtype for cell in cells] == [np.uint32] * 4
            np.testing.assert_array_equal(stacked(cells), data)

    def test_values_that_the_common_dtype_lacks(self, put: Put, tmp_path: Path) -> None:
        """A Dataset names the way out; tables and documents have the cells of the file."""
        parts = [np.full((2, *SHAPE), 2**53 + 1), np.full((2, *SHAPE), 0.5)]
        header = put(run_of_parts(tmp_path, parts, [], **LEGACY))
        with pytest.raises(FillError, match=r"variable has the dtype float64.*int64.*object"):
            header.dataset()["img"].compute()
        image = header.dataset(dtypes={"img": object})["img"].values
        assert (image[0, 0, 0, 0], image[-1, 0, 0, 0]) == (2**53 + 1, 0.5)
        cells = header.table().compute()["img"]
        assert [cell.dtype for cell in cells] == [np.int64] * 2 + [np.float64] * 2

    def test_axes_of_length_one_that_some_files_have(self, put: Put, tmp_path: Path) -> None:
        """Cells that differ only by them make one array, also if a file between has them."""
        parts = [frames(2, SHAPE, start=2 * n) for n in range(4)]
        files = [parts[0], parts[1][:, None, :, None], parts[2][:, None], parts[3][:, None]]
        header = put(run_of_parts(tmp_path, files, [], **LEGACY))
        image = header.dataset()["img"]
        assert (image.dtype, image.shape) == (np.uint16, (8, 1, *SHAPE))
        np.testing.assert_array_equal(image.values[:, 0], np.concatenate(parts))
        np.testing.assert_array_equal(image[:, 0, 2].values, np.concatenate(parts)[:, 2])
        filled = [d["data"]["img"] for n, d in header.documents(fill=True) if n == "event"]
        for cells in (header.table().compute()["img"], filled):
            assert {cell.shape for cell in cells} == {(1, *SHAPE)}
            np.testing.assert_array_equal(stacked(cells)[:, 0], np.concatenate(parts))

    def test_first_and_last_have_other_shapes(self, put: Put, tmp_path: Path) -> None:
        """Cells keep their shapes; blocks are cut by the size of the largest."""
        parts = [frames(6, SHAPE), frames(6, (20, 30), start=2)]
        header = put(run_of_parts(tmp_path, parts, [1, *SHAPE], **LEGACY))
        size = parts[1][0].nbytes
        with dask.config.set({"daskbroker.partition-size": 2 * size}), warned("img"):
            image, table = header.dataset()["img"], header.table()
        assert image.dtype == object
        assert max(image.chunks[0]) == 2
        assert table.npartitions >= 6
        expected = [frame for part in parts for frame in part[:, None]]
        for cells in (image.values, table.compute()["img"]):
            assert [cell.shape for cell in cells] == [cell.shape for cell in expected]
            for cell, frame in zip(cells, expected, strict=True):
                np.testing.assert_array_equal(cell, frame)

    @pytest.mark.parametrize("lost", ["im_000000.tiff", "im_000003.tiff", "datum", "1.h5"])
    def test_an_end_that_is_lost(self, broker: Any, tmp_path: Path, lost: str) -> None:
        """The other end tells shape and dtype."""
        docs, data = claim_run(tmp_path, [1, *SHAPE], spec="AD_TIFF", **LEGACY)
        if lost == "1.h5":
            docs = run_of_parts(tmp_path, [data[:3], data[3:]], [1, *SHAPE], **LEGACY)
        if lost == "datum":
            docs.remove([pair for pair in docs if pair[0] == "datum"][-1])
        else:
            (tmp_path / ("" if lost == "1.h5" else "t") / lost).unlink()
        header = insert_run(broker, docs)
        with warned("4 frames" if lost == "datum" else ""):
            image, table = header.dataset(missing="drop")["img"], header.table(missing="drop")
        assert image.dtype == np.uint16
        left = data[1:] if lost == "im_000000.tiff" else data[:3]
        np.testing.assert_array_equal(image.values[:, 0], left)
        np.testing.assert_array_equal(stacked(table.compute()["img"])[:, 0], left)

    def test_one_between_that_differs(self, broker: Any, tmp_path: Path) -> None:
        """A cell that differs is an error, is never cast, and is known from then on."""
        parts = [frames(2, SHAPE, dtype, start=2 * n) for n, dtype in enumerate(("u1", "u4", "u1"))]
        docs = run_of_parts(tmp_path, parts, [1, *SHAPE], **LEGACY)
        header = insert_run(broker, docs)
        image = header.dataset()["img"]
        assert image.dtype == np.uint8
        with pytest.raises(FillError, match="uint32") as caught:
            image.compute()
        assert header.uid in str(caught.value)
        again = header.dataset()["img"]
        assert again.dtype == np.uint32
        np.testing.assert_array_equal(again.values[:, 0], np.concatenate(parts))
