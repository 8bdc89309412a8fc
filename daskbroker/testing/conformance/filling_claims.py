"""Conformance of filling: claims of descriptors, and the cells in files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pytest

from ...assets.handlers.hdf5.frames import StreamHDF5
from ...core.errors import FillError, FrameMissing
from ..base import Conformance, Put, insert_all, insert_run
from ..claim_runs import (
    LEGACY,
    CountedSquares,
    Halves,
    claim_run,
    claim_run_of_squares,
    run_of_parts,
    stream_claim_run,
)
from ..detector_runs import SHAPE, Squares, filled_cells, image_claim, stacked
from ..files import frames, write_hdf5
from ..runs import RunBuilder
from .cell_views import cells_of
from .claim_checks import check_refused, opened_files, warned

HEIGHT, WIDTH = SHAPE
ODD = 15
"""Of 30 runs the one that is not as the others."""

OPEN_CLAIMS: dict[str, tuple[Sequence[Any], Mapping[str, Any], bool]] = {
    "no dtype": ([1, *SHAPE], LEGACY, False),
    "nothing": ([], LEGACY, False),
    "only a dtype": ([], {}, False),
    "a scalar": ([], {**LEGACY, "dtype": "number"}, True),
    "None": ([None, *SHAPE], {}, False),
    "all None": ([None, None, None], LEGACY, False),
    "-1": ([-1, *SHAPE], {}, False),
    "zeros": ([0, 0, 0], {}, False),
    "width, height, 0": ([WIDTH, HEIGHT, 0], LEGACY, True),
    "exchanged": ([1, WIDTH, HEIGHT], LEGACY, True),
    "no leading 1": (SHAPE, LEGACY, True),
    "two leading 1s": ([1, 1, *SHAPE], LEGACY, True),
    "another region": ([1, HEIGHT - 2, WIDTH], LEGACY, True),
}
"""Shape, more of the claim, and whether a file of one frame an event contradicts it."""

WRONG_CLAIMS: dict[str, tuple[Sequence[Any], Mapping[str, Any]]] = {
    "exchanged": ([1, WIDTH, HEIGHT], {}),
    "another region": ([1, HEIGHT - 2, WIDTH], {}),
    "more frames": ([5, *SHAPE], {}),
    "another dtype": ([1, *SHAPE], {"dtype_numpy": "|u1"}),
    "dtype_str": ([1, WIDTH, HEIGHT], {"dtype_numpy": None, "dtype_str": "<u2"}),
}


class FillClaimConformance(Conformance):
    """If a claim is open, or its file was looked into, the file decides shape and dtype.

    A store that remembers no peeks sets :attr:`remembers_peeks` to False.
    """

    remembers_peeks: ClassVar[bool] = True

    # -- claims that leave something open ----------------------------------------------------

    @pytest.mark.parametrize("name", OPEN_CLAIMS)
    def test_what_a_claim_leaves_open_the_file_says(
        self, put: Put, tmp_path: Path, name: str
    ) -> None:
        shape, more, wrong = OPEN_CLAIMS[name]
        docs, data = claim_run(tmp_path, shape, **more)
        header = put(docs)
        with warned("img" if wrong else "") as messages:
            _check_alike(header, data[:, None])
        for message in messages:
            for word in (header.uid, "primary", "'img'", str(list(shape)), str((1, *SHAPE))):
                assert word in message

    @pytest.mark.parametrize("spec", ["AD_TIFF", "NPY_SEQ", "AD_HDF5_SWMR"])
    @pytest.mark.parametrize("dtype", ["u1", "<u4", "<f4", ">i2"])
    def test_files_of_any_format(self, broker: Any, tmp_path: Path, spec: str, dtype: str) -> None:
        docs, data = claim_run(tmp_path, [], spec=spec, data=frames(4, SHAPE, dtype), **LEGACY)
        insert_all(broker, docs)
        native = data.astype(data.dtype.newbyteorder("="))
        _check_alike(broker[docs[0][1]["uid"]], native if spec == "NPY_SEQ" else native[:, None])

    @pytest.mark.parametrize(
        ("shape", "more"),
        [
            ([None, *SHAPE], {}),
            ([1, *SHAPE], LEGACY),
            ([-1, *SHAPE], LEGACY),
            ([None, None, None], LEGACY),
        ],
    )
    def test_streams(self, put: Put, tmp_path: Path, shape: Any, more: Any) -> None:
        docs, data = stream_claim_run(tmp_path, shape, **more)
        _check_alike(put(docs), data[:, None])

    def test_a_stream_that_declares_too_many_frames(self, put: Put, tmp_path: Path) -> None:
        """The file cannot tell whether it is incomplete; the error says what to pass if not."""
        for name, more in (("full", {}), ("open", LEGACY)):
            (tmp_path / name).mkdir()
            docs, data = stream_claim_run(tmp_path / name, [5, *SHAPE], **more)
            header = put(docs)
            for fill in (
                lambda header=header: header.table().compute(),
                lambda header=header: header.dataset()["img"].compute(),
                lambda header=header: list(header.documents()),
            ):
                with pytest.raises(FrameMissing, match="multiplier=n") as caught:
                    fill()
                for word in (header.uid, "primary", "'img'", "s.h5", str((5, *SHAPE)), "4 frames"):
                    assert word in str(caught.value)
            override = {"img": partial(StreamHDF5, multiplier=1)}
            with warned("img"):
                _check_alike(header, data[:, None], peek=True, handler_overrides=override)

    def test_handlers_that_only_read(self, broker: Any) -> None:
        docs = claim_run_of_squares()
        insert_all(broker, docs)
        broker.register_handler("SQUARES", CountedSquares)
        CountedSquares.threads.clear()
        header = broker[docs[0][1]["uid"]]
        image = header.dataset()["img"]
        assert (image.dtype, image.shape) == (np.float64, (4, *SHAPE))
        assert len(CountedSquares.threads) <= 2
        _check_alike(header, stacked([np.full(SHAPE, float(n * n)) for n in range(4)]))

    def test_frames_are_neither_dropped_nor_spread(self, put: Put, tmp_path: Path) -> None:
        """The shape of the claim lacks ``num_images``."""
        docs, data = claim_run(tmp_path, SHAPE, per_event=2, **LEGACY)
        header = put(docs)
        with warned("img"):
            _check_alike(header, data.reshape(-1, 2, *SHAPE))

    def test_values_that_are_in_the_events(self, put: Put) -> None:
        """No file is looked into, and no warning is given."""
        run = RunBuilder()
        claim = image_claim([1, *SHAPE])
        del claim["dtype_numpy"]
        descriptor = run.descriptor({"img": claim})
        data = frames(3, (1, *SHAPE))
        for cell in data:
            run.event(descriptor, {"img": cell.tolist()}, filled={"img": True})
        header = put(run.stop())
        np.testing.assert_array_equal(header.dataset()["img"].values, data)
        np.testing.assert_array_equal(stacked(header.table().compute()["img"]), data)

    # -- full claims -------------------------------------------------------------------------

    def test_a_full_claim_opens_no_file(self, put: Put, tmp_path: Path) -> None:
        docs, data = claim_run(tmp_path, [1, *SHAPE])
        shutil.move(tmp_path / "a.h5", tmp_path / "b.h5")
        header = put(docs)
        table, dataset = header.table(), header.dataset()
        shutil.move(tmp_path / "b.h5", tmp_path / "a.h5")
        np.testing.assert_array_equal(dataset["img"].values, data[:, None])
        np.testing.assert_array_equal(stacked(table.compute()["img"]), data[:, None])

    @pytest.mark.parametrize("name", WRONG_CLAIMS)
    def test_a_full_claim_that_is_wrong(self, put: Put, tmp_path: Path, name: str) -> None:
        shape, more = WRONG_CLAIMS[name]
        docs, data = claim_run(tmp_path, shape, 10, **more)
        header = put(docs)
        with pytest.raises(FillError, match="peek=True") as caught:
            header.dataset()["img"].compute()
        with pytest.raises(FillError, match="peek=True"):
            header.table().compute()
        with pytest.raises(FillError, match="peek=True"):
            list(header.documents())
        for word in (header.uid, "primary", "'img'", "a.h5"):
            assert word in str(caught.value)
        with warned("img"):
            _check_alike(header, data[:, None], peek=True)

    def test_contradictions_as_errors(self, put: Put, tmp_path: Path) -> None:
        docs, _ = claim_run(tmp_path, [WIDTH, HEIGHT, 0], **LEGACY)
        words = (str([WIDTH, HEIGHT, 0]), str((1, *SHAPE)))
        check_refused(put(docs), "key 'img'", words)

    def test_nothing_is_looked_into(self, put: Put, tmp_path: Path) -> None:
        docs, data = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
        header = put(docs)
        _check_alike(header, data[:, None].astype(np.float64), peek=False)
        with dask.config.set({"daskbroker.shape-mismatch": "keep"}):
            cells = header.table(peek=False).compute()["img"]
        assert {cell.dtype for cell in cells} == {np.dtype(np.uint16)}

    # -- many runs ---------------------------------------------------------------------------

    @pytest.mark.parametrize("other", [(SHAPE, "<u4"), ((4, 8), "<u2")], ids=["depth", "region"])
    def test_runs_share_what_is_found(self, broker: Any, tmp_path: Path, other: Any) -> None:
        """Few files are opened; the run that differs is named, and right once it is known."""
        shape, dtype = other
        uids, odd = self._many(broker, tmp_path, shape, dtype)
        results = broker(uid={"$in": uids})
        with opened_files(tmp_path) as opened:
            image = results.dataset()["img"]
        assert len(opened) <= 20
        assert (image.dtype, image.shape) == (np.uint16, (60, 1, *SHAPE))
        with opened_files(tmp_path) as opened:
            tree = results.dataset(combine="tree")
        assert len(opened) <= 20
        assert {tree[uid]["img"].dtype for uid in uids} == {np.dtype(np.uint16)}
        cells = results.table().compute()
        assert {cell.dtype for cell in cells["img"][cells["run"] == odd]} == {np.dtype(dtype)}
        with pytest.raises(FillError, match="peek='each'") as caught:
            image.compute()
        assert odd in str(caught.value)
        with warned("" if shape == SHAPE else odd):
            found = results.dataset()["img"]
        self._check_many(found, shape, dtype)

    def test_each_run_is_looked_into(self, broker: Any, tmp_path: Path) -> None:
        uids, _ = self._many(broker, tmp_path, SHAPE, "<u4")
        self._check_many(broker(uid={"$in": uids}).dataset(peek="each")["img"], SHAPE, "<u4")

    def _many(
        self, broker: Any, folder: Path, shape: tuple[int, ...], dtype: str
    ) -> tuple[list[str], str]:
        uids = []
        for number in range(30):
            place = folder / str(number)
            place.mkdir()
            odd = number == ODD
            data = frames(2, shape if odd else SHAPE, dtype if odd else "<u2", start=2 * number)
            docs, _ = claim_run(place, [1, *SHAPE], data=data, time=1e9 + number, **LEGACY)
            insert_all(broker, docs)
            uids.append(docs[0][1]["uid"])
        return uids, uids[ODD]

    def _check_many(self, image: Any, shape: tuple[int, ...], dtype: str) -> None:
        cells = image.values
        assert image.dtype == (np.dtype(dtype) if shape == SHAPE else np.dtype(object))
        for row, cell in enumerate(cells):
            odd = row // 2 == ODD
            expected = frames(1, shape if odd else SHAPE, dtype if odd else "<u2", start=row)
            np.testing.assert_array_equal(cell, expected)

    def test_every_run_has_a_claim_of_its_own(self, broker: Any, tmp_path: Path) -> None:
        uids = []
        for number in range(12):
            place = tmp_path / str(number)
            place.mkdir()
            shape = (HEIGHT, WIDTH + number)
            docs, _ = claim_run(place, [1, *shape], data=frames(2, shape), **LEGACY)
            insert_all(broker, docs)
            uids.append(docs[0][1]["uid"])
        results = broker(uid={"$in": uids})
        image = results.dataset(peek="each")["img"]
        assert image.dtype == object
        assert {cell.dtype for cell in image.values} == {np.dtype(np.uint16)}

    # -- what is remembered ------------------------------------------------------------------

    def test_what_was_found_is_remembered(self, broker: Any, reopen: Any, tmp_path: Path) -> None:
        docs, data = claim_run(tmp_path, [1, WIDTH, HEIGHT])
        insert_all(broker, docs)
        uid = docs[0][1]["uid"]
        before = list(broker[uid].documents(fill=False))
        assert broker.peek(uid) == 1
        assert list(broker[uid].documents(fill=False)) == before
        if not self.remembers_peeks:
            return
        assert broker.peek(uid) == 0
        with warned("img"):
            name = broker[uid].dataset()["img"].data.name
        header = reopen()[uid]
        with opened_files(tmp_path) as opened, warned("img"):
            image, table = header.dataset()["img"], header.table()
        assert not opened
        assert image.data.name == name
        assert (image.dtype, image.shape) == (np.uint16, (4, 1, *SHAPE))
        np.testing.assert_array_equal(image.values, data[:, None])
        np.testing.assert_array_equal(stacked(table.compute()["img"]), data[:, None])

    def test_the_first_reader_remembers(self, broker: Any, reopen: Any, tmp_path: Path) -> None:
        docs, data = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
        insert_all(broker, docs)
        uid = docs[0][1]["uid"]
        assert broker[uid].dataset()["img"].dtype == np.uint16
        shutil.move(tmp_path / "a.h5", tmp_path / "away.h5")
        if not self.remembers_peeks:
            return
        image = reopen()[uid].dataset()["img"]
        assert image.dtype == np.uint16
        shutil.move(tmp_path / "away.h5", tmp_path / "a.h5")
        np.testing.assert_array_equal(image.values, data[:, None])

    def test_a_file_that_was_replaced(self, broker: Any, tmp_path: Path) -> None:
        docs, data = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
        header = insert_run(broker, docs)
        before = header.dataset()["img"]
        assert before.dtype == np.uint16
        (tmp_path / "a.h5").unlink()
        write_hdf5(tmp_path / "a.h5", data.astype("<f4"))
        image = header.dataset()["img"]
        assert image.dtype == np.float32
        assert image.data.name != before.data.name
        np.testing.assert_array_equal(image.values, data[:, None])

    def test_events_that_came_later(self, broker: Any, tmp_path: Path) -> None:
        parts = [frames(2, SHAPE, np.uint8), frames(2, SHAPE, "<u4", start=2)]
        docs = run_of_parts(tmp_path, parts, [1, *SHAPE], **LEGACY)
        half = [n for n, (name, _) in enumerate(docs) if name == "event"][1] + 1
        insert_all(broker, docs[:half])
        header = broker[docs[0][1]["uid"]]
        assert header.dataset()["img"].dtype == np.uint8
        insert_all(broker, docs[half:])
        assert header.dataset()["img"].dtype == np.uint32

    def test_another_handler(self, broker: Any) -> None:
        """Findings of one handler are not used for another."""
        docs = claim_run_of_squares()
        header = insert_run(broker, docs)
        for handler, shape in ((Squares, SHAPE), (Halves, (3, 8)), (Squares, SHAPE)):
            image = header.dataset(handler_overrides={"img": handler})["img"]
            assert image.shape == (4, *shape)
            assert image.values.shape == (4, *shape)

    # -- files out of sight ------------------------------------------------------------------

    def test_files_out_of_sight(self, broker: Any, tmp_path: Path) -> None:
        """The run opens with the cells of another run of the same claim and spec as a guess."""
        gone, there = tmp_path / "gone", tmp_path / "there"
        headers = []
        for folder in (gone, there):
            folder.mkdir()
            docs, data = claim_run(folder, [1, *SHAPE], **LEGACY)
            insert_all(broker, docs)
            headers.append(broker[docs[0][1]["uid"]])
        away = shutil.move(gone, tmp_path / "away")
        with warned("dtypes={'img'") as messages:
            image = headers[0].dataset()["img"]
        with warned("dtypes={'img'"):
            table, documents = headers[0].table(), headers[0].documents()
            assert [next(documents)[0], next(documents)[0]] == ["start", "resource"]
        assert headers[0].uid in messages[0]
        assert (image.dtype, image.shape) == (np.float64, (4, 1, *SHAPE))
        with pytest.raises(FillError, match=r"a\.h5"):
            image.compute()
        shutil.move(away, gone)  # as where a worker that came later sees it
        for cells in (image.values, table.compute()["img"], cells_of(documents)):
            assert {(cell.dtype, cell.shape) for cell in cells} == {(image.dtype, image.shape[1:])}
            np.testing.assert_array_equal(stacked(cells), data[:, None])
        shutil.rmtree(gone)
        assert headers[0].dataset(dtypes={"img": "u2"})["img"].dtype == np.uint16
        assert headers[1].dataset()["img"].dtype == np.uint16
        if self.remembers_peeks:
            assert headers[0].dataset()["img"].dtype == np.uint16

    def test_readable_roots(self, broker: Any, tmp_path: Path) -> None:
        inside, outside = tmp_path / "in", tmp_path / "out"
        inside.mkdir()
        outside.mkdir()
        docs, _ = claim_run(outside, [1, *SHAPE], **LEGACY)
        insert_all(broker, docs)
        make: Any = type(broker)
        closed = make(broker.header_source, broker.event_sources, readable_roots=[inside])
        uid = docs[0][1]["uid"]
        with opened_files(tmp_path) as opened:
            assert closed.peek(uid) == 0
            with warned("readable roots"):
                assert closed[uid].dataset()["img"].dtype == np.float64
        assert not opened
        make(broker.header_source, broker.event_sources)  # the fixture closes it

    # -- in the background -------------------------------------------------------------------

    def test_a_run_that_has_stopped_is_looked_into(self, broker: Any, tmp_path: Path) -> None:
        """A background thread looks after the stop; nothing of the run changes."""
        docs = claim_run_of_squares()
        broker.register_handler("SQUARES", CountedSquares)
        CountedSquares.threads.clear()
        with dask.config.set({"daskbroker.peek-after-stop": True}):
            insert_all(broker, docs)
        uid = docs[0][1]["uid"]
        end = time.monotonic() + 30
        while not CountedSquares.threads and time.monotonic() < end:
            time.sleep(0.05)
        assert set(CountedSquares.threads) == {"daskbroker-peek"}
        if not self.remembers_peeks:
            return
        (source,) = broker.event_sources
        while not source.store.list_peeks([uid]) and time.monotonic() < end:
            time.sleep(0.05)
        calls = len(CountedSquares.threads)
        assert calls == 2  # the first cell and the last one
        assert broker[uid].dataset()["img"].shape == (4, *SHAPE)
        assert len(CountedSquares.threads) == calls


# -- checks ----------------------------------------------------------------------------------


def _check_alike(header: Any, expected: np.ndarray, **options: Any) -> None:
    """Check that all views have these cells, with their dtype and shape."""
    image = header.dataset(**options)["img"]
    assert (image.dtype, image.shape) == (expected.dtype, expected.shape)
    values = image.values
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)
    lazily = header.dataset(chunks=None, **options)["img"]
    np.testing.assert_array_equal(lazily[1:3, ..., 2].values, expected[1:3, ..., 2])
    stream = header.stream(**options) if options else None
    cells = filled_cells(header) if stream is None else cells_of(stream)
    for shown in (header.table(**options).compute()["img"], cells):
        assert {(cell.dtype, cell.shape) for cell in shown} == {(values.dtype, values.shape[1:])}
        np.testing.assert_array_equal(stacked(shown), expected)
