"""Filling, in the conformance suite: references of every kind become what is in the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import pandas as pd
import pytest

from ..core.errors import FieldNotFound, FillError
from .base import Conformance, Put, insert_all
from .compare import assert_documents_equal
from .files import AD_DATASET, frames, write_hdf5, write_npys, write_tiffs
from .runs import RunBuilder, make_run

__all__ = ["FillConformance", "datum_run", "stream_run"]

SHAPE = (6, 8)
"""Of the frames that these tests write."""

Documents = list[tuple[str, dict[str, Any]]]


def image_claim(shape: Iterable[Any] = SHAPE, **more: Any) -> dict[str, Any]:
    """What a descriptor says of frames that datums refer to."""
    external = {"external": "FILESTORE:", "dtype_numpy": "<u2"}
    return {"source": "x", "dtype": "array", "shape": list(shape), **external, **more}


def datum_run(
    folder: Path,
    events: int = 5,
    *,
    shape: Iterable[Any] = (1, *SHAPE),
    place: Mapping[str, Any] | None = None,
    **claim: Any,
) -> tuple[Documents, np.ndarray]:
    """A run whose key ``img`` refers to one HDF5 file by datums, and the frames in it.

    Parameters
    ----------
    folder
        Where the file ``a.h5`` is written.
    events
        Number of frames and events.
    shape, claim
        What the descriptor says of ``img``.
    place
        Keys of the resource, in place of the usual ones; None leaves one out.
    """
    data = frames(events, SHAPE)
    if not (folder / "a.h5").exists():
        write_hdf5(folder / "a.h5", data)
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(shape, **claim), "x": 0.5})
    usual = {"root": str(folder), "resource_path": "a.h5"}
    resource = run.resource("AD_HDF5", **{**usual, **(place or {})})
    for number in range(events):
        datum = run.datum(resource, point_number=number)
        run.event(descriptor, {"img": datum, "x": number * 0.5}, filled={"img": False})
    return run.stop(), data


def stream_run(
    folder: Path, events: int = 6, *, step: int = 2, per_event: int = 1, with_events: bool = True
) -> tuple[Documents, np.ndarray]:
    """A run whose key ``img`` is told of by stream_datums, and its cells ``(events, m, h, w)``."""
    data = frames(events * per_event, SHAPE)
    path = write_hdf5(folder / "s.h5", data)
    run = RunBuilder()
    spec = image_claim((per_event, *SHAPE), external="STREAM:")
    descriptor = run.descriptor({"img": spec, "x": 0.5} if with_events else {"img": spec})
    resource = run.stream_resource("img", **stream_place(path))
    for first in range(0, events, step):
        last = min(first + step, events)
        run.stream_datum(resource, descriptor, (first, last))
        for place in range(first, last if with_events else first):
            run.event(descriptor, {"x": place * 0.5})
    docs = run.stop(num_events={"primary": events})
    return docs, data.reshape(events, per_event, *SHAPE)


def stream_place(path: Path) -> dict[str, Any]:
    """Where a stream_resource says that its frames are."""
    parameters = {"dataset": AD_DATASET, "chunk_shape": [1, *SHAPE]}
    return {"uri": f"file://localhost{path}", "parameters": parameters}


def stacked(cells: Iterable[Any]) -> np.ndarray:
    """Cells of a column as one array."""
    return np.stack([np.asarray(cell) for cell in cells])


def filled_cells(header: Any, key: str = "img", stream: str = "primary") -> list[Any]:
    """The values of one key in the filled documents of a stream."""
    documents = header.stream(stream, fill=True)
    return [doc["data"][key] for name, doc in documents if name == "event"]


class Squares:
    """A classic handler without a file: each datum's square, as an array of one shape."""

    def __init__(self, path: str, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, n: int) -> np.ndarray:
        return np.full(SHAPE, n * n * self.scale)


class LazySquares(Squares):
    """The same, lazily."""

    def __call__(self, n: int) -> Any:
        return dask.array.from_array(super().__call__(n), chunks=2)


class Tables:
    """A classic handler that gives a list of tables."""

    def __init__(self, path: str) -> None:
        pass

    def __call__(self, n: int) -> list[pd.DataFrame]:
        return [pd.DataFrame({"n": [n, n + 1]})]


class FailsAtTwo(Squares):
    """A classic handler that cannot read one of its datums."""

    def __call__(self, n: int) -> np.ndarray:
        if n == 2:
            raise OSError("no beam")
        return super().__call__(n)


def squares_run(events: int = 4, spec: str = "SQUARES", **claim: Any) -> Documents:
    """A run whose key ``img`` a handler computes."""
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(dtype_numpy="<f8", **claim), "x": 0.5})
    resource = run.resource(spec, root="/", resource_path="", resource_kwargs={"scale": 2.0})
    for place in range(events):
        run.event(descriptor, {"img": run.datum(resource, n=place), "x": 0.5})
    return run.stop()


def squares(events: int = 4) -> np.ndarray:
    """What :func:`squares_run` is filled with."""
    return stacked([np.full(SHAPE, 2.0 * n * n) for n in range(events)])


class FillConformance(Conformance):
    """Tables, datasets and documents with external data in place of references."""

    def check(self, header: Any, expected: np.ndarray, key: str = "img") -> None:
        """All three views hold these cells."""
        shown = header.table().compute()[key]
        np.testing.assert_array_equal(stacked(shown), expected)
        dataset = header.dataset()
        np.testing.assert_array_equal(dataset[key].values, expected)
        np.testing.assert_array_equal(header.dataset(chunks=None)[key].values, expected)
        if any(name == "event" for name, _ in header.stream(fill=False)):
            np.testing.assert_array_equal(stacked(filled_cells(header, key)), expected)

    # -- where the frames are ----------------------------------------------------------------

    def test_datums_of_one_file(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path)
        header = put(docs)
        self.check(header, data[:, None])
        assert header.dataset()["img"].dtype == np.uint16

    def test_filled_documents_keep_the_reference(self, put: Put, tmp_path: Path) -> None:
        docs, _ = datum_run(tmp_path)
        header = put(docs)
        references = [doc["data"]["img"] for name, doc in docs if name == "event"]
        events = [doc for name, doc in header.documents() if name == "event"]
        assert [event["filled"]["img"] for event in events] == references
        plain = [pair for pair in header.documents() if pair[0] != "event"]
        assert_documents_equal(
            [pair for pair in docs if pair[0] not in ("event", "stop")],
            [pair for pair in plain if pair[0] != "stop"],
        )
        assert events[0]["data"]["img"].shape == (1, *SHAPE)

    def test_frames_of_a_stream(self, put: Put, tmp_path: Path) -> None:
        docs, data = stream_run(tmp_path)
        header = put(docs)
        self.check(header, data)
        event = next(doc for name, doc in header.documents() if name == "event")
        assert event["filled"]["img"] is True

    def test_frames_without_events(self, put: Put, tmp_path: Path) -> None:
        """Row 8."""
        docs, data = stream_run(tmp_path, with_events=False)
        self.check(put(docs), data)

    def test_several_frames_an_event(self, put: Put, tmp_path: Path) -> None:
        """Row 9."""
        docs, data = stream_run(tmp_path, 2, per_event=5)
        assert data.shape == (2, 5, *SHAPE)
        self.check(put(docs), data)

    @pytest.mark.parametrize("second", [(0, 2), (3, 5)], ids=["restarts", "continues"])
    def test_two_files_for_one_key(self, put: Put, tmp_path: Path, second: tuple[int, int]) -> None:
        """Row 10."""
        data = frames(5, SHAPE)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim((1, *SHAPE), external="STREAM:")})
        spans = (("a.h5", data[:3], (0, 3), (1, 4)), ("b.h5", data[3:], second, (4, 6)))
        for name, part, indices, seq_nums in spans:
            place = stream_place(write_hdf5(tmp_path / name, part))
            resource = run.stream_resource("img", **place)
            run.stream_datum(resource, descriptor, indices, seq_nums)
        self.check(put(run.stop()), data[:, None])

    def test_datum_after_its_event_and_one_resource_for_two_streams(
        self, put: Put, tmp_path: Path
    ) -> None:
        """Row 11."""
        data = frames(6, SHAPE)
        run = RunBuilder()
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        write_npys(tmp_path / "f", data)
        for place, stream in enumerate(("primary", "dark")):
            descriptor = run.descriptor({"img": image_claim()}, stream)
            for index in range(3 * place, 3 * place + 3):
                run.event(descriptor, {"img": f"late-{index}"}, filled={"img": False})
                run.datum(resource, f"late-{index}", index=index)
        header = put(run.stop())
        self.check(header, data[:3])
        dark = header.table("dark").compute()["img"]
        np.testing.assert_array_equal(stacked(dark), data[3:])

    def test_tiff_sequence(self, put: Put, tmp_path: Path) -> None:
        data = frames(4, SHAPE)
        write_tiffs(tmp_path / "t", data)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim((1, *SHAPE), external="STREAM:")})
        resource = run.stream_resource(
            "img",
            mimetype="multipart/related;type=image/tiff",
            uri=f"file://localhost{tmp_path}/t/",
            parameters={"template": "img_{:05d}.tif", "chunk_shape": [1, *SHAPE]},
        )
        run.stream_datum(resource, descriptor, (0, 4))
        self.check(put(run.stop()), data[:, None])

    def test_a_reference_that_leads_nowhere(self, put: Put, tmp_path: Path) -> None:
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim(), "x": 0.5})
        run.event(descriptor, {"img": "nowhere/1", "x": 1.5})
        header = put(run.stop())
        assert header.table()["x"].compute().tolist() == [1.5]
        for fill in (
            lambda: header.table().compute(),
            lambda: header.dataset()["img"].values,
            lambda: list(header.documents()),
        ):
            with pytest.raises(FillError) as caught:
                fill()
            for word in (header.uid, "primary", "img", "nowhere/1"):
                assert word in str(caught.value)

    def test_an_event_that_no_stream_datum_tells_of(self, put: Put, tmp_path: Path) -> None:
        docs, _ = stream_run(tmp_path, 4, step=1)
        docs = [pair for pair in docs if pair[1].get("seq_nums") != {"start": 3, "stop": 4}]
        header = put(docs)
        image = header.dataset(chunks=None)["img"]
        assert image.isel(time=[0, 1, 3]).values.shape == (3, 1, *SHAPE)
        with pytest.raises(FillError, match="event 3"):
            header.table()["img"].compute()

    # -- what events hold --------------------------------------------------------------------

    def test_filled_differs_from_event_to_event(self, put: Put, tmp_path: Path) -> None:
        """Row 7."""
        data = frames(4, (4,))
        write_npys(tmp_path / "f", data)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim((4,))})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        ids = [run.datum(resource, index=n) for n in range(4)]
        run.event(descriptor, {"img": ids[0]}, filled=None)
        run.event(descriptor, {"img": ids[1]}, filled={})
        run.event(descriptor, {"img": ids[2]}, filled={"img": False})
        run.event(descriptor, {"img": [9, 9, 9, 9]}, filled={"img": ids[3]})
        run.event(descriptor, {"img": [7, 7, 7, 7]}, filled={"img": True})
        self.check(put(run.stop()), np.concatenate([data[:3], [[9] * 4, [7] * 4]]))

    def test_events_without_the_key(self, put: Put, tmp_path: Path) -> None:
        """Row 13."""
        data = frames(3, SHAPE)
        write_npys(tmp_path / "f", data)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim(), "x": 0.5})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        for n in range(3):
            datum = run.datum(resource, index=n)
            run.event(descriptor, {"x": 0.5} if n == 1 else {"img": datum, "x": 0.5})
        header = put(run.stop())
        cells = header.table().compute()["img"].tolist()
        assert cells[1] is None
        np.testing.assert_array_equal(stacked([cells[0], cells[2]]), data[[0, 2]])
        values = header.dataset()["img"].values
        assert np.isnan(values[1]).all()
        np.testing.assert_array_equal(values[[0, 2]], data[[0, 2]])
        assert "img" not in [d for n, d in header.documents() if n == "event"][1]["data"]

    def test_cells_of_no_declared_shape(self, put: Put, tmp_path: Path) -> None:
        """Row 12."""
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim((None,))})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        data = [np.arange(n) for n in (4, 3, 0)]
        for n, cell in enumerate(data):
            np.save(tmp_path / f"f_{n}.npy", cell)
            run.event(descriptor, {"img": run.datum(resource, index=n)})
        header = put(run.stop())
        dataset = header.dataset()["img"]
        assert dataset.dtype == object
        for cells in (header.table().compute()["img"], dataset.values, filled_cells(header)):
            assert [cell.tolist() for cell in cells] == [cell.tolist() for cell in data]

    def test_rewound_frames_are_not_read(self, put: Put, tmp_path: Path) -> None:
        """The frame that was taken again is the one that counts; the first is gone."""
        data = frames(3, SHAPE)
        write_npys(tmp_path / "f", data)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim()})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        for seq_num, index in ((1, 0), (2, 77), (2, 1), (3, 2)):
            run.event(descriptor, {"img": run.datum(resource, index=index)}, seq_num)
        header = put(run.stop())
        np.testing.assert_array_equal(stacked(header.table().compute()["img"]), data)
        np.testing.assert_array_equal(header.dataset()["img"].values, data)
        with pytest.raises(FillError, match="f_77"):
            header.table(duplicates="all").compute()

    # -- old documents, roots ----------------------------------------------------------------

    @pytest.mark.parametrize(
        "place",
        [
            {"run_start": None, "path_semantics": None, "id": "5a0c7e"},
            {"root": "", "resource_path": "{folder}/a.h5"},
            {"root": "/", "resource_path": "{folder}/a.h5"},
            {"root": "f8483b80395561ac779a5425da6646ca"},
        ],
        ids=["legacy", "absolute", "root", "mapped"],
    )
    def test_where_resources_are(self, put: Put, tmp_path: Path, place: Mapping[str, Any]) -> None:
        """Row 14."""
        here = {key: value and value.format(folder=tmp_path) for key, value in place.items()}
        docs, data = datum_run(tmp_path, place=here)
        for _, doc in docs:  # ids of old did not begin with their resource's
            if "datum_id" in doc:
                doc["datum_id"] = doc["datum_id"].replace("/", "-")
            if "img" in doc.get("data", {}):
                doc["data"]["img"] = doc["data"]["img"].replace("/", "-")
        header = put(docs)
        header.db.root_map["f8483b80395561ac779a5425da6646ca"] = str(tmp_path)
        self.check(header, data[:, None])

    def test_files_outside_readable_roots(self, broker: Any, tmp_path: Path) -> None:
        """Row 38, in every path that opens files."""
        inside, outside = tmp_path / "in", tmp_path / "out"
        inside.mkdir()
        outside.mkdir()
        datum_run(outside)
        (inside / "link.h5").symlink_to(outside / "a.h5")
        for root, path in (
            (outside, "a.h5"),
            (inside, "../out/a.h5"),
            (inside, "link.h5"),
            (inside, str(outside / "a.h5")),
        ):
            docs, data = datum_run(outside, place={"root": str(root), "resource_path": path})
            insert_all(broker, docs)
            uid = docs[0][1]["uid"]
            for fill in _ways_to_fill(_with_roots(broker, [inside])[uid]):
                with pytest.raises(FillError, match="readable"):
                    fill()
            free = _with_roots(broker, None)[uid]
            np.testing.assert_array_equal(free.dataset()["img"].values[:, 0], data)

    # -- regions, partitions -----------------------------------------------------------------

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_regions(self, put: Put, tmp_path: Path, make: Any) -> None:
        docs, data = make(tmp_path)
        if data.ndim == 3:
            data = data[:, None]
        header = put(docs)
        for chunks in ("auto", None):
            image = header.dataset(chunks=chunks)["img"]
            for key in (
                np.s_[:, 0, 2:5, 3],
                np.s_[2],
                np.s_[-1, :, ::-1, ::2],
                np.s_[1:4, 0, [4, 0, 2]],
                np.s_[[3, 0], ..., 5],
                np.s_[:0],
            ):
                np.testing.assert_array_equal(image[key].values, data[key], err_msg=str(key))

    def test_partitions_are_cut_by_the_size_of_frames(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path, 10)
        header = put(docs)
        with dask.config.set({"daskbroker.partition-size": 3 * data[0].nbytes}):
            table = header.table()
            assert 4 <= table.npartitions <= 7
            assert table[["x"]].npartitions == table.npartitions
            assert table.divisions[0] == 1
            assert table.divisions[-1] == 10
            assert len(table) == 10
            assert table["x"].compute().tolist() == [n * 0.5 for n in range(10)]
            np.testing.assert_array_equal(stacked(table.compute()["img"]), data[:, None])
            part = table.loc[4:6].compute()
            np.testing.assert_array_equal(stacked(part["img"]), data[3:6, None])
            image = header.dataset()["img"]
            assert max(image.chunks[0]) == 3
            assert len(image.chunks[0]) <= 5
            np.testing.assert_array_equal(image.values, data[:, None])
            assert header.table(fill=False).npartitions <= 2

    def test_gaps_in_seq_num(self, put: Put, tmp_path: Path) -> None:
        data = frames(6, SHAPE)
        write_npys(tmp_path / "f", data)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim()})
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        for index, seq_num in enumerate((1, 2, 9, 10, 11, 30)):
            run.event(descriptor, {"img": run.datum(resource, index=index)}, seq_num)
        header = put(run.stop())
        with dask.config.set({"daskbroker.partition-size": 2 * data[0].nbytes}):
            table = header.table()
            assert table.npartitions > 1
            assert len(table) == 6
            shown = table.compute()
            assert shown.index.tolist() == [1, 2, 9, 10, 11, 30]
            np.testing.assert_array_equal(stacked(shown["img"]), data)
            assert table.loc[9:11].compute().index.tolist() == [9, 10, 11]

    # -- the shape rule ----------------------------------------------------------------------

    def test_axes_of_length_one(self, put: Put, tmp_path: Path) -> None:
        """Row 23: (6, 8) is declared, the handler gives (1, 6, 8)."""
        docs, data = datum_run(tmp_path, shape=SHAPE)
        self.check(put(docs), data)

    def test_shapes_that_cannot_be_reconciled(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path, shape=(5, 5))
        header = put(docs)
        with pytest.raises(FillError) as caught:
            header.table().compute()
        words = (header.uid, "primary", "img", "AD_HDF5", "a.h5", "(5, 5)", "(1, 6, 8)")
        for word in words:
            assert word in str(caught.value)
        with dask.config.set({"daskbroker.shape-mismatch": "keep"}):
            table, dataset = header.table(), header.dataset()
            cells = filled_cells(header)
        np.testing.assert_array_equal(stacked(table.compute()["img"]), data[:, None])
        np.testing.assert_array_equal(stacked(cells), data[:, None])
        with pytest.raises(FillError, match="img"):
            dataset["img"].compute()

    def test_declared_dtype(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path, dtype_numpy="<i8")
        header = put(docs)
        assert header.dataset()["img"].dtype == np.int64
        np.testing.assert_array_equal(header.dataset()["img"].values[:, 0], data)
        assert header.table().compute()["img"].iloc[0].dtype == np.uint16

    def test_dtype_that_does_not_hold_the_values(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path, 10, dtype_numpy="|u1")
        header = put(docs)
        with pytest.raises(FillError) as caught:
            header.dataset()["img"].compute()
        for word in ("uint8", "uint16", "img", "a.h5"):
            assert word in str(caught.value)
        chosen = header.dataset(dtypes={"img": "uint16"})["img"]
        assert chosen.dtype == np.uint16
        np.testing.assert_array_equal(chosen.values[:, 0], data)
        with pytest.raises(FieldNotFound, match="imag"):
            header.dataset(dtypes={"imag": "uint16"})

    # -- handlers ----------------------------------------------------------------------------

    @pytest.mark.parametrize("handler", [Squares, LazySquares])
    def test_registered_handlers(self, put: Put, handler: Any) -> None:
        """Rows 14 and 24."""
        header = put(squares_run())
        header.db.register_handler("SQUARES", handler)
        self.check(header, squares())
        header.db.deregister_handler("SQUARES")
        with pytest.raises(FillError, match="SQUARES"):
            header.table().compute()

    @pytest.mark.parametrize(
        "handlers",
        [{"handler_registry": {"SQUARES": Squares}}, {"handler_overrides": {"img": Squares}}],
        ids=["registry", "overrides"],
    )
    def test_handlers_for_one_call(self, broker: Any, handlers: dict[str, Any]) -> None:
        header = _inserted(broker, squares_run())
        expected = squares()
        for cells in (
            header.table(**handlers).compute()["img"],
            header.dataset(**handlers)["img"].values,
            broker(uid=header.uid).table(**handlers).compute()["img"],
            broker(uid=header.uid).dataset(**handlers)["img"].values,
            _cells(header.documents(**handlers)),
            _cells(header.stream(**handlers)),
            _cells(broker(uid=header.uid).documents(**handlers)),
        ):
            np.testing.assert_array_equal(stacked(cells), expected)
        with pytest.raises(FillError, match="SQUARES"):
            header.table().compute()

    def test_cells_that_are_no_arrays(self, put: Put) -> None:
        docs = squares_run(shape=[1])
        (resource,) = (doc for name, doc in docs if name == "resource")
        resource["resource_kwargs"] = {}
        header = put(docs)
        header.db.register_handler("SQUARES", Tables, overwrite=True)
        cells = header.table().compute()["img"].tolist()
        assert [cell[0]["n"].tolist() for cell in cells] == [[n, n + 1] for n in range(4)]

    def test_a_handler_that_fails(self, put: Put) -> None:
        header = put(squares_run())
        header.db.register_handler("SQUARES", FailsAtTwo, overwrite=True)
        assert stacked(header.dataset(chunks=None)["img"][:2].values).shape == (2, *SHAPE)
        for fill in (lambda: header.table().compute(), lambda: list(header.documents())):
            with pytest.raises(FillError) as caught:
                fill()
            for word in (header.uid, "primary", "img", "SQUARES", "no beam"):
                assert word in str(caught.value)

    def test_a_keyword_that_is_not_there(self, put: Put) -> None:
        docs = squares_run()
        for name, doc in docs:
            if name == "datum":
                doc["datum_kwargs"] = {"m": 1}
        header = put(docs)
        header.db.register_handler("SQUARES", Squares, overwrite=True)
        with pytest.raises(FillError) as caught:
            header.dataset()["img"].compute()
        for word in (header.uid, "primary", "img", "SQUARES"):
            assert word in str(caught.value)

    # -- files that are gone -----------------------------------------------------------------

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_files_that_are_gone(self, put: Put, tmp_path: Path, make: Any) -> None:
        """Rows 39 and 40."""
        folder = tmp_path / "gone"
        folder.mkdir()
        docs, data = make(folder)
        shutil.rmtree(folder)
        header = put(docs)
        table, dataset = header.table(), header.dataset()
        assert table[["x"]].compute()["x"].tolist() == [n * 0.5 for n in range(len(data))]
        assert dataset["x"].values.tolist() == [n * 0.5 for n in range(len(data))]
        for fill in (
            lambda: table["img"].compute(),
            lambda: dataset["img"].compute(),
            lambda: list(header.documents()),
        ):
            with pytest.raises(FillError) as caught:
                fill()
            spec = "AD_HDF5" if make is datum_run else "application/x-hdf5"
            for word in (header.uid, "primary", "'img'", spec, str(folder)):
                assert word in str(caught.value)

    # -- the manifesto's methods -------------------------------------------------------------

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_fill_event(self, put: Put, tmp_path: Path, make: Any) -> None:
        docs, data = make(tmp_path)
        header = put(docs)
        source = header.es_given_stream("primary")
        event = [doc for name, doc in header.documents(fill=False) if name == "event"][2]
        filled = source.fill_event(event)
        np.testing.assert_array_equal(filled["data"]["img"].reshape(SHAPE), data[2].reshape(SHAPE))
        assert filled["uid"] == event["uid"]
        assert event["data"].get("img", "") == "" or isinstance(event["data"]["img"], str)
        same = source.fill_event(event, fields=["x"])
        assert same == event
        changeable = event.to_dict()
        assert source.fill_event(changeable, in_place=True) is changeable
        assert changeable["data"]["img"].shape == (1, *SHAPE)
        again = source.fill_event(changeable)  # is filled already
        np.testing.assert_array_equal(again["data"]["img"], changeable["data"]["img"])

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_fill_event_stream(self, put: Put, tmp_path: Path, make: Any) -> None:
        docs, data = make(tmp_path)
        header = put(docs)
        source = header.es_given_stream("primary")
        stream = source.fill_event_stream(header.documents(fill=False))
        assert next(stream)[0] == "start"
        cells = _cells(stream)
        np.testing.assert_array_equal(stacked(cells).reshape(data.shape), data)

    def test_fill_event_pages(self, broker: Any, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path)
        header = _inserted(broker, docs)
        events = [doc for name, doc in docs if name == "event"]
        page = {
            "descriptor": events[0]["descriptor"],
            **{key: [event[key] for event in events] for key in ("uid", "seq_num", "time")},
            "timestamps": {},
            "data": {key: [event["data"][key] for event in events] for key in ("img", "x")},
            "filled": {"img": [False] * len(events)},
        }
        source = header.es_given_stream("primary")
        ((_, filled),) = source.fill_event_stream([("event_page", page)])
        np.testing.assert_array_equal(stacked(filled["data"]["img"])[:, 0], data)
        assert filled["filled"]["img"] == page["data"]["img"]

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_fill_table(self, put: Put, tmp_path: Path, make: Any) -> None:
        docs, data = make(tmp_path)
        header = put(docs)
        source = header.es_given_stream("primary")
        table = header.table(fill=False).compute()
        filled = source.fill_table(table)
        np.testing.assert_array_equal(stacked(filled["img"]).reshape(data.shape), data)
        assert filled["x"].equals(table["x"])
        assert all(cell is None or isinstance(cell, str) for cell in table["img"])
        assert source.fill_table(table, fields=["x"])["img"].equals(table["img"])
        lazy = source.fill_table(header.table(fill=False))
        np.testing.assert_array_equal(stacked(lazy.compute()["img"]).reshape(data.shape), data)
        assert source.fill_table(table, in_place=True) is table
        np.testing.assert_array_equal(stacked(table["img"]).reshape(data.shape), data)

    # -- selections, several runs, several descriptors ---------------------------------------

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_selected_fields(self, put: Put, tmp_path: Path, make: Any) -> None:
        docs, data = make(tmp_path)
        header = put(docs)
        stream = list(header.documents(fields=["img"]))
        cells = _cells(stream)
        np.testing.assert_array_equal(stacked(cells).reshape(data.shape), data)
        plain = header.documents(fill=False, fields=["img"])
        later = header.es_given_stream("primary").fill_event_stream(plain)
        np.testing.assert_array_equal(stacked(_cells(later)).reshape(data.shape), data)

    def test_several_runs(self, broker: Any, tmp_path: Path) -> None:
        made = []
        for name, make in (("a", datum_run), ("b", stream_run), ("c", datum_run)):
            (tmp_path / name).mkdir()
            docs, data = make(tmp_path / name)
            made.append((_inserted(broker, docs), data.reshape(-1, 1, *SHAPE)))
        results = broker(uid={"$in": [header.uid for header, _ in made]})
        table = results.table().compute()
        dataset = results.dataset()
        for header, data in made:
            mine = table[table["run"] == header.uid]
            np.testing.assert_array_equal(stacked(mine["img"]), data)
            chosen = dataset["img"].values[dataset["run"].values == header.uid]
            np.testing.assert_array_equal(chosen, data)

    def test_several_runs_of_which_some_have_no_such_key(self, broker: Any, tmp_path: Path) -> None:
        """Each in a partition of its own."""
        docs, data = datum_run(tmp_path, 2)
        more, _ = datum_run(tmp_path, 2)
        plain = [make_run(2, keys=["x"]) for _ in range(2)]
        headers = [_inserted(broker, run) for run in (docs, plain[0], more, plain[1])]
        results = broker(uid={"$in": [header.uid for header in headers]})
        with dask.config.set({"daskbroker.partition-size": 1}):
            table = results.table()
        assert table.npartitions >= 4
        shown = table.compute()
        for header in headers:
            cells = shown["img"][shown["run"] == header.uid].tolist()
            if header in (headers[0], headers[2]):
                np.testing.assert_array_equal(stacked(cells), data[:, None])
            else:
                assert cells == [None, None]
        dataset = results.dataset()["img"]
        assert dataset.dtype == np.float64
        assert int(np.isnan(dataset.values[:, 0, 0, 0]).sum()) == 4

    def test_several_descriptors(self, put: Put, tmp_path: Path) -> None:
        """A second descriptor, which has the images inside its events."""
        docs, data = datum_run(tmp_path, 3, shape=SHAPE)
        run = RunBuilder()
        run.documents, run.uid = docs[:-1], docs[0][1]["uid"]
        inline = run.descriptor({"img": {"source": "x", "dtype": "array", "shape": list(SHAPE)}})
        more = frames(2, SHAPE, start=3)
        for seq_num, cell in enumerate(more, 4):
            run.event(inline, {"img": cell.tolist()}, seq_num)
        header = put(run.stop())
        self.check(header, np.concatenate([data, more]))


def _cells(stream: Iterable[tuple[str, Any]]) -> list[Any]:
    return [doc["data"]["img"] for name, doc in stream if name == "event"]


def _inserted(broker: Any, docs: Documents) -> Any:
    insert_all(broker, docs)
    return broker[docs[0][1]["uid"]]


def _ways_to_fill(header: Any) -> list[Callable[[], Any]]:
    """Everything that opens a detector file."""
    source = header.es_given_stream("primary")
    events = [doc for name, doc in header.documents(fill=False) if name == "event"]
    table = header.table(fill=False).compute()
    return [
        lambda: header.table()["img"].compute(),
        lambda: header.dataset()["img"].values,
        lambda: header.dataset(chunks=None)["img"][0, 0].values,
        lambda: list(header.documents()),
        lambda: list(header.stream()),
        lambda: source.fill_event(events[0]),
        lambda: source.fill_table(table),
    ]


def _with_roots(broker: Any, roots: list[Path] | None) -> Any:
    """A broker on the same sources that may read only some folders."""
    make: Callable[..., Any] = type(broker)
    return make(broker.header_source, broker.event_sources, readable_roots=roots)
