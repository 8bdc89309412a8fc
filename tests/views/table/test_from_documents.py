"""Streams of documents as tables, and the buffer that collects them."""

from __future__ import annotations

import pandas as pd
import pytest

import daskbroker
from daskbroker.core.errors import BadDocument, StreamNotFound, UnknownReference
from daskbroker.testing import (
    RunBuilder,
    external_run,
    make_run,
    paged_run,
    ragged_run,
    rewound_run,
    stream_datum_run,
)
from daskbroker.testing.base import insert_all

RUNS = {
    "plain": make_run(5, streams=("primary", "dark")),
    "rewound": rewound_run(),
    "ragged": ragged_run(),
    "pages": paged_run(arrays=True),
    "references": external_run(3),
    "frames": stream_datum_run(),
    "empty": make_run(0),
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("stored", [True, False], ids=["given back", "as inserted"])
def test_a_stream_and_its_run_give_the_same_table(db, kind, stored):
    insert_all(db, RUNS[kind])
    header = db[-1]
    documents = list(header.documents(fill=False)) if stored else RUNS[kind]
    for stream in header.streams:
        for options in ({}, {"timestamps": True}, {"duplicates": "all"}, {"timezone": "UTC"}):
            wanted = header.table(stream, fill=False, **options)
            found = daskbroker.stream_to_table(documents, stream, **options)
            pd.testing.assert_frame_equal(found.compute(), wanted.compute())
            assert found.compute().attrs == wanted.compute().attrs
            assert found.divisions == wanted.divisions


def test_fields_and_projections_of_a_stream():
    documents = make_run(2, sample="Ag")
    table = daskbroker.stream_to_table(documents, fields=["x", "start:sample", "stop:exit_status"])
    frame = table.compute()
    assert list(frame.columns) == ["time", "x", "start:sample", "stop:exit_status"]
    assert frame["stop:exit_status"].tolist() == ["success"] * 2


def test_a_buffer_shows_a_run_as_it_comes():
    buffer = daskbroker.RunBuffer()
    documents = make_run(3)
    rows = []
    for name, doc in documents:
        buffer(name, doc)
        if name != "start":
            rows.append(len(buffer.table()))
    assert rows == [0, 1, 2, 3, 3]
    assert [(name, dict(doc)) for name, doc in buffer] == documents
    assert len(buffer) == len(documents)
    assert buffer.start == documents[0][1]
    assert buffer.stop == documents[-1][1]
    assert buffer.streams == ["primary"]


def test_a_buffer_gives_pages_as_events():
    buffer = daskbroker.RunBuffer()
    for name, doc in paged_run(pages=2, rows=3, arrays=True):
        buffer(name, doc)
    assert [name for name, _ in buffer] == ["start", "descriptor", *["event"] * 6, "stop"]


def test_what_a_buffer_was_given_may_be_changed():
    run = RunBuilder()
    descriptor = run.descriptor({"v": [0.5]})
    event = run.event(descriptor, {"v": [1.5]})
    buffer = daskbroker.RunBuffer()
    for name, doc in run.documents:
        buffer(name, doc)
    event["data"]["v"][0] = 99.0
    assert buffer.table().compute()["v"].iloc[0].tolist() == [1.5]


def test_tables_of_two_buffers_have_names_of_their_own():
    names = {daskbroker.stream_to_table(RUNS["plain"])._name for _ in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ([("event", {})], BadDocument, "lacks"),
        ([5], BadDocument, "item 0"),
        ([*make_run(1)[:1], *make_run(1)[:1]], BadDocument, "one run only"),
        (make_run(1)[2:3], UnknownReference, "descriptor .* did not come"),
        (make_run(1)[-1:], UnknownReference, "no start"),
        (make_run(1)[:1], StreamNotFound, "'primary'; there are: none"),
    ],
    ids=["no event", "no pair", "two runs", "no descriptor", "no start", "no stream"],
)
def test_what_makes_no_sense(documents, error, message):
    with pytest.raises(error, match=message):
        daskbroker.stream_to_table(documents)


def test_an_event_with_an_undeclared_key():
    documents = make_run(1)
    documents[2][1]["data"]["odd"] = 1
    with pytest.raises(BadDocument, match="odd"):
        daskbroker.stream_to_table(documents)
