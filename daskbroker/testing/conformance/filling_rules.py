"""Conformance of filling: shapes and dtypes, handlers, and the methods that fill."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask
import dask.array
import h5py
import numpy as np
import pandas as pd
import pytest

from ...core.errors import BadDocument, BadQuery, FieldNotFound, FillError, UnknownReference
from ..base import Conformance, Put, insert_all
from ..detector_runs import (
    SHAPE,
    FailsAtTwo,
    LazySquares,
    Squares,
    Tables,
    check_filled,
    datum_run,
    filled_cells,
    squares,
    squares_run,
    stacked,
    stream_place,
    stream_run,
)
from ..files import frames, write_hdf5
from ..runs import RunBuilder, make_run
from .cell_views import cells_of, header_of


class FillRuleConformance(Conformance):
    """Rules for files that differ from descriptors, and the choice of handlers."""

    # -- the shape rule ----------------------------------------------------------------------

    def test_axes_of_length_one(self, put: Put, tmp_path: Path) -> None:
        """(6, 8) is declared, the handler gives (1, 6, 8)."""
        docs, data = datum_run(tmp_path, shape=SHAPE)
        check_filled(put(docs), data)

    def test_shapes_that_cannot_be_reconciled(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path, shape=(5, 5))
        header = put(docs)
        with pytest.raises(
            FillError, match=r"declares the shape \(5, 5\), the file holds \(1, 6, 8\)"
        ) as caught:
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
        assert {cell.dtype for cell in header.table().compute()["img"]} == {np.dtype(np.int64)}
        assert {cell.dtype for cell in filled_cells(header)} == {np.dtype(np.int64)}

    def test_dtype_that_does_not_hold_the_values(self, put: Put, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path, 10, dtype_numpy="|u1")
        header = put(docs)
        with pytest.raises(
            FillError, match="declares the dtype uint8, the file holds uint16"
        ) as caught:
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
        """They are found by spec, and may return a Dask array."""
        header = put(squares_run())
        header.db.register_handler("SQUARES", handler)
        check_filled(header, squares())
        header.db.deregister_handler("SQUARES")
        with pytest.raises(FillError, match="SQUARES"):
            header.table().compute()

    @pytest.mark.parametrize(
        "handlers",
        [{"handler_registry": {"SQUARES": Squares}}, {"handler_overrides": {"img": Squares}}],
        ids=["registry", "overrides"],
    )
    def test_handlers_for_one_call(self, broker: Any, handlers: dict[str, Any]) -> None:
        header = header_of(broker, squares_run())
        expected = squares()
        for cells in (
            header.table(**handlers).compute()["img"],
            header.dataset(**handlers)["img"].values,
            broker(uid=header.uid).table(**handlers).compute()["img"],
            broker(uid=header.uid).dataset(**handlers)["img"].values,
            cells_of(header.documents(**handlers)),
            cells_of(header.stream(**handlers)),
            cells_of(broker(uid=header.uid).documents(**handlers)),
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

    def test_structured_cells(self, put: Put, tmp_path: Path) -> None:
        """All views have arrays with fields, and so have copies of documents."""
        data = np.array([[(n, n / 2), (n, -n)] for n in range(4)], [("n", "<i4"), ("x", "<f8")])
        path = write_hdf5(tmp_path / "s.h5", data)
        run = RunBuilder()
        claim = {"source": "x", "dtype": "array", "shape": [], "external": "STREAM:"}
        descriptor = run.descriptor({"img": claim, "x": 0.5})
        run.stream_datum(run.stream_resource("img", **stream_place(path)), descriptor, (0, 4))
        for number in range(4):
            run.event(descriptor, {"x": number})
        header = put(run.stop())
        event = next(doc for name, doc in header.documents() if name == "event")
        copies = (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event)))
        first = [doc["data"]["img"] for doc in (event, *copies)]
        for cells, expected in (
            (filled_cells(header), data),
            (header.table().compute()["img"], data),
            (header.dataset()["img"].values, data),
            (first, [data[0]] * 4),
        ):
            for cell, rows in zip(cells, expected, strict=True):
                assert cell.dtype == data.dtype
                np.testing.assert_array_equal(cell, rows)
        assert not first[0].flags.writeable

    def test_a_handler_that_fails(self, put: Put) -> None:
        header = put(squares_run())
        header.db.register_handler("SQUARES", FailsAtTwo, overwrite=True)
        assert stacked(header.dataset(chunks=None)["img"][:2].values).shape == (2, *SHAPE)
        for fill in (lambda: header.table().compute(), lambda: list(header.documents())):
            with pytest.raises(FillError, match="OSError: no beam") as caught:
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
        with pytest.raises(FillError, match="unexpected keyword argument 'm'") as caught:
            header.dataset()["img"].compute()
        for word in (header.uid, "primary", "img", "SQUARES"):
            assert word in str(caught.value)

    # -- files that are gone -----------------------------------------------------------------

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_files_that_are_gone(self, put: Put, tmp_path: Path, make: Any) -> None:
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
            with pytest.raises(FillError, match="no such file") as caught:
                fill()
            spec = "AD_HDF5" if make is datum_run else "application/x-hdf5"
            for word in (header.uid, "primary", "'img'", spec, str(folder)):
                assert word in str(caught.value)

    @pytest.mark.parametrize("claimed", [(1, *SHAPE), (1, 10**6, 10**6), ()])
    def test_sizes_that_a_file_claims(self, put: Put, tmp_path: Path, claimed: Any) -> None:
        """No memory is allocated for more than the file can hold, whatever is declared."""
        docs, _ = datum_run(tmp_path, 2, shape=claimed)
        (tmp_path / "a.h5").unlink()
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("/entry/data/data", (2, 10**6, 10**6), np.uint16)
        header = put(docs)
        table, dataset = header.table(), header.dataset()
        assert table[["x"]].compute()["x"].tolist() == [0.0, 0.5]
        for fill in (
            lambda: table["img"].compute(),
            lambda: dataset["img"].compute(),
            lambda: list(header.documents()),
        ):
            with pytest.raises(FillError, match="1000000") as caught:
                fill()
            for word in (header.uid, "primary", "'img'", "a.h5"):
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
        for fields in (["x"], "x", iter(["x"])):
            assert source.fill_event(event, fields=fields) == event
        with pytest.raises(FieldNotFound, match=r"no data key 'img of another' to fill.*img"):
            source.fill_event(event, fields="img of another")
        changeable = event.to_dict()
        assert source.fill_event(changeable, in_place=True) is changeable
        assert changeable["data"]["img"].shape == (1, *SHAPE)
        again = source.fill_event(changeable)  # is filled already
        np.testing.assert_array_equal(again["data"]["img"], changeable["data"]["img"])

    def test_what_cannot_be_filled_is_named(self, broker: Any, tmp_path: Path) -> None:
        """Errors name the malformed event, or the table without a column that is needed."""
        insert_all(broker, datum_run(tmp_path)[0])
        header = broker[-1]
        source = header.es_given_stream("primary")
        event = next(doc for name, doc in header.documents(fill=False) if name == "event")
        for change, wrong in (
            ({"descriptor": None}, BadDocument),
            ({"descriptor": ["a"]}, BadDocument),
            ({"data": None}, BadDocument),
            ({"data": ["a"]}, BadDocument),
            ({"descriptor": "nowhere"}, UnknownReference),
        ):
            spoilt, named = {**event, **change}, rf"{event['uid']}'.*{next(iter(change))}"
            with pytest.raises(wrong, match=named):
                source.fill_event(spoilt)
            for stream in ([("event", spoilt)], [("event_page", spoilt)]):
                for given in (stream, iter(stream)):
                    with pytest.raises(wrong, match=named):
                        list(source.fill_event_stream(given))
        with pytest.raises(BadDocument, match="a document is a mapping, not int"):
            source.fill_event(5)
        frame = header.table(fill=False).compute()
        for table in (frame.to_dict("list"), None, pd.DataFrame(frame.to_dict("list"))):
            with pytest.raises(BadQuery, match="attrs name its runs"):
                source.fill_table(table)

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_fill_event_stream(self, put: Put, tmp_path: Path, make: Any) -> None:
        docs, data = make(tmp_path)
        header = put(docs)
        source = header.es_given_stream("primary")
        stream = source.fill_event_stream(header.documents(fill=False))
        assert next(stream)[0] == "start"
        cells = cells_of(stream)
        np.testing.assert_array_equal(stacked(cells).reshape(data.shape), data)

    @pytest.mark.parametrize("make", [datum_run, stream_run])
    def test_fill_event_stream_block_by_block(self, put: Put, tmp_path: Path, make: Any) -> None:
        """Lists and documents of a header are filled in blocks; other iterators one by one."""
        header = put(make(tmp_path)[0])
        source = header.es_given_stream("primary")
        plain = list(header.documents(fill=False))
        asked = 0

        def one_by_one() -> Any:
            nonlocal asked
            for pair in plain:
                asked += 1
                yield pair

        expected = []
        for pair in source.fill_event_stream(one_by_one()):
            expected.append(pair)
            assert asked == len(expected)
        for stream in (plain, header.documents(fill=False), header.stream("primary", fill=False)):
            filled = list(source.fill_event_stream(stream))
            assert len({id(cell.base) for cell in cells_of(filled)}) == 1  # of one read
            np.testing.assert_array_equal(stacked(cells_of(filled)), stacked(cells_of(expected)))
            assert _without_cells(filled) == _without_cells(expected)
        changeable = [(name, doc.to_dict()) for name, doc in plain]
        again = list(source.fill_event_stream(changeable, in_place=True))
        assert all(doc is given for (_, doc), (_, given) in zip(again, changeable, strict=True))
        np.testing.assert_array_equal(stacked(cells_of(changeable)), stacked(cells_of(expected)))

    def test_fill_event_stream_gives_what_is_before_an_error(self, put: Put) -> None:
        header = put(squares_run())
        source = header.es_given_stream("primary")
        stream = source.fill_event_stream(
            header.documents(fill=False), handler_registry={"SQUARES": FailsAtTwo}
        )
        given = [next(stream) for _ in range(9)]
        assert [name for name, _ in given][-2:] == ["event", "event"]
        np.testing.assert_array_equal(stacked(cells_of(given)), squares(2))
        with pytest.raises(FillError, match="no beam"):
            next(stream)

    def test_fill_event_pages(self, broker: Any, tmp_path: Path) -> None:
        docs, data = datum_run(tmp_path)
        header = header_of(broker, docs)
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
        cells = cells_of(stream)
        np.testing.assert_array_equal(stacked(cells).reshape(data.shape), data)
        plain = header.documents(fill=False, fields=["img"])
        later = header.es_given_stream("primary").fill_event_stream(plain)
        np.testing.assert_array_equal(stacked(cells_of(later)).reshape(data.shape), data)

    def test_several_runs(self, broker: Any, tmp_path: Path) -> None:
        made = []
        for name, make in (("a", datum_run), ("b", stream_run), ("c", datum_run)):
            (tmp_path / name).mkdir()
            docs, data = make(tmp_path / name)
            made.append((header_of(broker, docs), data.reshape(-1, 1, *SHAPE)))
        results = broker(uid={"$in": [header.uid for header, _ in made]})
        table = results.table().compute()
        dataset = results.dataset()
        for header, data in made:
            mine = table[table["run"] == header.uid]
            np.testing.assert_array_equal(stacked(mine["img"]), data)
            chosen = dataset["img"].values[dataset["run"].values == header.uid]
            np.testing.assert_array_equal(chosen, data)

    def test_several_runs_of_which_some_have_no_such_key(self, broker: Any, tmp_path: Path) -> None:
        """Each run has a partition of its own."""
        docs, data = datum_run(tmp_path, 2)
        more, _ = datum_run(tmp_path, 2)
        plain = [make_run(2, keys=["x"]) for _ in range(2)]
        headers = [header_of(broker, run) for run in (docs, plain[0], more, plain[1])]
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
        assert dataset.dtype == np.float32
        assert int(np.isnan(dataset.values[:, 0, 0, 0]).sum()) == 4

    def test_several_descriptors(self, put: Put, tmp_path: Path) -> None:
        """The second descriptor has the images inside its events."""
        docs, data = datum_run(tmp_path, 3, shape=SHAPE)
        run = RunBuilder()
        run.documents, run.uid = docs[:-1], docs[0][1]["uid"]
        inline = run.descriptor({"img": {"source": "x", "dtype": "array", "shape": list(SHAPE)}})
        more = frames(2, SHAPE, start=3)
        for seq_num, cell in enumerate(more, 4):
            run.event(inline, {"img": cell.tolist()}, seq_num)
        header = put(run.stop())
        check_filled(header, np.concatenate([data, more]))


def _without_cells(stream: Iterable[tuple[str, Any]]) -> list[Any]:
    events = (doc for name, doc in stream if name == "event")
    return [{**event, "data": {**event["data"], "img": None}} for event in events]
