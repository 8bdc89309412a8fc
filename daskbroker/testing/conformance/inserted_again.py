"""Conformance: filled documents of one broker are inserted into another store."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ...connect import connect
from ...core.documents import Document
from ...core.errors import FilledValuesWarning
from ..base import Conformance, check_run, insert_all, insert_run
from ..compare import assert_documents_equal
from ..detector_runs import SHAPE, datum_run, stream_run
from ..files import frames
from ..runs import Documents

RUNS: dict[str, Callable[[Path], Documents]] = {
    "datums": lambda folder: datum_run(folder)[0],
    "stream_datums": lambda folder: stream_run(folder)[0],
    "frames alone": lambda folder: stream_run(folder, with_events=False)[0],
}

EDITS: dict[str, Callable[[Any], Any]] = {
    "plain": dict,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "to_dict": lambda doc: doc.to_dict(),
    "edited": lambda doc: {**doc, "data": {**doc["data"], "img": doc["data"]["img"] + 1}},
}


def _without_references(documents: Any) -> Iterator[tuple[str, Any]]:
    references = ("resource", "datum", "stream_resource", "stream_datum")
    return (pair for pair in documents if pair[0] not in references)


def _images(header: Any) -> list[np.ndarray]:
    """Return the values of the events as they are stored."""
    found = [doc for name, doc in header.documents(fill=False) if name == "event"]
    return [np.asarray(event["data"]["img"]) for event in found]


class InsertedAgainConformance(Conformance):
    """Events filled by a broker are stored with their references, all others as given."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[Any]:
        """Return another broker, which the run comes from."""
        with connect(tmp_path / "source") as db:
            yield db

    @pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
    def test_a_filled_stream_makes_an_equal_run(
        self, broker: Any, source: Any, tmp_path: Path, make: Callable[[Path], Documents]
    ) -> None:
        docs = make(tmp_path)
        header = insert_run(source, docs)
        insert_all(broker, header.documents())
        check_run(broker[header.uid], docs)
        again = broker[header.uid].documents()
        assert_documents_equal(header.documents(), again)
        insert_all(broker, header.documents())  # which changes nothing
        check_run(broker[header.uid], docs)

    def test_one_stream(self, broker: Any, source: Any, tmp_path: Path) -> None:
        docs, _ = stream_run(tmp_path)
        header = insert_run(source, docs)
        insert_all(broker, header.stream("primary"))
        check_run(broker[header.uid], docs)

    @pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
    def test_selected_fields(
        self, broker: Any, source: Any, tmp_path: Path, make: Callable[[Path], Documents]
    ) -> None:
        """Events of a derived descriptor refer to what came in the stream."""
        docs = make(tmp_path)
        header = insert_run(source, docs)
        fields = ["img", "start:uid"]
        insert_all(broker, header.documents(fields=fields))
        expected = list(header.documents(fill=False, fields=fields))
        assert_documents_equal(expected, broker[header.uid].documents(fill=False))

    @pytest.mark.parametrize("make", list(RUNS.values())[:2], ids=list(RUNS)[:2])
    def test_documents_that_were_pickled(
        self, broker: Any, source: Any, tmp_path: Path, make: Callable[[Path], Documents]
    ) -> None:
        docs = make(tmp_path)
        header = insert_run(source, docs)
        insert_all(broker, pickle.loads(pickle.dumps(list(header.documents()))))
        check_run(broker[header.uid], docs)

    @pytest.mark.parametrize("make", list(RUNS.values())[:2], ids=list(RUNS)[:2])
    def test_events_filled_one_by_one(
        self, broker: Any, source: Any, tmp_path: Path, make: Callable[[Path], Documents]
    ) -> None:
        """Events and pages that an event source filled are stored with their references."""
        docs = make(tmp_path)
        header = insert_run(source, docs)
        es = header.es_given_stream("primary")
        insert_all(broker, es.fill_event_stream(header.documents(fill=False)))
        check_run(broker[header.uid], docs)

    def test_references_that_are_stored_already(
        self, broker: Any, source: Any, tmp_path: Path
    ) -> None:
        docs, _ = datum_run(tmp_path)
        header = insert_run(source, docs)
        insert_all(broker, [pair for pair in docs if pair[0] not in ("event", "stop")])
        insert_all(broker, _without_references(header.documents()))
        check_run(broker[header.uid], docs)

    def test_references_that_come_one_by_one(
        self, broker: Any, source: Any, tmp_path: Path
    ) -> None:
        """A reference comes before its event, after others were looked up."""
        docs, _ = datum_run(tmp_path)
        header = insert_run(source, docs)
        filled = {doc["uid"]: doc for name, doc in header.documents() if name == "event"}
        insert_all(broker, [(name, filled.get(doc.get("uid"), doc)) for name, doc in docs])
        check_run(broker[header.uid], docs)

    @pytest.mark.parametrize("make", list(RUNS.values())[:2], ids=list(RUNS)[:2])
    def test_without_their_references_values_are_stored(
        self, broker: Any, source: Any, tmp_path: Path, make: Callable[[Path], Documents]
    ) -> None:
        docs = make(tmp_path)
        header = insert_run(source, docs)
        pairs = list(_without_references(header.documents()))
        with pytest.warns(
            FilledValuesWarning, match="their references are not in this store"
        ) as warned:
            insert_all(broker, pairs)
        assert len(warned) == 1
        assert str(warned[0].message).startswith(f"run {header.uid!r}, stream 'primary'")
        np.testing.assert_array_equal(
            _images(broker[header.uid]), [d["data"]["img"] for n, d in pairs if n == "event"]
        )

    @pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
    def test_what_may_have_been_changed_is_stored_as_given(
        self, broker: Any, source: Any, tmp_path: Path, edit: Callable[[Any], Any]
    ) -> None:
        docs, _ = datum_run(tmp_path, 3)
        header = insert_run(source, docs)
        pairs = [(name, edit(doc) if name == "event" else doc) for name, doc in header.documents()]
        with pytest.warns(FilledValuesWarning, match="plain dict, or was changed") as warned:
            insert_all(broker, pairs)
        assert len(warned) == 1
        expected = frames(3, SHAPE)[:, None] + (1 if edit is EDITS["edited"] else 0)
        np.testing.assert_array_equal(_images(broker[header.uid]), expected)
        shown = broker[header.uid].dataset()["img"].values
        np.testing.assert_array_equal(shown, expected)

    def test_one_key_of_two_is_edited(self, broker: Any, source: Any, tmp_path: Path) -> None:
        """The edited value is stored, and the pixels are stored as they were given."""
        docs, data = datum_run(tmp_path, 2)
        header = insert_run(source, docs)
        pairs = [
            (name, {**doc, "data": {**doc["data"], "x": -1.0}} if name == "event" else doc)
            for name, doc in header.documents()
        ]
        with pytest.warns(FilledValuesWarning):
            insert_all(broker, pairs)
        events = [doc for name, doc in broker[header.uid].documents(fill=False) if name == "event"]
        assert [event["data"]["x"] for event in events] == [-1.0, -1.0]
        np.testing.assert_array_equal([event["data"]["img"] for event in events], data[:, None])

    def test_stored_values_are_copied_without_a_word(
        self, broker: Any, source: Any, tmp_path: Path
    ) -> None:
        """Another copy of events that were stored with their values loses nothing."""
        docs, _ = datum_run(tmp_path, 2)
        header = insert_run(source, docs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FilledValuesWarning)
            plain = [(name, doc.to_dict()) for name, doc in header.documents()]
            with connect(tmp_path / "values") as db:
                insert_all(db, plain)
                stored = list(db[header.uid].documents(fill=False))
        insert_all(broker, stored)
        check_run(broker[header.uid], plain)

    def test_filled_documents_are_documents(self, source: Any, tmp_path: Path) -> None:
        docs, _ = datum_run(tmp_path, 2)
        insert_all(source, docs)
        event = next(doc for name, doc in source[-1].documents() if name == "event")
        assert isinstance(event, Document)
        assert type(copy.copy(event)) is dict
        with pytest.raises(ValueError, match="read-only"):
            event["data"]["img"][...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            event["data"]["img"].flags.writeable = True
