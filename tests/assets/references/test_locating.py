"""References of a run: looked up by chunk, sent to workers as keys."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskbroker
from daskbroker.assets.references import frame_table as tables
from daskbroker.assets.references import reference_chunks
from daskbroker.assets.references.frame_table import read_frame_table
from daskbroker.assets.references.last_frames import file_of
from daskbroker.assets.references.locating import ReferenceMissing
from daskbroker.assets.references.reference_chunks import KnownTexts
from daskbroker.core.layouts import STREAM_DATUM, STREAM_RESOURCE
from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import RunBuilder

FILES, EACH = 40, 1000


def references_of(header, stream="primary"):
    source = header.es_given_stream(stream)
    filling = source.filling(source.descriptors_given_header(header, stream))
    return filling.references[header.uid]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """40,000 datums of 40 resources; and their ids, in the order of the events."""
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [4, 4], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": spec})
    ids = []
    for number in range(FILES):
        resource = run.resource("AD_HDF5", resource_path=f"{number}.h5")
        page = [f"{resource}/{n}" for n in range(EACH)]
        kwargs = {"point_number": list(range(EACH)), "file": [number] * EACH}
        run.add("datum_page", {"resource": resource, "datum_id": page, "datum_kwargs": kwargs})
        run.event_page(descriptor, [{"img": datum_id} for datum_id in page])
        ids += page
    folder = tmp_path_factory.mktemp("many")
    with daskbroker.connect(folder) as db:
        insert_all(db, run.stop())
        db.seal()
    return folder, ids


@pytest.fixture
def many(stored):
    folder, ids = stored
    with daskbroker.connect(folder) as db:
        yield db[-1], ids


def test_what_a_task_carries_is_small(many):
    header, _ = many
    references = references_of(header)
    assert len(references.keys["datum"]) >= 2
    travelled = pickle.loads(pickle.dumps(references))
    # Chunks that a store has not put into a file yet travel as they are.
    inline = [key for keys in travelled.keys.values() for key in keys if isinstance(key, bytes)]
    assert len(pickle.dumps(references)) - sum(map(len, inline)) < 1000
    assert sum(map(len, inline)) < 300 * FILES


def test_found_by_resource_in_the_order_of_the_question(many):
    header, ids = many
    places = np.random.default_rng(1).permutation(len(ids))[:500]
    asked = pa.array([ids[place] for place in places])
    seen = np.zeros(len(places), int)
    for found in references_of(header).find(asked):
        numbers = places[found.positions]
        assert found.indices is None
        assert found.resource["resource_path"] == f"{numbers[0] // EACH}.h5"
        assert found.datums.columns["point_number"].tolist() == (numbers % EACH).tolist()
        assert set(found.datums.columns["file"].tolist()) == {numbers[0] // EACH}
        seen[found.positions] += 1
    assert (seen == 1).all()


def test_only_the_chunks_nearby_are_read(many):
    header, ids = many
    references = references_of(header)
    reference_chunks.datum_chunk.cache_clear()
    end = pa.array(ids[-100:])
    list(references.find(end, run_fraction=0.999))
    assert reference_chunks.datum_chunk.cache_info().misses == 1
    list(references.find(end, run_fraction=0.0))  # looks everywhere, in the end
    assert reference_chunks.datum_chunk.cache_info().misses == len(references.keys["datum"])


def test_columns_are_arrays_not_one_object_a_datum(many):
    header, ids = many
    (found,) = references_of(header).find(pa.array(ids[:300]))
    assert isinstance(found.datums.columns["point_number"], np.ndarray)
    assert found.datums.count == 300


def test_the_ids_of_a_chunk_are_indexed_once_for_all_keys(many, monkeypatch):
    header, ids = many
    references = references_of(header)
    reference_chunks.datum_chunk.cache_clear()
    hashed = []
    hashes = reference_chunks._hashes
    monkeypatch.setattr(
        reference_chunks, "_hashes", lambda texts: hashed.append(len(texts)) or hashes(texts)
    )
    for first in range(0, 400, 20):
        (found,) = references.find(pa.array(ids[first : first + 20]))
        assert found.datums.columns["point_number"].tolist() == list(range(first, first + 20))
    assert sum(size > 20 for size in hashed) == 1


@pytest.mark.parametrize("equal", [False, True], ids=["distinct", "equal hashes"])
def test_known_texts(equal, monkeypatch):
    if equal:
        monkeypatch.setattr(reference_chunks, "_hashes", lambda texts: np.zeros(len(texts), int))
    words = [f"{number % 97}" for number in range(200)]
    known = KnownTexts(pa.array(words))
    for asked in (["3"], ["96", "no", "0", "", "50", "3", "3"], ["no"] * 9, ["96", "5"], words, []):
        expected = [words.index(text) if text in words else -1 for text in asked]
        for _ in range(3):
            assert known.positions(pa.array(asked, pa.string())).tolist() == expected
    assert KnownTexts(pa.array([], pa.string())).positions(pa.array(["a"] * 9)).tolist() == [-1] * 9


def test_what_is_missing_is_named(many):
    header, ids = many
    with pytest.raises(ReferenceMissing, match="'no such'"):
        list(references_of(header).find(pa.array([ids[0], "no such"])))


def test_datums_with_differing_keywords(db):
    run = RunBuilder()
    descriptor = run.descriptor(
        {"img": {"source": "x", "dtype": "array", "shape": [], "external": "F"}}
    )
    resource = run.resource()
    kwargs = [{"a": 1}, {"b": "x"}, {"a": 2, "b": "y"}, {}, {"a": 3}]
    ids = [run.datum(resource, **some) for some in kwargs]
    run.event(descriptor, {"img": ids[0]})
    insert_all(db, run.stop())
    rows = {}
    for found in references_of(db[-1]).find(pa.array(ids)):
        rows.update(zip(found.positions.tolist(), found.datums.rows(), strict=True))
    assert [rows[place] for place in range(len(ids))] == kwargs


def test_an_open_run_is_looked_up_anew(db):
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [4], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": spec})
    resource = run.resource()
    first = run.datum(resource, n=1)
    run.event(descriptor, {"img": first})
    insert_all(db, run.documents)
    before = references_of(db[-1])
    second = run.datum(resource, n=2)
    db.insert("datum", run.documents[-1][1])
    after = references_of(db[-1])
    assert before.facts != after.facts
    assert len(list(after.find(pa.array([first, second])))) >= 1
    copy = pickle.loads(pickle.dumps(after))
    assert sum(len(found.positions) for found in copy.find(pa.array([second, first]))) == 2


# -- frames ----------------------------------------------------------------------------------


def frame_table(header, descriptor, key="img"):
    references = references_of(header)
    chunks = (references.keys[kind.kind] for kind in (STREAM_RESOURCE, STREAM_DATUM))
    return read_frame_table(references.store, references.reader, *chunks, descriptor, key)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 20), st.integers(1, 9)),
        min_size=1,
        max_size=12,
    )
)
def test_the_latest_stream_datum_counts(db, spans):
    """Against one dict entry a frame."""
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 4], "external": "STREAM:"}
    descriptor = run.descriptor({"img": spec})
    resources = [run.stream_resource("img", uri=f"file:///{n}.h5") for n in range(3)]
    expected = {}
    for number, index, seq_num, count in spans:
        run.stream_datum(
            resources[number], descriptor, (index, index + count), (seq_num, seq_num + count)
        )
        for step in range(count):
            expected[seq_num + step] = (f"file:///{number}.h5", index + step)
    insert_all(db, run.stop())
    table = frame_table(db[run.uid], descriptor)
    seq_nums = np.arange(0, 32)
    numbers, indices = table.find(seq_nums)
    for seq_num, number, index in zip(seq_nums, numbers, indices, strict=True):
        if number < 0:
            assert seq_num not in expected
        else:
            assert (table.resources[number]["uri"], index) == expected[seq_num]


def test_one_stream_datum_an_event_is_no_loop(db):
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 4], "external": "STREAM:"}
    descriptor = run.descriptor({"img": spec, "sum": {**spec, "shape": [1]}})
    image, total = run.stream_resource("img"), run.stream_resource("sum")
    for place in range(2000):
        run.stream_datum(image, descriptor, (place, place + 1))
        run.stream_datum(total, descriptor, (place, place + 1))
    insert_all(db, run.stop())
    table = frame_table(db[-1], descriptor)
    numbers, indices = table.find(np.arange(1, 2001))
    assert set(numbers.tolist()) == {0}
    assert [doc["data_key"] for doc in table.resources] == ["img"]
    assert indices.tolist() == list(range(2000))


def test_indices_and_events_must_be_as_many(db):
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 4], "external": "STREAM:"}
    descriptor = run.descriptor({"img": spec})
    run.stream_datum(run.stream_resource("img"), descriptor, (0, 6), (1, 3))
    insert_all(db, run.stop())
    with pytest.raises(ReferenceMissing, match="6 indices to 2 events"):
        list(references_of(db[-1]).find_frames(descriptor, "img", np.array([1])))


def test_a_file_for_each_frame_costs_no_comparison_with_all_others(db, monkeypatch):
    run, count = RunBuilder(), 300
    claim = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    descriptor = run.descriptor({"img": claim})
    unused = run.stream_resource("img", uri="file://localhost/nowhere/unused.h5")
    resources = []
    for number in range(count):
        uri = f"file://localhost/nowhere/{number // 2}.h5"  # two resources for each file
        resources.append(run.stream_resource("img", uri=uri))
        frames = (number % 2, number % 2 + 1)
        run.stream_datum(resources[-1], descriptor, frames, (number + 1, number + 2))
    insert_all(db, run.stop(num_events={"primary": count}))
    references = references_of(db[-1])
    asked = []
    monkeypatch.setattr(tables, "file_of", lambda doc: asked.append(doc) or file_of(doc))
    order = np.random.default_rng(0).permutation(count)
    found = list(references.find_frames(descriptor, "img", order + 1))
    assert [one.resource["uid"] for one in found] == resources
    for number, one in enumerate(found):
        assert order[one.positions].tolist() == [number]
        assert one.datums.columns["index"].tolist() == [number % 2]
        assert one.indices == (number % 2, number % 2 + 1)
        assert references.last_index(descriptor, "img", one.resource) == 1
    assert len(asked) == count + 1
    ((_, spare),) = references.documents(STREAM_RESOURCE, [unused]).items()
    assert references.last_index(descriptor, "img", spare) == -1


def test_stream_resources_of_many_keys_are_decoded_once(db, monkeypatch):
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 4], "external": "STREAM:"}
    keys = [f"img{number}" for number in range(20)]
    descriptor = run.descriptor(dict.fromkeys(keys, spec))
    for key in keys:
        run.stream_datum(run.stream_resource(key), descriptor, (0, 2))
    insert_all(db, run.stop())
    decoded = []
    decode = reference_chunks.decode_rows

    def counted(layout, table, owner):
        decoded.append(table.num_rows)
        return decode(layout, table, owner)

    monkeypatch.setattr(reference_chunks, "decode_rows", counted)
    for key in keys:
        table = frame_table(db[-1], descriptor, key)
        assert [resource["data_key"] for resource in table.resources] == [key]
        assert table.find(np.array([1, 2, 3]))[0].tolist() == [0, 0, -1]
    assert sum(decoded) == len(keys)
