"""Chunks: documents lie in columns and come back; plans list chunks without their data."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from daskbroker.core import stored_documents
from daskbroker.core.chunk_statistics import statistics
from daskbroker.core.chunks import (
    CHUNK_RECORD,
    ChunkPlan,
    ChunkReader,
    column_kinds,
    from_ipc,
    ranges_table,
    to_ipc,
)
from daskbroker.core.documents import Document, plain
from daskbroker.core.errors import StoreDamaged
from daskbroker.core.layouts import (
    DATUM,
    EVENT,
    EXTRA,
    STREAM_DATUM,
    Layout,
    cells,
    decode_rows,
    encode_page,
    encode_rows,
    rows_of_page,
)
from daskbroker.core.validate import prepare
from daskbroker.testing import difference, expand_documents, paged_run

NOTE = {"run": "r", "stream": "primary"}


def event(seq_num: int, data: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "uid": f"e{seq_num}",
        "descriptor": "d",
        "seq_num": seq_num,
        "time": 100.0 + seq_num,
        "data": dict(data),
        "timestamps": dict.fromkeys(data, 99.5 + seq_num),
        **more,
    }


def datum(number: int, **kwargs: Any) -> dict[str, Any]:
    return {"resource": "r", "datum_id": f"r/{number}", "datum_kwargs": kwargs}


def stream_datum(first: int, last: int, **more: Any) -> dict[str, Any]:
    return {
        "stream_resource": "sr",
        "uid": f"sr/{first}",
        "descriptor": "d",
        "indices": {"start": first, "stop": last},
        "seq_nums": {"start": first + 1, "stop": last + 1},
        **more,
    }


ROWS: list[tuple[Layout, list[dict[str, Any]]]] = [
    (EVENT, [event(1, {})]),
    (EVENT, [event(1, {"x": 1}, filled={}), event(2, {"x": 2.5}, filled={})]),
    (EVENT, [event(1, {"x": 1, "v": [1, 2]}), event(2, {"y": None}), event(3, {})]),
    (EVENT, [event(1, {"x": 0}, filled={"x": False}), event(2, {"x": "id"}), event(3, {})]),
    (EVENT, [event(1, {"data:x": 1, "ts:x": 2, "extra": 3, "größe θ": 4, "": 5})]),
    (EVENT, [event(1, {"x": {"a": [1]}}), event(2, {"x": "Disconnected"}), event(3, {"x": 1.5})]),
    (EVENT, [event(1, {"x": 1}, time=5), event(2, {"x": 2}, time=6.5)]),
    (EVENT, [event(1, {"x": 1}, note="by hand", id=7), event(2, {"x": 2}), event(3, {}, id=None)]),
    (DATUM, [datum(0), datum(1)]),
    (DATUM, [datum(0, frame=0), datum(1, frame=1, path="b"), datum(2, frame=2.0)]),
    (DATUM, [datum(0, n=0), {**datum(1, n=1), "id": "legacy"}]),
    (STREAM_DATUM, [stream_datum(0, 2), stream_datum(2, 5, run_start="r")]),
]


@pytest.mark.parametrize(("layout", "docs"), ROWS)
@pytest.mark.parametrize("stored", [False, True])
def test_rows_come_back(layout: Layout, docs: list[dict[str, Any]], stored: bool) -> None:
    table = encode_rows(layout, docs, NOTE)
    again = decode_rows(layout, from_ipc(to_ipc(table)) if stored else table, docs[0][layout.owner])
    assert all(type(doc) is Document for doc in again)
    assert difference(docs, [plain(doc) for doc in again]) is None


def test_rows_are_not_changed() -> None:
    docs = [event(1, {"x": [1, 2]}, filled={"x": False})]
    before = copy.deepcopy(docs)
    decode_rows(EVENT, encode_rows(EVENT, docs, NOTE), "d")
    assert docs == before


def test_filled_absent_or_empty_are_told_apart() -> None:
    docs = [event(1, {}), event(2, {}, filled={}), event(3, {}, filled={"a": "id"})]
    again = decode_rows(EVENT, encode_rows(EVENT, docs, NOTE), "d")
    assert [doc.get("filled", "absent") for doc in again] == ["absent", {}, {"a": "id"}]


def test_filled_that_differs_only_in_type_is_kept() -> None:
    docs = [event(1, {}, filled={"a": True}), event(2, {}, filled={"a": "True"})]
    again = decode_rows(EVENT, encode_rows(EVENT, docs, NOTE), "d")
    assert [doc["filled"]["a"] for doc in again] == [True, "True"]


def test_columns_and_metadata() -> None:
    table = encode_rows(EVENT, [event(1, {"x": 1}, note="n")], NOTE)
    names = {"seq_num", "time", "uid", "filled", "data:x", "ts:x", EXTRA}
    assert set(table.column_names) == names
    assert table.schema.metadata == {b"daskbroker": b'{"run":"r","stream":"primary"}'}
    kinds = column_kinds(table)
    assert kinds.keys() == names
    assert (kinds["seq_num"].name, kinds["time"].name, kinds["data:x"].name) == (
        "int", "float", "int",
    )  # fmt: skip


def test_no_extra_column_without_extra_keys() -> None:
    assert EXTRA not in encode_rows(EVENT, [event(1, {"x": 1})], NOTE).column_names


def test_cells_of_a_column_over_several_pieces() -> None:
    table = encode_rows(EVENT, [event(n, {"x": [n, n]}) for n in range(4)], NOTE)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert cells(pieces, "data:x") == [[n, n] for n in range(4)]


# -- pages -----------------------------------------------------------------------------------

PAGES: list[tuple[str, Layout, dict[str, Any]]] = [
    *(
        ("event_page", EVENT, doc)
        for arrays in (False, True)
        for name, doc in paged_run(pages=1, arrays=arrays)
        if name == "event_page"
    ),
    (
        "event_page",
        EVENT,
        {
            "descriptor": "d",
            "uid": ["a", "b"],
            "seq_num": np.array([1, 2], "u2"),
            "time": np.array([1.5, 2.5]),
            "data": {"img": np.arange(12, dtype="u1").reshape(2, 2, 3), "x": [1, None]},
            "timestamps": {"img": [1.0, 2.0], "x": np.array([1.0, 2.0])},
            "filled": {"img": [True, "id"], "x": [False, False]},
        },
    ),
    ("datum_page", DATUM, {"resource": "r", "datum_id": ["a", "b"], "datum_kwargs": {"n": [1, 2]}}),
    ("datum_page", DATUM, {"resource": "r", "datum_id": ["a"], "datum_kwargs": {}}),
]


@pytest.mark.parametrize(("name", "layout", "page"), PAGES)
def test_pages_come_back_as_single_documents(
    name: str, layout: Layout, page: dict[str, Any]
) -> None:
    expected = [doc for _, doc in expand_documents([(name, page)])]
    prepared = prepare(name, page)
    rows = rows_of_page(layout, prepared)
    assert difference(expected, [plain(row) for row in rows]) is None
    table = from_ipc(to_ipc(encode_page(layout, prepared, NOTE)))
    assert (
        difference(expected, [plain(d) for d in decode_rows(layout, table, page[layout.owner])])
        is None
    )


@pytest.mark.parametrize("filled", [None, {}])
def test_page_with_absent_or_empty_filled(filled: Any) -> None:
    page = {"descriptor": "d", "uid": ["a", "b"], "seq_num": [1, 2], "time": [1.0, 2.0]}
    page |= {"data": {"x": [1, 2]}, "timestamps": {"x": [1.0, 2.0]}}
    page |= {} if filled is None else {"filled": filled}
    expected = [doc for _, doc in expand_documents([("event_page", page)])]
    again = decode_rows(EVENT, encode_page(EVENT, page, NOTE), "d")
    assert difference(expected, [plain(doc) for doc in again]) is None
    assert difference(expected, [plain(row) for row in rows_of_page(EVENT, page)]) is None


def test_page_and_rows_give_the_same_columns() -> None:
    page = next(doc for name, doc in paged_run(pages=1) if name == "event_page")
    rows = rows_of_page(EVENT, prepare("event_page", page))
    by_page, by_rows = encode_page(EVENT, page, NOTE), encode_rows(EVENT, rows, NOTE)
    assert by_page.select(by_rows.column_names).equals(by_rows, check_metadata=True)


def test_page_keeps_keys_that_its_layout_does_not_know() -> None:
    page = {"resource": "r", "datum_id": ["a", "b"], "datum_kwargs": {"n": [1, 2]}, "id": [7, 8]}
    again = decode_rows(DATUM, encode_page(DATUM, page, NOTE), "r")
    assert [doc.get("id") for doc in again] == [7, 8]


# -- projection ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "received"),
    [
        (["data:y", "seq_num"], ["data:y", "seq_num"]),
        (["data:x", "data:absent", "time"], ["data:x", "time"]),
        (["data:absent"], []),
        ([], []),
    ],
)
def test_projection_reads_the_asked_columns_in_their_order(
    asked: list[str], received: list[str]
) -> None:
    table = encode_rows(EVENT, [event(n, {"x": n, "y": [n, n]}) for n in range(3)], NOTE)
    part = from_ipc(to_ipc(table), asked)
    assert part.column_names == received
    for name in received:
        assert cells(part, name) == cells(table, name)
        assert part.schema.field(name).equals(table.schema.field(name), check_metadata=True)


def test_projected_documents_have_only_those_data() -> None:
    docs = [event(1, {"x": 1, "y": 2}), event(2, {"y": 3})]
    asked = ["seq_num", "time", "uid", "data:y", "ts:y"]
    again = decode_rows(EVENT, from_ipc(to_ipc(encode_rows(EVENT, docs, NOTE)), asked), "d")
    assert [doc["data"] for doc in again] == [{"y": 2}, {"y": 3}]


def test_ranges_have_seq_nums_and_no_time() -> None:
    table = from_ipc(to_ipc(ranges_table(range(3, 6))))
    assert cells(table, "seq_num") == [3, 4, 5]
    assert np.isnan(cells(table, "time")).all()


# -- statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seq", "distinct", "ordered"),
    [([1, 2, 3], 3, True), ([1, 2, 2, 3], 3, False), ([3, 1, 2], 3, False), ([7], 1, True)],
)
def test_statistics_of_events(seq: list[int], distinct: int, ordered: bool) -> None:
    table = encode_rows(EVENT, [event(n, {"x": n}) for n in seq], NOTE)
    found = statistics(EVENT, table)
    assert (found.rows, found.bytes) == (len(seq), table.nbytes)
    assert (found.seq_min, found.seq_max) == (min(seq), max(seq))
    assert (found.time_min, found.time_max) == (100.0 + min(seq), 100.0 + max(seq))
    assert (found.distinct, found.ordered) == (distinct, ordered)


def test_statistics_of_others_are_rows_and_bytes() -> None:
    table = encode_rows(DATUM, [datum(0, n=1), datum(1, n=2)], NOTE)
    found = statistics(DATUM, table)
    assert (found.rows, found.bytes, found.seq_min, found.seq_max) == (2, table.nbytes, 0, -1)
    assert np.isnan(found.time_min)
    assert statistics(EVENT, encode_rows(EVENT, [event(1, {})], NOTE).slice(0, 0)).rows == 0


# -- plans -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader(ChunkReader):
    """Keys of chunks are local ones, which others cannot read."""

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        return from_ipc(key[1], columns)

    def portable_keys(self, keys: Sequence[Any]) -> Sequence[Any]:
        return [key[1] if isinstance(key, tuple) else key for key in keys]


def plan_of(
    *chunks: list[dict[str, Any]], store: str = "s", uids: Sequence[str] = ("d",)
) -> ChunkPlan:
    tables = [encode_rows(EVENT, docs, NOTE) for docs in chunks]
    records = []
    for number, table in enumerate(tables):
        s = statistics(EVENT, table)
        records.append((0, number, number * 10, *s))
    return ChunkPlan(
        reader=Reader(),
        descriptors=tuple(Document(uid=uid, run_start="r") for uid in uids),
        schemas=tuple(column_kinds(table) for table in tables),
        records=np.array(records, dtype=CHUNK_RECORD),
        keys=tuple(("local", to_ipc(table)) for table in tables),
        store=store,
    )


FIRST = [event(1, {"x": 1}), event(2, {"x": 2})]
SECOND = [event(3, {"x": 2.5, "y": "a"})]
THIRD = [event(n, {"x": n}) for n in (4, 5, 5)]


def test_plan_lists_chunks() -> None:
    plan = plan_of(FIRST, SECOND, THIRD)
    assert (len(plan), plan.rows) == (3, 6)
    chunk = plan[1]
    assert [c.first for c in plan] == [0, 10, 20]
    assert (chunk.rows, chunk.seq_min, chunk.seq_max, chunk.time_max) == (1, 3, 3, 103.0)
    assert chunk.descriptor.uid == "d"
    assert chunk.kinds["data:y"].name == "str"
    assert type(chunk.rows) is int
    assert type(chunk.time_min) is float


def test_plan_reads_a_chunk_by_place() -> None:
    plan = plan_of(FIRST, SECOND)
    assert plan.read(1, ["data:x", "data:none"]).column_names == ["data:x"]
    assert decode_rows(EVENT, plan.read(0), "d") == FIRST


def test_plan_reads_all_chunks_in_their_order() -> None:
    plan = plan_of(FIRST, SECOND, THIRD)
    for columns in (None, ["seq_num", "data:x", "data:y"]):
        tables = list(plan.read_all(columns))
        assert len(tables) == 3
        for index, table in enumerate(tables):
            assert table.equals(plan.read(index, columns))
    assert list(plan.take([]).read_all()) == []


def test_a_damaged_chunk_is_named_when_it_is_reached() -> None:
    plan = plan_of(FIRST, SECOND)
    plan = replace(plan, keys=(plan.keys[0], ("local", b"nothing")))
    coming = plan.read_all()
    assert next(coming).num_rows == 2
    for read in (lambda: next(coming), lambda: plan.read(1)):
        with pytest.raises(StoreDamaged, match=r"^references of run 'r': a chunk"):
            read()


@pytest.mark.parametrize("places", [[2, 0], [], [1], np.array([0, 2])])
def test_take_gives_these_chunks_in_this_order(places: Any) -> None:
    plan = plan_of(FIRST, SECOND, THIRD)
    taken = plan.take(places)
    assert [c.first for c in taken] == [plan[int(p)].first for p in places]
    assert taken.rows == sum(plan[int(p)].rows for p in places)
    assert taken.descriptors == plan.descriptors
    for new, old in enumerate(places):
        assert taken.read(new).equals(plan.read(int(old)))
        assert taken[new].kinds == plan[int(old)].kinds


def test_token_is_the_same_for_the_same() -> None:
    plan = plan_of(FIRST, SECOND)
    assert plan.token == plan_of(FIRST, SECOND).token
    assert plan.token == plan.take([0, 1]).token
    assert plan.token == pickle.loads(pickle.dumps(plan)).token


def test_token_differs_with_store_descriptors_and_chunks() -> None:
    plan = plan_of(FIRST, SECOND)
    plans = [
        plan,
        plan_of(FIRST, SECOND, store="other"),
        plan_of(FIRST, SECOND, uids=("other",)),
        plan_of(FIRST, SECOND, uids=("d", "more")),
        plan_of(FIRST, SECOND, THIRD),
        plan.take([0]),
        plan.take([1, 0]),
    ]
    assert len({plan.token for plan in plans}) == len(plans)


def test_token_tells_where_one_uid_ends() -> None:
    plans = [plan_of(FIRST, uids=uids) for uids in (("ab", "c"), ("a", "bc"))]
    assert plans[0].token != plans[1].token


def test_pickled_plan_has_portable_keys() -> None:
    plan = plan_of(FIRST, SECOND)
    again = pickle.loads(pickle.dumps(plan))
    assert all(isinstance(key, bytes) for key in again.keys)
    assert (again.store, again.descriptors, again.schemas) == (
        plan.store, plan.descriptors, plan.schemas,
    )  # fmt: skip
    assert (again.records == plan.records).all()
    assert again.read(0).equals(plan.read(0))


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise pa.ArrowMemoryError("malloc failed")

    data = to_ipc(pa.table({"uid": ["e"]}))
    with monkeypatch.context() as patch:
        patch.setattr(pa.ipc, "open_file", fail)
        with pytest.raises(MemoryError, match="malloc"):
            from_ipc(data)
    monkeypatch.setattr(stored_documents, "encode_rows", fail)
    rows = [{"filled": {}, "descriptor": "d"}]
    with pytest.raises(MemoryError, match="malloc"):
        stored_documents.encode_stored_rows(EVENT, rows, {})
