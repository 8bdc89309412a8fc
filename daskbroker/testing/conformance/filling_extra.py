"""Conformance of filling: frames on disk that belong to no event."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pytest

from ...assets.handlers.hdf5.frames import AreaDetectorHDF5, StreamHDF5
from ...assets.handlers.npy import StreamNPY
from ...core.errors import FillError
from ..base import Conformance, Put, insert_all
from ..detector_runs import SHAPE, image_claim, stream_place
from ..files import frames, write_hdf5, write_npys, write_tiffs
from ..runs import Documents, RunBuilder
from .cell_views import header_of
from .claim_checks import check_refused, opened_files, warned

EVENTS = 4
WORDS = "belong to no event"
Write = Callable[[Path, np.ndarray], Mapping[str, Any]]
"""Writes frames; the keys of the resource or stream_resource that has them."""


def _hdf5(folder: Path, data: np.ndarray) -> Mapping[str, Any]:
    return stream_place(write_hdf5(folder / "s.h5", data))


def _tiffs(folder: Path, data: np.ndarray) -> Mapping[str, Any]:
    parameters = {"template": "img_{:05d}.tif", "chunk_shape": [1, *SHAPE]}
    uri = f"file://localhost{write_tiffs(folder / 't', data)}"
    return {"mimetype": "multipart/related;type=image/tiff", "uri": uri, "parameters": parameters}


def _npys(folder: Path, data: np.ndarray) -> Mapping[str, Any]:
    parameters = {"chunk_shape": [1, *SHAPE], "join_method": "concat"}
    uri = f"file://localhost{write_npys(folder / 'n', data)}"
    mimetype = "multipart/related;type=application/x-npy"
    return {"mimetype": mimetype, "uri": uri, "parameters": parameters}


def _ad_hdf5(folder: Path, data: np.ndarray) -> Mapping[str, Any]:
    path = write_hdf5(folder / "a.h5", data)
    return {"spec": "AD_HDF5", "root": str(folder), "resource_path": path.name}


def _ad_tiffs(folder: Path, data: np.ndarray) -> Mapping[str, Any]:
    write_tiffs(folder / "t", data, "im_{:06d}.tiff")
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "im"}
    place = {"root": str(folder), "resource_path": "t", "resource_kwargs": kwargs}
    return {"spec": "AD_TIFF", **place}


def _npy_sequence(folder: Path, data: np.ndarray) -> Mapping[str, Any]:
    write_npys(folder / "f", data)
    return {"spec": "NPY_SEQ", "root": str(folder), "resource_path": "f"}


STREAMS: dict[str, Write] = {"hdf5": _hdf5, "tiff": _tiffs, "npy": _npys}
DATUMS: dict[str, Write] = {
    "AD_HDF5": _ad_hdf5, "AD_TIFF": _ad_tiffs, "NPY_SEQ": _npy_sequence,
}  # fmt: skip
CLAIMS = {"no axis": SHAPE, "an axis of 1": (1, *SHAPE)}


class ExtraFrameConformance(Conformance):
    """A file with frames that belong to no event gives one warning per key.

    A store that remembers no peeks sets :attr:`remembers_peeks` to False.
    """

    remembers_peeks: ClassVar[bool] = True

    # -- when it is reported -----------------------------------------------------------------

    @pytest.mark.parametrize("shape", CLAIMS.values(), ids=CLAIMS)
    def test_only_of_runs_that_have_stopped(
        self, put: Put, tmp_path: Path, shape: Sequence[int]
    ) -> None:
        """Views of stopped runs warn, and the values of the events are the same."""
        docs, data = stream_run_of(tmp_path, shape, 2 * EVENTS)
        header = put(docs)
        expected = data[:EVENTS].reshape(EVENTS, *shape)
        views: list[Callable[[], Any]] = [
            lambda: header.dataset(peek=True)["img"].values,
            lambda: np.stack(list(header.table(peek=True).compute()["img"])),
            lambda: header.tree(peek=True)["primary"]["img"].values,
            lambda: np.stack(
                [d["data"]["img"] for n, d in header.stream(peek=True) if n == "event"]
            ),
        ]
        for view in views:
            with warned(WORDS if header.stop is not None else "") as messages:
                np.testing.assert_array_equal(view(), expected)
            for message in messages:
                for word in (header.uid, "'primary'", "'img'", "s.h5", "8 frames", "refer to 4"):
                    assert word in message
                assert "another run if runs share the file" in message
                assert re.search(
                    "of this run alone and each event has 2 frames, .*multiplier=2", message
                )
            assert len(messages) <= 1

    @pytest.mark.parametrize("name", STREAMS)
    @pytest.mark.parametrize("count", [EVENTS - 1, EVENTS, EVENTS + 1, 2 * EVENTS, 11 * EVENTS])
    def test_streams(self, broker: Any, tmp_path: Path, name: str, count: int) -> None:
        docs, _ = stream_run_of(tmp_path, SHAPE, count, write=STREAMS[name])
        header = header_of(broker, docs)
        with warned(WORDS if count > EVENTS else "") as messages:
            header.dataset(peek=True)
        for message in messages:
            assert f"{count} frames" in message
            assert (f"multiplier={count // EVENTS}" in message) == (not count % EVENTS)

    @pytest.mark.parametrize("name", DATUMS)
    @pytest.mark.parametrize("count", [EVENTS, EVENTS + 1, 3 * EVENTS])
    def test_datums(self, broker: Any, tmp_path: Path, name: str, count: int) -> None:
        """The resource lacks ``frame_per_point``, or the run was aborted."""
        docs, data = datum_run_of(
            tmp_path, SHAPE if name == "NPY_SEQ" else (1, *SHAPE), count, write=DATUMS[name]
        )
        header = header_of(broker, docs)
        with warned(WORDS if count > EVENTS else "") as messages:
            image = header.dataset()["img"]
        np.testing.assert_array_equal(image.values.reshape(-1, *SHAPE), data[:EVENTS])
        for message in messages:
            assert ("frame_per_point=3" in message) == (count == 12 and name != "NPY_SEQ")

    def test_a_claim_that_says_how_many(self, broker: Any, tmp_path: Path) -> None:
        """The events have all frames, so no warning is given."""
        docs, data = stream_run_of(tmp_path, (2, *SHAPE), 2 * EVENTS)
        image = header_of(broker, docs).dataset(peek=True)["img"]
        np.testing.assert_array_equal(image.values, data.reshape(EVENTS, 2, *SHAPE))

    def test_a_claim_that_the_resource_does_not_keep(self, broker: Any, tmp_path: Path) -> None:
        """A claim of three frames for each event, without ``frame_per_point``: one warning."""
        docs, _ = datum_run_of(tmp_path, (3, *SHAPE), 3 * EVENTS, write=_ad_hdf5)
        with warned("the descriptor declares the shape [3, ") as messages:
            header_of(broker, docs).dataset(peek=True)
        (message,) = messages
        assert WORDS in message
        assert "frame_per_point=3" in message

    def test_a_run_that_stops_later(self, broker: Any, tmp_path: Path) -> None:
        """Findings from the time when the run was open are not remembered."""
        docs, _ = stream_run_of(tmp_path, SHAPE, 2 * EVENTS, dtype_numpy=None)
        insert_all(broker, docs[:-1])
        header = broker[docs[0][1]["uid"]]
        header.dataset()
        broker.peek(header)
        insert_all(broker, docs[-1:])
        with warned(WORDS):
            broker[header.uid].dataset()

    def test_a_full_claim_that_nobody_peeked(self, broker: Any, tmp_path: Path) -> None:
        docs, _ = stream_run_of(tmp_path, SHAPE, 2 * EVENTS)
        header = header_of(broker, docs)
        with opened_files(tmp_path) as opened:
            header.dataset()
        assert not opened
        assert broker.peek(header.uid) == 1
        if self.remembers_peeks:
            with opened_files(tmp_path) as opened, warned(WORDS):
                header.dataset()
            assert not opened

    def test_a_full_claim_is_told_when_it_is_read(self, broker: Any, tmp_path: Path) -> None:
        """Reading without a peek warns once for each key of a run, and opens no more files."""
        views: list[Callable[[Any], Any]] = [
            lambda header: header.dataset(chunks=None)["img"][1:2, :1].values,
            lambda header: header.table(peek=False)["img"].compute(),
            lambda header: list(header.documents()),
        ]
        makers = (stream_run_of, datum_run_of)
        for number, (view, make) in enumerate(itertools.product(views, makers)):
            folder = tmp_path / str(number)
            folder.mkdir()
            counts = (EVENTS, 2 * EVENTS)
            runs = [make(folder / str(n), (1, *SHAPE), n, dtype_numpy="<u2")[0] for n in counts]
            exact, header = [header_of(broker, docs) for docs in runs]
            with opened_files(folder) as expected:
                view(exact)
            with opened_files(folder) as opened, warned(WORDS) as messages:
                view(header)
                view(header)
            assert len(opened) <= len(expected)
            (message,) = messages
            for word in (header.uid, "'primary'", "'img'", ".h5", "8 frames", "refer to 4"):
                assert word in message
            with dask.config.set({"daskbroker.shape-mismatch": "keep"}), warned(""):
                view(header)
            with (
                dask.config.set({"daskbroker.shape-mismatch": "raise"}),
                pytest.raises(FillError, match=WORDS),
            ):
                view(header)
            insert_all(broker, make(folder / "open", (1, *SHAPE), 8, dtype_numpy="<u2")[0][:-1])
            view(broker[-1])  # its documents may still come

    def test_what_was_found_is_remembered(self, broker: Any, reopen: Any, tmp_path: Path) -> None:
        docs, _ = datum_run_of(tmp_path, (1, *SHAPE), 2 * EVENTS)
        uid = header_of(broker, docs).uid
        with warned(WORDS) as first:
            broker[uid].dataset()
        header = reopen()[uid]
        with warned(WORDS) as second:
            header.table()
        assert first == second

    # -- what is done about it ---------------------------------------------------------------

    @pytest.mark.parametrize("shape", CLAIMS.values(), ids=CLAIMS)
    @pytest.mark.parametrize("name", ["hdf5", "npy"])
    def test_an_override_shows_them(
        self, broker: Any, tmp_path: Path, shape: Sequence[int], name: str
    ) -> None:
        """The override of the message shows the frames, also if the stream_resource has 1."""
        handler = {"hdf5": StreamHDF5, "npy": StreamNPY}[name]
        docs, data = stream_run_of(
            tmp_path, shape, 2 * EVENTS, write=STREAMS[name], parameters={"multiplier": 1}
        )
        self._check_override(broker, docs, data, partial(handler, multiplier=2))

    def test_an_override_of_datums(self, broker: Any, tmp_path: Path) -> None:
        docs, data = datum_run_of(tmp_path, (1, *SHAPE), 2 * EVENTS)
        self._check_override(broker, docs, data, partial(AreaDetectorHDF5, frame_per_point=2))

    def _check_override(self, broker: Any, docs: Documents, data: np.ndarray, handler: Any) -> None:
        header = header_of(broker, docs)
        expected = data.reshape(EVENTS, 2, *SHAPE)
        more: dict[str, Any] = {"handler_overrides": {"img": handler}, "peek": True}
        with warned("cells of the file are read"):
            image, table = header.dataset(**more)["img"], header.table(**more)
        np.testing.assert_array_equal(image.values, expected)
        np.testing.assert_array_equal(np.stack(list(table.compute()["img"])), expected)
        with warned("img") as messages:
            header.dataset(peek=True)
        (message,) = (one for one in messages if WORDS in one)
        ((keyword, value),) = handler.keywords.items()
        assert f"{handler.func.__name__}, {keyword}={value}" in message

    def test_a_multiplier_in_the_documents(self, broker: Any, tmp_path: Path) -> None:
        docs, data = stream_run_of(
            tmp_path, SHAPE, 2 * EVENTS, parameters={"multiplier": 2}, dtype_numpy=None
        )
        header = header_of(broker, docs)
        with warned("cells of the file are read"):
            image = header.dataset()["img"]
        np.testing.assert_array_equal(image.values, data.reshape(EVENTS, 2, *SHAPE))

    def test_as_an_error(self, broker: Any, tmp_path: Path) -> None:
        docs, _ = datum_run_of(tmp_path, (1, *SHAPE), 2 * EVENTS)
        words = ("'img'", "a.h5", "8 frames", "refer to 4")
        check_refused(header_of(broker, docs), WORDS, words)

    def test_nothing_is_said(self, broker: Any, tmp_path: Path) -> None:
        docs, data = stream_run_of(tmp_path, SHAPE, 2 * EVENTS)
        header = header_of(broker, docs)
        with dask.config.set({"daskbroker.shape-mismatch": "keep"}):
            image = header.dataset(peek=True)["img"]
        np.testing.assert_array_equal(image.values, data[:EVENTS])

    # -- who has the frames ------------------------------------------------------------------

    def test_frames_of_another_stream(self, broker: Any, tmp_path: Path) -> None:
        """One file and stream_resource have the frames of two descriptors."""
        run, place = RunBuilder(), _hdf5(tmp_path, frames(6, SHAPE))
        resource = run.stream_resource("img", **place)
        for stream, span in (("primary", (0, 2)), ("dark", (2, 6))):
            descriptor = run.descriptor({"img": _stream_claim(SHAPE)}, stream)
            numbers = (1, span[1] - span[0] + 1)
            run.stream_datum(resource, descriptor, span, numbers)
        header = header_of(broker, run.stop(num_events={"primary": 2, "dark": 4}))
        for stream in ("primary", "dark"):
            assert header.dataset(stream, peek=True)["img"].shape[0] in (2, 4)

    @pytest.mark.parametrize("count", [6, 8])
    def test_several_stream_resources_of_one_file(
        self, broker: Any, tmp_path: Path, count: int
    ) -> None:
        run, place = RunBuilder(), _hdf5(tmp_path, frames(count, SHAPE))
        descriptor = run.descriptor({"img": _stream_claim(SHAPE)})
        for span in ((0, 2), (2, 6)):
            run.stream_datum(run.stream_resource("img", **place), descriptor, span)
        header = header_of(broker, run.stop(num_events={"primary": 6}))
        with warned(WORDS if count > 6 else ""):
            header.dataset(peek=True)

    def test_several_files(self, broker: Any, tmp_path: Path) -> None:
        """There is one warning, although both files have more frames."""
        run = RunBuilder()
        descriptor = run.descriptor({"img": _stream_claim(SHAPE)})
        for number, span in enumerate(((0, 2), (2, 5))):
            path = write_hdf5(tmp_path / f"{number}.h5", frames(7 * (number + 1), SHAPE))
            resource = run.stream_resource("img", **stream_place(path))
            run.stream_datum(resource, descriptor, span)
        header = header_of(broker, run.stop(num_events={"primary": 5}))
        with warned(WORDS) as messages:
            header.dataset(peek=True)
        assert len(messages) == 1

    def test_datums_of_other_keys_and_without_events(self, broker: Any, tmp_path: Path) -> None:
        """Datums of other keys and of no event count as references to frames."""
        run, data = RunBuilder(), frames(6, SHAPE)
        claim = image_claim((1, *SHAPE))
        descriptor = run.descriptor({"img": claim, "other": claim})
        resource = run.resource(**_ad_hdf5(tmp_path, data))
        again = run.resource(**_ad_hdf5_place(tmp_path))
        for number in (0, 2):
            first = run.datum(resource, point_number=number)
            second = run.datum(again, point_number=number + 1)
            run.event(descriptor, {"img": first, "other": second})
        for number in (4, 5):
            run.datum(resource, point_number=number)
        ds = header_of(broker, run.stop()).dataset(peek=True)
        np.testing.assert_array_equal(ds["other"].values[:, 0], data[[1, 3]])

    def test_one_warning_a_key(self, broker: Any, tmp_path: Path) -> None:
        uids = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            docs, _ = datum_run_of(folder, (1, *SHAPE), 2 * EVENTS)
            uids.append(header_of(broker, docs).uid)
        with warned(WORDS) as messages:
            broker(uid={"$in": uids}).dataset()
        assert len(messages) == 1
        assert "and 2 more runs" in messages[0]

    def test_no_more_files_are_opened(self, broker: Any, tmp_path: Path) -> None:
        """A look opens a file once, whether it has more frames or not."""
        counts = []
        for number, count in enumerate((EVENTS, 2 * EVENTS)):
            folder = tmp_path / str(number)
            folder.mkdir()
            header = header_of(broker, datum_run_of(folder, (1, *SHAPE), count)[0])
            with opened_files(folder) as opened:
                broker.peek(header)
            counts.append(len(opened))
        assert counts[0] == counts[1] <= 2

    def test_documents_stay_as_they_are(self, broker: Any, tmp_path: Path) -> None:
        docs, _ = datum_run_of(tmp_path, (1, *SHAPE), 2 * EVENTS)
        header = header_of(broker, docs)
        before = [json.dumps(doc, sort_keys=True) for _, doc in header.documents(fill=False)]
        broker.peek(header)
        after = [json.dumps(doc, sort_keys=True) for _, doc in header.documents(fill=False)]
        assert after == before


# -- runs ------------------------------------------------------------------------------------


def _stream_claim(shape: Sequence[int], **claim: Any) -> dict[str, Any]:
    said = image_claim(shape, external="STREAM:", **claim)
    return {name: value for name, value in said.items() if value is not None}


def _ad_hdf5_place(folder: Path) -> dict[str, Any]:
    return {"spec": "AD_HDF5", "root": str(folder), "resource_path": "a.h5"}


def stream_run_of(
    folder: Path,
    shape: Sequence[int],
    count: int,
    *,
    write: Write = _hdf5,
    parameters: Mapping[str, Any] | None = None,
    **claim: Any,
) -> tuple[Documents, np.ndarray]:
    """Return a run of 4 events whose stream_resource has ``count`` frames."""
    folder.mkdir(exist_ok=True)
    data, run = frames(count, SHAPE), RunBuilder()
    place = dict(write(folder, data))
    place["parameters"] = {**place["parameters"], **(parameters or {})}
    descriptor = run.descriptor({"img": _stream_claim(shape, **claim), "x": 0.5})
    resource = run.stream_resource("img", **place)
    run.stream_datum(resource, descriptor, (0, EVENTS))
    for number in range(EVENTS):
        run.event(descriptor, {"x": number * 0.5})
    return run.stop(), data


def datum_run_of(
    folder: Path,
    shape: Sequence[int],
    count: int,
    *,
    write: Write = _ad_hdf5,
    dtype_numpy: str | None = None,
) -> tuple[Documents, np.ndarray]:
    """Return a run of 4 events with a datum each, whose resource has ``count`` frames."""
    folder.mkdir(exist_ok=True)
    data, run = frames(count, SHAPE), RunBuilder()
    claim = image_claim(shape, dtype_numpy=dtype_numpy)
    claim = {name: value for name, value in claim.items() if value is not None}
    descriptor = run.descriptor({"img": claim, "x": 0.5})
    resource = run.resource(**write(folder, data))
    name = "index" if write is _npy_sequence else "point_number"
    for number in range(EVENTS):
        place: dict[str, Any] = {name: number}
        run.event(descriptor, {"img": run.datum(resource, **place), "x": number * 0.5})
    return run.stop(), data
