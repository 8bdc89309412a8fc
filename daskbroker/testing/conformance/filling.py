"""Conformance of filling: references of every kind are replaced by the data in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import pytest

from ...core.errors import FilledValuesWarning, FillError
from ..base import Conformance, Put, insert_all
from ..compare import assert_documents_equal
from ..detector_runs import (
    SHAPE,
    check_filled,
    datum_run,
    filled_cells,
    image_claim,
    stacked,
    stream_place,
    stream_run,
)
from ..files import frames, write_hdf5, write_npys, write_tiffs
from ..runs import RunBuilder


class FillConformance(Conformance):
    """Tables, datasets and documents with external data in place of references."""

    # -- where the frames are ----------------------------------------------------------------

    def test_datums_of_one_file(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path)
        header = put(docs)
        check_filled(header, data[:, None])
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
        (resource,) = (doc for name, doc in docs if name == "stream_resource")
        resource["parameters"]["indices"] = [1, 100]  # not the indices of the stream_datums
        header = put(docs)
        check_filled(header, data)
        event = next(doc for name, doc in header.documents() if name == "event")
        assert event["filled"]["img"] is True

    def test_frames_without_events(self, put: Put, tmp_path: Path) -> None:
        docs, data = stream_run(tmp_path, with_events=False)
        check_filled(put(docs), data)

    def test_several_frames_an_event(self, put: Put, tmp_path: Path) -> None:
        """Each cell has five frames."""
        docs, data = stream_run(tmp_path, 2, per_event=5)
        assert data.shape == (2, 5, *SHAPE)
        check_filled(put(docs), data)

    @pytest.mark.parametrize("second", [(0, 2), (3, 5)], ids=["restarts", "continues"])
    def test_two_files_for_one_key(self, put: Put, tmp_path: Path, second: tuple[int, int]) -> None:
        """The indices of the second file begin at 0 again, or go on."""
        data = frames(5, SHAPE)
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim((1, *SHAPE), external="STREAM:")})
        spans = (("a.h5", data[:3], (0, 3), (1, 4)), ("b.h5", data[3:], second, (4, 6)))
        for name, part, indices, seq_nums in spans:
            place = stream_place(write_hdf5(tmp_path / name, part))
            resource = run.stream_resource("img", **place)
            run.stream_datum(resource, descriptor, indices, seq_nums)
        check_filled(put(run.stop()), data[:, None])

    def test_datum_after_its_event_and_one_resource_for_two_streams(
        self, put: Put, tmp_path: Path
    ) -> None:
        data = frames(6, SHAPE)
        run = RunBuilder()
        resource = run.resource("NPY_SEQ", root=str(tmp_path), resource_path="f")
        write_npys(tmp_path / "f", data)
        for position, stream in enumerate(("primary", "dark")):
            descriptor = run.descriptor({"img": image_claim()}, stream)
            for index in range(3 * position, 3 * position + 3):
                run.event(descriptor, {"img": f"late-{index}"}, filled={"img": False})
                run.datum(resource, f"late-{index}", index=index)
        header = put(run.stop())
        check_filled(header, data[:3])
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
        check_filled(put(run.stop()), data[:, None])

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
            with pytest.raises(FillError, match="nowhere/1") as caught:
                fill()
            for word in (header.uid, "primary", "img", "nowhere/1"):
                assert word in str(caught.value)

    @pytest.mark.parametrize("missing", ["datum", "all datums", "below another"])
    def test_datums_that_did_not_come(self, put: Put, tmp_path: Path, missing: str) -> None:
        """The others of the run are read; what needs a missing one is an error that names it."""
        docs, data = datum_run(tmp_path, 4)
        ids = [doc["datum_id"] for name, doc in docs if name == "datum"]
        lost = ids if missing == "all datums" else ids[2:3]
        if missing != "below another":
            docs = [pair for pair in docs if pair[1].get("datum_id") not in lost]
        else:  # its id begins with that of one that came
            for name, doc in docs:
                if name == "event" and doc["data"]["img"] in lost:
                    doc["data"]["img"] = lost[0] = f"{lost[0]}/of-another"
        header = put(docs)
        there = [n for n, uid in enumerate(ids) if n != 2] if len(lost) == 1 else []
        image = header.dataset(chunks=None)["img"]
        if there:
            np.testing.assert_array_equal(image.isel(time=there).values[:, 0], data[there])
        source = header.es_given_stream("primary")
        events = [doc for name, doc in header.documents(fill=False) if name == "event"]
        for fill in (
            lambda: header.table()["img"].compute(),
            lambda: header.db(uid=header.uid).table("primary")["img"].compute(),
            lambda: header.dataset()["img"].values,
            lambda: image[2].values,
            lambda: list(header.documents()),
            lambda: list(header.stream("primary")),
            lambda: source.fill_event(events[2]),
            lambda: source.fill_table(header.table(fill=False).compute()),
        ):
            with pytest.raises(FillError, match="is not stored with this run") as caught:
                fill()
            named = [uid for uid in lost if uid in str(caught.value)]
            assert len(named) == 1
            assert header.uid in str(caught.value)

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
        with pytest.warns(FilledValuesWarning, match="'img' are stored in the events"):
            header = put(run.stop())
        check_filled(header, np.concatenate([data[:3], [[9] * 4, [7] * 4]]))

    def test_events_without_the_key(self, put: Put, tmp_path: Path) -> None:
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
        run = RunBuilder()
        descriptor = run.descriptor({"img": image_claim((None,), dtype_numpy="<i8")})
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
        """The frame of the repeated event is read; the file of the first one is gone."""
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
        """Documents of old lack keys; a path may be absolute, and a root moved by ``root_map``."""
        here = {key: value and value.format(folder=tmp_path) for key, value in place.items()}
        docs, data = datum_run(tmp_path, place=here)
        for _, doc in docs:  # ids of old did not begin with their resource's
            if "datum_id" in doc:
                doc["datum_id"] = doc["datum_id"].replace("/", "-")
            if "img" in doc.get("data", {}):
                doc["data"]["img"] = doc["data"]["img"].replace("/", "-")
        header = put(docs)
        header.db.root_map["f8483b80395561ac779a5425da6646ca"] = str(tmp_path)
        check_filled(header, data[:, None])

    def test_files_outside_readable_roots(self, broker: Any, tmp_path: Path) -> None:
        """Every path that opens files refuses them."""
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


def _ways_to_fill(header: Any) -> list[Callable[[], Any]]:
    """Return functions that open detector files in every possible way."""
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
    """Return a broker on the same sources that may only read files below some folders."""
    make: Callable[..., Any] = type(broker)
    return make(broker.header_source, broker.event_sources, readable_roots=roots)
