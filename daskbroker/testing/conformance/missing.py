"""Conformance of missing cells: gaps in events, and frames that are not on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from ...core.errors import BadQuery, FieldNotFound, FillError, FrameMissing
from ..base import Conformance, Put, insert_all
from ..detector_runs import (
    SHAPE,
    FailsAtTwo,
    datum_run,
    image_claim,
    squares_run,
    stacked,
)
from ..files import frames, write_hdf5
from ..runs import RunBuilder
from ..runs_with_gaps import (
    EVENTS,
    KINDS,
    ON_DISK,
    Forgetful,
    aborted_run,
    short_run,
    without_dtype,
)
from .cell_views import assert_cells_equal, cells_of, header_of, views_of


class MissingConformance(Conformance):
    """Effect of ``missing=`` and ``fill_value=`` on missing cells, in all views."""

    # -- gaps in the events ------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("dtype", "shown"),
        [("|u1", "f4"), ("<u2", "f4"), ("<i2", "f4"), ("<u4", "f8"), ("<i8", "f8"), ("<f4", "f4")],
    )
    def test_integers_with_a_gap_become_floats(
        self, broker: Any, tmp_path: Path, dtype: str, shown: str
    ) -> None:
        """The last event of an aborted run has no image."""
        docs, data = aborted_run(tmp_path, dtype)
        image = header_of(broker, docs).dataset()["img"]
        assert image.dtype == np.dtype(shown)
        np.testing.assert_array_equal(image.values[:-1], data)
        assert np.isnan(image.values[-1]).all()

    @pytest.mark.parametrize("other", ["without the key", "of old", "aborted"])
    def test_one_run_of_many(self, broker: Any, tmp_path: Path, other: str) -> None:
        """One of three runs has no such key, an incomplete claim, or a gap."""
        uids, data = [], []
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            odd = name == "b"
            if odd and other == "without the key":
                run = RunBuilder()
                descriptor = run.descriptor({"x": 0.5})
                run.event(descriptor, {"x": 1.0})
                docs, cells = run.stop(), [None]
            elif odd and other == "aborted":
                docs, there = aborted_run(tmp_path / name, "<u2")
                cells = [*there, None]
            else:
                docs, there = datum_run(tmp_path / name, 3)
                docs = without_dtype(docs) if odd else docs
                cells = list(there[:, None])
            insert_all(broker, docs)
            uids.append(docs[0][1]["uid"])
            data += cells
        results = broker(uid={"$in": uids})
        image = results.dataset()["img"]
        assert image.dtype == (np.uint16 if other == "of old" else np.float32)
        for cell, expected in zip(image.values, data, strict=True):
            np.testing.assert_array_equal(cell, np.nan if expected is None else expected)
        whole = [cell for cell in data if cell is not None]
        dropped = results.dataset(missing="drop")
        assert dropped["img"].dtype == np.uint16
        np.testing.assert_array_equal(dropped["img"].values, whole)
        table = results.table(missing="drop").compute()
        assert len(table) == len(whole)
        filled = results.dataset(fill_value=7)["img"]
        assert filled.dtype == np.uint16
        for cell, expected in zip(filled.values, data, strict=True):
            np.testing.assert_array_equal(cell, 7 if expected is None else expected)
        for cell in results.table(fill_value=7).compute()["img"]:
            assert (cell.dtype, cell.shape) == (np.uint16, (1, *SHAPE))
        tree = results.dataset(combine="tree", missing="drop")
        assert sum(len(node["time"]) for node in tree.children.values()) >= len(whole)

    def test_a_run_of_old_whose_files_are_out_of_sight(self, broker: Any, tmp_path: Path) -> None:
        """A run whose files are out of sight does not change the common shape and dtype."""
        docs, data = datum_run(tmp_path, 3)
        old, _ = datum_run(tmp_path, 2, shape=[], place={"root": "/nowhere"})
        headers = [header_of(broker, run) for run in (docs, without_dtype(old))]
        results = broker(uid={"$in": [header.uid for header in headers]})
        with pytest.warns(UserWarning, match="tell neither shape nor dtype"):
            image = results.dataset()["img"]
        assert image.dtype == np.uint16
        with pytest.warns(UserWarning, match="tell neither shape nor dtype"):
            table = results.table(missing="drop").compute()
        np.testing.assert_array_equal(stacked(table["img"]), data[:, None])
        wrong, old = datum_run(tmp_path, 3, shape=(5, 5))[0], datum_run(tmp_path, 2, shape=[])[0]
        headers = [header_of(broker, run) for run in (wrong, without_dtype(old))]
        results = broker(uid={"$in": [header.uid for header in headers]})
        with pytest.raises(FillError, match="leaves open is taken from others") as caught:
            results.dataset(peek=False)["img"][3:].compute()
        assert headers[1].uid in str(caught.value)

    def test_a_gap_as_an_error(self, put: Put, tmp_path: Path) -> None:
        docs, _ = aborted_run(tmp_path, "<u2")
        header = put(docs)
        image = header.dataset(missing="raise")["img"]
        assert image.dtype == np.uint16
        for fill in (
            lambda: image.compute(),
            lambda: header.table(missing="raise").compute(),
            lambda: list(header.documents(missing="raise")),
        ):
            with pytest.raises(FrameMissing, match="event 4 has neither") as caught:
                fill()
            for word in (header.uid, "primary", "'img'", "missing='drop'", "fill_value="):
                assert word in str(caught.value)

    # -- frames that are not on disk ---------------------------------------------------------

    @pytest.mark.parametrize("kind", KINDS)
    def test_lost_frames(self, broker: Any, tmp_path: Path, kind: str) -> None:
        docs, data = short_run(tmp_path, kind)
        header = header_of(broker, docs, {"FORGETFUL": Forgetful})
        for views in (views_of(header), views_of(broker(uid=header.uid))):
            for name, view in views.items():
                self._checkviews_of(name, view, data)

    @staticmethod
    def _checkviews_of(name: str, view: Callable[..., list[Any]], data: np.ndarray) -> None:
        with pytest.raises(FillError, match="missing='drop'"):
            view()
        with pytest.raises(FrameMissing, match="missing='drop'"):
            view(missing="raise")
        dropped = view(missing="drop")
        assert len(dropped) == ON_DISK
        assert_cells_equal(dropped, data)
        shown = view(missing="nan")
        assert_cells_equal(shown[:ON_DISK], data)
        for cell in shown[ON_DISK:]:
            assert cell is None or (np.isnan(cell).all() and "dataset" in name)
        for value in (9, {"img": 9}):
            filled = view(fill_value=value)
            assert_cells_equal(filled, [*data, *np.full((EVENTS - ON_DISK, *data.shape[1:]), 9)])
            assert {np.asarray(cell).dtype for cell in filled} == {data.dtype}

    @pytest.mark.parametrize("kind", ["AD_HDF5", "stream"])
    def test_lost_frames_wherever_the_rows_are(self, put: Put, tmp_path: Path, kind: str) -> None:
        docs, data = short_run(tmp_path, kind)
        header = put(docs)
        with dask.config.set({"daskbroker.partition-size": 2 * data[0].nbytes}):
            dataset = header.dataset(missing="drop")
            table = header.table(missing="drop")
            shown = header.dataset(missing="nan")["img"]
        assert dataset["x"].values.tolist() == [n * 0.5 for n in range(ON_DISK)]
        assert len(dataset["img"].chunks[0]) > 1
        assert_cells_equal(dataset["img"].values, data)
        assert shown.dtype == np.float32
        assert np.isnan(shown[ON_DISK:].values).all()
        assert table.npartitions > 1
        assert len(table) == ON_DISK
        assert table["x"].compute().tolist() == [n * 0.5 for n in range(ON_DISK)]
        assert table[table["x"] > 0.5]["x"].compute().tolist() == [1.0, 1.5]
        assert_cells_equal(table[table["x"] > 0.5]["img"].compute(), data[2:])
        assert_cells_equal(table.head(3, npartitions=-1)["img"], data[:3])
        assert table.set_index("time")["x"].compute().tolist() == [0.0, 0.5, 1.0, 1.5]

    @pytest.mark.parametrize("kind", KINDS)
    def test_parts_of_what_is_left(self, broker: Any, tmp_path: Path, kind: str) -> None:
        docs, data = short_run(tmp_path, kind)
        header = header_of(broker, docs, {"FORGETFUL": Forgetful})
        dataset = header.dataset(missing="drop")
        assert len(dataset["time"]) == ON_DISK
        assert_cells_equal(dataset["img"][1:3].values, data[1:3])
        assert_cells_equal(
            header.dataset(missing="drop", chunks=None)["img"][-1:].values, data[-1:]
        )

    def test_files_that_are_all_gone(self, broker: Any, tmp_path: Path) -> None:
        docs, _ = datum_run(tmp_path, 3)
        (tmp_path / "a.h5").unlink()
        header = header_of(broker, docs)
        assert len(header.dataset(missing="drop")["img"]) == 0
        assert np.isnan(header.dataset(missing="nan")["img"].values).all()
        assert len(header.table(missing="drop").compute()) == 0
        assert not [name for name, _ in header.documents(missing="drop") if name == "event"]

    def test_what_is_wrong_otherwise_is_an_error(self, broker: Any, tmp_path: Path) -> None:
        wrong: dict[str, dict[str, Any]] = {
            "shape": {"shape": (5, 5)}, "dtype": {"dtype_numpy": "|b1"},
        }  # fmt: skip
        for name, claim in wrong.items():
            docs, _ = datum_run(tmp_path, 3, **claim)
            header = header_of(broker, docs)
            for missing in ("nan", "drop"):
                with pytest.raises(FillError, match=f"declares the {name}"):
                    header.dataset(missing=missing)["img"].compute()
                with pytest.raises(FillError, match=f"declares the {name}"):
                    header.table(missing=missing).compute()
        failing = header_of(broker, squares_run(spec="FAILING"), {"FAILING": FailsAtTwo})
        with pytest.raises(FillError, match="no beam"):
            failing.table(missing="nan").compute()

    def test_documents_that_went_on_without_a_frame(self, broker: Any, tmp_path: Path) -> None:
        """The value is None, and ``filled`` has the reference."""
        docs, _ = short_run(tmp_path, "AD_HDF5")
        header = header_of(broker, docs)
        recorded = [doc for name, doc in docs if name == "event"]
        events = [doc for name, doc in header.documents(missing="nan") if name == "event"]
        for event, doc in zip(events, recorded, strict=True):
            assert event["filled"]["img"] == doc["data"]["img"]
            assert event["uid"] == doc["uid"]
        assert [event["data"]["img"] is None for event in events] == [False] * 4 + [True] * 2

    def test_all_streams(self, broker: Any, tmp_path: Path) -> None:
        """Each with shapes of its own."""
        run = RunBuilder()
        write_hdf5(tmp_path / "a.h5", frames(2, SHAPE))
        write_hdf5(tmp_path / "b.h5", frames(2, (3, 4)))
        for stream, name, shape in (("primary", "a.h5", SHAPE), ("dark", "b.h5", (3, 4))):
            descriptor = run.descriptor({"img": image_claim((1, *shape))}, stream)
            resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path=name)
            for number in range(3):
                run.event(descriptor, {"img": run.datum(resource, point_number=number)})
        header = header_of(broker, run.stop())
        for asked in ({"fill_value": 5}, {"fill_value": {"img": 5}}):
            tree = header.tree(**asked)
            assert tree["dark"]["img"].dtype == tree["primary"]["img"].dtype == np.uint16
            assert (tree["dark"]["img"].values[2] == 5).all()
            cells = [d["data"]["img"] for n, d in header.documents(**asked) if n == "event"]
            assert [cell.shape[1:] for cell in cells] == [SHAPE] * 3 + [(3, 4)] * 3
        assert len(header.tree(missing="drop")["dark"]["img"]) == 2
        assert header.tree(missing="nan")["primary"]["img"].dtype == np.float32
        with pytest.raises(FieldNotFound, match="imag"):
            header.tree(fill_value={"imag": 5})

    def test_keys_of_which_one_is_filled(self, broker: Any, tmp_path: Path) -> None:
        run = RunBuilder()
        write_hdf5(tmp_path / "a.h5", frames(3, SHAPE))
        descriptor = run.descriptor({key: image_claim((1, *SHAPE)) for key in ("one", "two")})
        resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path="a.h5")
        for one, two in ((0, 0), (7, 1), (2, 7)):
            numbers = {"one": one, "two": two}
            data = {key: run.datum(resource, point_number=n) for key, n in numbers.items()}
            run.event(descriptor, data)
        header = header_of(broker, run.stop())
        dataset = header.dataset(fill_value={"one": 0}, missing="nan")
        assert (dataset["one"].dtype, dataset["two"].dtype) == (np.uint16, np.float32)
        assert not dataset["one"].values[1].any()
        assert np.isnan(dataset["two"].values[2]).all()
        dropped = header.dataset(fill_value={"one": 0}, missing="drop")
        assert dropped["seq_num"].values.tolist() == [1, 2]
        assert header.dataset(missing="drop")["seq_num"].values.tolist() == [1]
        table = header.table(fields=["two"], missing="drop").compute()
        assert table.index.tolist() == [1, 2]

    # -- arguments that make no sense --------------------------------------------------------

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"missing": "skip"}, "missing must be 'nan', 'drop', 'raise' or None, not 'skip'"),
            ({"missing": 0}, "a value is written fill_value=0"),
            ({"missing": "drop", "fill": False}, "write fill=True, or leave missing= out"),
            ({"fill_value": 0, "fill": False}, "write fill=True, or leave fill_value= out"),
            ({"missing": "nan", "fill_value": 0}, "exclude each other: write one of them"),
            ({"fill_value": [1, 2]}, "fill_value is one value"),
            ({"fill_value": -1}, "fill_value=-1 does not fit cells of uint16"),
            ({"fill_value": 0.5}, "fill_value=0.5 does not fit cells of uint16"),
            ({"fill_value": float("nan")}, "missing='nan' makes another dtype"),
            ({"fill_value": "none"}, "fill_value='none' does not fit cells of uint16"),
            ({"fill_value": {"imag": 0}}, "fill_value names 'imag', which is not an external key"),
            ({"dtypes": {"img": "u2"}, "missing": "nan"}, "write dtypes={'img': 'float32'}"),
        ],
    )
    def test_arguments_that_make_no_sense(
        self, broker: Any, tmp_path: Path, asked: Mapping[str, Any], message: str
    ) -> None:
        docs, _ = datum_run(tmp_path, 2)
        header = header_of(broker, docs)
        results = broker(uid=header.uid)
        views = [header.dataset, results.dataset]
        if "dtypes" not in asked:
            views += [header.table, results.table]
        if "imag" not in message and "dtypes" not in asked:
            views += [_given(header.documents), _given(results.documents), _given(header.stream)]
        for view in views:
            with pytest.raises((BadQuery, FieldNotFound), match=re.escape(message)):
                view(**asked)

    # -- rows before cells -------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["AD_HDF5", "stream"])
    def test_rows_are_chosen_before_they_are_filled(
        self, put: Put, tmp_path: Path, kind: str
    ) -> None:
        docs, data = short_run(tmp_path, kind)
        header = put(docs)
        table = header.table()
        assert_cells_equal(table.head(2)["img"], data[:2])
        assert_cells_equal(table["img"].head(4), data)
        assert_cells_equal(table[["img", "x"]].head(3)["img"], data[:3])
        assert_cells_equal(table.loc[1:2].compute()["img"], data[:2])
        assert_cells_equal(table.loc[:4]["img"].compute(), data)
        assert_cells_equal(table["img"].loc[2:3].compute(), data[1:3])
        assert_cells_equal(table.loc[3].compute()["img"], data[2:3])
        assert_cells_equal(table.loc[[1, 4]].compute()["img"], data[[0, 3]])
        assert_cells_equal(table.loc[1:5].head(2)["img"], data[:2])
        assert_cells_equal(header.db(uid=header.uid).table().head(2)["img"], data[:2])
        with dask.config.set({"daskbroker.partition-size": 2 * data[0].nbytes}):
            parts = header.table()
            assert_cells_equal(parts.loc[2:4].compute()["img"], data[1:])
            assert_cells_equal(parts.loc[:4].compute()["img"], data)
        image = header.dataset()["img"]
        assert_cells_equal(image[:ON_DISK].values, data)
        lazy = header.dataset(chunks=None)["img"]
        assert_cells_equal(lazy.isel(time=[0, 3]).values, data[[0, 3]])
        for choose in (lambda: table.head(5), lambda: table.tail(1), lambda: table.compute()):
            with pytest.raises(FillError, match="missing='drop'"):
                choose()
        for shown in (table[["x"]].tail(1)["x"], table["x"].tail(1), table.loc[6]["x"].compute()):
            assert shown.tolist() == [2.5]
        assert table["x"].head(2).tolist() == [0.0, 0.5]

    @pytest.mark.parametrize("kind", ["AD_HDF5", "NPY_SEQ", "stream", "datum"])
    def test_documents_until_the_first_that_cannot_be_filled(
        self, put: Put, tmp_path: Path, kind: str
    ) -> None:
        docs, data = short_run(tmp_path, kind)
        header = put(docs)
        for stream in (header.documents, header.stream):
            assert_cells_equal(_until_error(stream()), data)

    def test_documents_until_a_handler_fails(self, broker: Any) -> None:
        header = header_of(broker, squares_run(spec="FAILING"), {"FAILING": FailsAtTwo})
        assert len(_until_error(header.documents())) == 2


# -- what is asked ---------------------------------------------------------------------------


def _until_error(stream: Iterator[tuple[str, Any]]) -> list[Any]:
    """Return the cells that a stream gives before it fails."""
    found: list[Any] = []
    try:
        for pair in stream:
            found += cells_of([pair])
    except FillError:
        return found
    return pytest.fail("nothing was missing")


def _given(stream: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    return lambda **asked: list(stream(**asked))
