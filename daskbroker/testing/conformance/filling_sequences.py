"""Conformance of filling: sequences of files that are not all alike."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ...core.errors import ClaimWarning, FillError
from ..base import Conformance, insert_run
from ..claim_runs import LEGACY
from ..detector_runs import SHAPE, filled_cells, image_claim
from ..files import frames, write_hdf5, write_npys, write_tiffs
from ..runs import Documents, RunBuilder
from .claim_checks import warned

HEIGHT, WIDTH = SHAPE
SPECS = ("AD_TIFF", "AD_HDF5_SINGLE", "NPY_SEQ")
OTHERS = {
    "taller": (HEIGHT + 3, WIDTH),
    "shorter": (HEIGHT - 2, WIDTH),
    "wider": (HEIGHT, WIDTH + 2),
    "exchanged": (WIDTH, HEIGHT),
    "flat": (HEIGHT * WIDTH,),
}
"""Shapes of the file in the middle, by what differs."""
CASES = [
    (spec, other) for spec in SPECS for other in OTHERS if (spec, other) != ("AD_TIFF", "flat")
]


class FillSequenceConformance(Conformance):
    """One file in the middle of a sequence differs: its cell is never cropped or cast unsaid."""

    @pytest.mark.parametrize(("spec", "other"), CASES)
    def test_a_file_in_the_middle_has_another_shape(
        self, broker: Any, tmp_path: Path, spec: str, other: str
    ) -> None:
        parts = [*frames(4, SHAPE)]
        parts[2] = frames(1, OTHERS[other])[0]
        docs = sequence_run(tmp_path, parts, spec, **LEGACY)
        header = insert_run(broker, docs)
        image = header.dataset()["img"]
        lead = () if spec == "NPY_SEQ" else (1,)
        assert image.shape == (4, *lead, *SHAPE)
        np.testing.assert_array_equal(image[:2].values, np.reshape(parts[:2], (2, *lead, *SHAPE)))
        for region in (image, image[..., 1:3, 2], header.dataset(chunks=None)["img"][..., :2]):
            with pytest.raises(FillError, match="open the run again") as caught:
                region.compute()
            for word in (header.uid, "primary", "'img'", spec, str((*lead, *OTHERS[other]))):
                assert word in str(caught.value)
        with warned("img"):
            dataset, table = header.dataset()["img"], header.table()
            cells = filled_cells(header)
        expected = [part.reshape(*lead, *part.shape) for part in parts]
        for found in (dataset.values, table.compute()["img"], cells):
            for cell, part in zip(found, expected, strict=True):
                np.testing.assert_array_equal(cell, part)

    @pytest.mark.parametrize("spec", SPECS)
    def test_a_full_claim_and_another_shape_in_the_middle(
        self, broker: Any, tmp_path: Path, spec: str
    ) -> None:
        parts = [*frames(4, SHAPE)]
        parts[2] = frames(1, OTHERS["taller"])[0]
        docs = sequence_run(tmp_path, parts, spec)
        header = insert_run(broker, docs)
        for region in (lambda image: image, lambda image: image[..., :2, :2]):
            for chunks in ({"time": 4}, None):
                with pytest.raises(FillError, match="peek=True") as caught:
                    region(header.dataset(chunks=chunks)["img"]).compute()
                for word in (header.uid, "primary", "'img'", str(OTHERS["taller"])[1:]):
                    assert word in str(caught.value)

    @pytest.mark.parametrize("spec", SPECS)
    def test_another_dtype_in_the_middle(self, broker: Any, tmp_path: Path, spec: str) -> None:
        """With a full claim it is converted, if no value changes."""
        parts = [*frames(4, SHAPE)]
        parts[2] = parts[2].astype("<u4")
        docs = sequence_run(tmp_path, parts, spec)
        header = insert_run(broker, docs)
        image = header.dataset()["img"]
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image.values.reshape(4, *SHAPE), np.stack(parts))
        region = image[..., 1:3, 2].values
        np.testing.assert_array_equal(region.reshape(4, 2), np.stack(parts)[:, 1:3, 2])

    @pytest.mark.parametrize("middle", [False, True])
    @pytest.mark.parametrize("keywords", [{}, {"point_number": "x"}, {"point_number": -1}])
    def test_datums_that_make_no_sense(
        self, broker: Any, tmp_path: Path, keywords: dict[str, Any], middle: bool
    ) -> None:
        """They are an error of their column, and runs can be opened."""
        write_hdf5(tmp_path / "a.h5", frames(9, SHAPE))
        run = RunBuilder()
        claim = image_claim([1, *SHAPE])
        del claim["dtype_numpy"]
        descriptor = run.descriptor({"img": claim, "x": 0.5})
        resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path="a.h5")
        for number in range(3):
            good = middle and number != 1
            datum = run.datum(resource, **({"point_number": number} if good else keywords))
            run.event(descriptor, {"img": datum, "x": number}, filled={"img": False})
        docs = run.stop()
        header = insert_run(broker, docs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClaimWarning)
            dataset, table = header.dataset(), header.table()
            assert dataset["x"].values.tolist() == table["x"].compute().tolist() == [0, 1, 2]
            for fill in (dataset["img"].compute, table.compute, lambda: filled_cells(header)):
                with pytest.raises(FillError, match="point_number") as caught:
                    fill()
                for word in (header.uid, "primary", "'img'", "AD_HDF5", "a.h5"):
                    assert word in str(caught.value)

    def test_frames_of_one_event_that_differ(self, broker: Any, tmp_path: Path) -> None:
        parts = [*frames(4, SHAPE)]
        parts[3] = frames(1, OTHERS["taller"])[0]
        docs = sequence_run(tmp_path, parts, "AD_TIFF", per_event=2, **LEGACY)
        header = insert_run(broker, docs)
        image, table = header.dataset()["img"], header.table()
        for fill in (image.compute, table.compute, lambda: filled_cells(header)):
            with pytest.raises(FillError, match="differ in shape") as caught:
                fill()
            for word in (header.uid, "primary", "'img'", str(SHAPE), str(OTHERS["taller"])):
                assert word in str(caught.value)


def sequence_run(
    folder: Path, parts: list[np.ndarray], spec: str, *, per_event: int = 1, **claim: Any
) -> Documents:
    """Return a run whose key ``img`` refers to one file for each part, by datums."""
    run = RunBuilder()
    lead = [] if spec == "NPY_SEQ" else [per_event]
    said = image_claim([*lead, *SHAPE], **claim)
    said = {name: value for name, value in said.items() if value is not None}
    descriptor = run.descriptor({"img": said, "x": 0.5})
    for number, part in enumerate(parts):
        if spec == "NPY_SEQ":
            write_npys(folder / "im", part[None], start=number)
        elif spec == "AD_TIFF":
            write_tiffs(folder, part[None], "im_{:06d}.tiff", start=number)
        else:
            write_hdf5(folder / f"im_{number:06d}.h5", part)
    ending = "tiff" if spec == "AD_TIFF" else "h5"
    kwargs = {"template": f"%s%s_%6.6d.{ending}", "filename": "im", "frame_per_point": per_event}
    if spec == "NPY_SEQ":
        resource = run.resource(spec, root=str(folder), resource_path="im")
    else:
        resource = run.resource(spec, root=str(folder), resource_path="", resource_kwargs=kwargs)
    for number in range(len(parts) // per_event):
        keyword: dict[str, Any] = {"index" if spec == "NPY_SEQ" else "point_number": number}
        datum = run.datum(resource, **keyword)
        run.event(descriptor, {"img": datum, "x": 0.5}, filled={"img": False})
    return run.stop()
