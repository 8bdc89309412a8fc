"""Conformance of frames that claim the number of others: by default the latest, or all."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest

from ..base import Conformance, Put
from ..detector_runs import SHAPE, image_claim, stream_place
from ..files import frames, write_hdf5
from ..runs import RunBuilder
from ..runs_with_gaps import rewound_frames
from .cell_views import assert_cells_equal, cells_of, views_of


class FramesAgainConformance(Conformance):
    """Effect of ``duplicates=`` on frames of one number, in all views."""

    @pytest.mark.parametrize("with_events", [True, False], ids=["events", "frames alone"])
    @pytest.mark.parametrize("files", [1, 2])
    def test_frames_that_claim_the_same_numbers(
        self, put: Put, tmp_path: Path, files: int, with_events: bool
    ) -> None:
        """A scan went back to a checkpoint: the detector went on in its file, or began another."""
        docs, first, second = rewound_frames(tmp_path, files, with_events)
        header = put(docs)
        latest = [first[0], *second]
        every = [first[0], first[1], second[0], first[2], second[1], *second[2:]]
        numbers = [1, 2, 2, 3, 3, 4, 5]
        for runs in (header, header.db(uid=header.uid)):
            for name, view in views_of(runs).items():
                if "document" not in name:
                    assert_cells_equal(view(), latest)
                    assert_cells_equal(view(duplicates="all"), every)
            table = runs.table(duplicates="all")
            assert len(table) == len(every)
            assert table.compute().index.tolist() == numbers
            dataset = runs.dataset(duplicates="all")
            assert dataset["seq_num"].values.tolist() == numbers
            assert_cells_equal(dataset["img"][[1, 2, 4]].values, [every[n] for n in (1, 2, 4)])
            assert_cells_equal(
                dataset["img"][2:5, 0, 1:3].values, [cell[0, 1:3] for cell in every[2:5]]
            )
        with dask.config.set({"daskbroker.partition-size": 2 * first[0].nbytes}):
            parts = header.table(duplicates="all")
            blocks = header.dataset(duplicates="all")["img"]
        assert parts.npartitions > 1
        assert_cells_equal(parts["img"].compute(), every)
        assert_cells_equal(blocks.values, every)
        if with_events:
            shown = header.table(duplicates="all").compute()
            assert shown["x"].tolist() == [0.0, 0.5, 1.5, 1.0, 2.0, 2.5, 3.0]
            assert_cells_equal(cells_of(header.documents()), [*first, *second])

    def test_files_that_claim_events_that_were_taken_once(self, put: Put, tmp_path: Path) -> None:
        """Two files of one key: an event is there as often as its frames."""
        data = frames(8, SHAPE)[:, None]
        run = RunBuilder()
        claim = image_claim((1, *SHAPE), external="STREAM:")
        descriptor = run.descriptor({"img": claim, "x": 0.5, "w": [0.5, 0.5]})
        for name, some, seq_nums in (("a", data[:4], (1, 5)), ("b", data[4:], (3, 7))):
            place = stream_place(write_hdf5(tmp_path / f"{name}.h5", some[:, 0]))
            resource = run.stream_resource("img", **place)
            run.stream_datum(resource, descriptor, (0, 4), seq_nums)
        for number in range(6):
            run.event(descriptor, {"x": number * 0.5, "w": [number, 1.5]})
        header = put(run.stop())
        every = data[[0, 1, 2, 4, 3, 5, 6, 7]]
        numbers = [1, 2, 3, 3, 4, 4, 5, 6]
        for runs in (header, header.db(uid=header.uid)):
            table = runs.table(duplicates="all").compute()
            assert table.index.tolist() == numbers
            assert table["x"].tolist() == [(n - 1) * 0.5 for n in numbers]
            assert [cell[0] for cell in table["w"]] == [n - 1 for n in numbers]
            assert_cells_equal(table["img"], every)
            dataset = runs.dataset(duplicates="all")
            assert_cells_equal(dataset["img"].values, every)
            assert dataset["seq_num"].values.tolist() == numbers
            assert_cells_equal(runs.dataset()["img"].values, data[[0, 1, 4, 5, 6, 7]])
        assert len(header.table(duplicates="all", fill=False)) == 6
        assert_cells_equal(cells_of(header.documents()), data[[0, 1, 4, 5, 6, 7]])
