"""Any run comes back; its views agree; a query finds what plain Python finds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskbroker
from daskbroker.core.chunks import from_ipc, to_ipc
from daskbroker.core.codec import decode, encode
from daskbroker.core.column_kinds import MISSING
from daskbroker.core.documents import equal, plain
from daskbroker.core.fields import data_keys_of, shown_names
from daskbroker.core.query import Query
from daskbroker.testing import (
    RunBuilder,
    assert_documents_equal,
    assert_references_first,
    difference,
    expand_documents,
    make_run,
)
from daskbroker.testing.base import insert_all
from daskbroker.testing.strategies import cells, queries, runs, starts


@pytest.fixture(scope="module")
def shared():
    with daskbroker.temp() as db:
        yield db


@settings(max_examples=60, deadline=None)
@given(documents=runs(), sealed=st.booleans())
def test_any_run_comes_back_and_its_views_agree(shared, documents, sealed):
    insert_all(shared, documents)
    header = shared[documents[0][1]["uid"]]
    if sealed:
        shared.seal(header)
    received = list(header.documents())
    assert_references_first(received)
    assert_documents_equal(documents, received)
    streams = {d["uid"]: d["name"] for name, d in documents if name == "descriptor"}
    events = [doc for name, doc in expand_documents(documents) if name == "event"]
    for stream in header.streams:
        check_views(header, stream, [e for e in events if streams[e["descriptor"]] == stream])


def check_views(header, stream, events):
    table = header.table(stream, duplicates="all")
    frame = table.compute()
    assert len(table) == len(frame) == len(events)
    assert frame.dtypes.to_dict() == table.dtypes.to_dict()
    dataset = header.dataset(stream, duplicates="all").compute()
    assert dataset["seq_num"].values.tolist() == frame.index.tolist()
    received = {e["uid"]: e for e in events}
    uids = header.table(stream, fields=["uid"], duplicates="all").compute()["uid"]
    for key, name in shown_names(data_keys_of(header.descriptors[stream])).items():
        for uid, cell in zip(uids, frame[name], strict=True):
            value = received[uid]["data"].get(key)
            shown = cell.tolist() if isinstance(cell, np.ndarray) else cell
            assert same_cell(value, shown)


_leaf = st.one_of(st.none(), st.booleans(), st.integers(-5, 2**54), st.floats(width=16), st.text())
_leaves = st.sampled_from([st.integers(-5, 5), st.floats(width=16), _leaf])
_values = st.one_of(
    _leaves,
    _leaves.map(lambda leaf: st.lists(leaf, min_size=2, max_size=2)),
    _leaves.map(lambda leaf: st.lists(leaf, max_size=3)),
).flatmap(lambda values: values if isinstance(values, st.SearchStrategy) else st.just(values))


@settings(max_examples=25, deadline=None)
@given(
    first=st.lists(_values, min_size=1, max_size=4),
    then=st.lists(_values, max_size=4),
    cuts=st.sets(st.integers(0, 7)),
)
def test_dtypes_do_not_depend_on_how_a_stream_was_cut(shared, first, then, cuts):
    """Sealed as one chunk, in several, and in the journal."""
    found = []
    for ends in ((), cuts, range(8)):
        run = RunBuilder()
        descriptor = run.descriptor({"x": first[0], "y": 0.5})
        for number, value in enumerate([*first, *then]):
            run.event(descriptor, {"x": value, "y": None if number == 2 else 1})
        for number, (name, doc) in enumerate(run.documents):
            shared.insert(name, doc)
            if number - 2 in ends:
                shared.seal(shared[run.uid])
        header = shared[run.uid]
        dataset = header.dataset()
        forms = {
            name: (variable.shape, variable.dtype, repr(plain(variable.values.tolist())))
            for name, variable in dataset.items()
        }
        found.append((header.table().dtypes.to_dict(), forms))
        assert header.table().compute().dtypes.to_dict() == found[-1][0]
    assert found[0] == found[1] == found[2]


def same_cell(value, shown):
    """Tables have NaN or NA for what is missing, inside arrays of numbers too."""
    if isinstance(value, list) and isinstance(shown, list):
        return len(value) == len(shown) and all(map(same_cell, value, shown))
    if value is None:
        return not isinstance(shown, (list, dict)) and pd.isna(shown)
    return equal(value, shown) or (value != value and pd.isna(shown))


@settings(max_examples=60, deadline=None)
@given(metadata=st.lists(starts(), max_size=6), query=queries)
@pytest.mark.filterwarnings("ignore::daskbroker.SearchWarning")  # many find nothing
def test_a_query_finds_what_plain_python_finds(metadata, query):
    with daskbroker.temp() as db:
        documents = [make_run(0, stop=False, **start)[0][1] for start in metadata]
        for doc in documents:
            db.insert("start", doc)
        expected = [d["uid"] for d in documents if Query(query).matches(d)]
        results = db(**query)
        assert [header.uid for header in results] == expected[::-1]
        assert len(results) == len(expected)


@settings(max_examples=200, deadline=None)
@given(values=st.lists(cells | st.just(MISSING), min_size=1, max_size=6))
def test_a_column_of_any_cells_is_encoded_without_loss(values):
    column = encode(values)
    table = pa.Table.from_arrays([column.array], schema=pa.schema([column.arrow_field("x")]))
    back = from_ipc(to_ipc(table))
    decoded = decode(back.column(0).chunk(0), back.schema.field(0))
    assert [v is MISSING for v in decoded] == [v is MISSING for v in values]
    for before, after in zip(values, decoded, strict=True):
        assert before is MISSING or difference(before, after) is None
