"""How tables and datasets are cut where cells are large."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import daskbroker
from daskbroker.assets.filling.blocks import BlockReader
from daskbroker.core.errors import BadQuery
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run, stream_run
from daskbroker.testing.runs import RunBuilder
from daskbroker.views.dataset.cutting import column_groups, even_cut
from daskbroker.views.row_order import RowGroup, coalesce, cut_groups


def group(low, high, stored, size=1000):
    dense = stored == high - low + 1
    return RowGroup(
        indices=(0,), run="r", simple=dense, rows=stored if dense else None, bytes=size,
        seq_min=low, seq_max=high, time_min=0.0, time_max=1.0, stored=stored,
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=6),
    st.integers(1, 10**6),
    st.integers(10**3, 10**7),
)
def test_pieces_cover_every_seq_num_once_and_in_order(sizes, row_bytes, target):
    groups, low = [], 1
    for count, dense in sizes:
        high = low + count - 1 + (0 if dense else 5)
        groups.append(group(low, high, count))
        low = high + 1
    groups = [replace(one, bytes=one.bytes + one.stored * row_bytes) for one in groups]
    pieces = cut_groups(groups, target)
    numbers = [n for piece in pieces for n in range(piece.seq_min, piece.seq_max + 1)]
    assert numbers == list(range(1, low))
    dense = [piece for piece in pieces if piece.rows is not None]
    assert all(piece.rows == piece.seq_max - piece.seq_min + 1 for piece in dense)
    for piece in pieces:
        single = piece.seq_max == piece.seq_min
        assert single or piece.bytes <= 2 * target + row_bytes + 1000
    ranges = coalesce(pieces, target)
    assert [n for begin, end in ranges for n in range(begin, end)] == list(range(len(pieces)))


def test_a_group_below_the_target_stays_whole():
    groups = [group(1, 100, 100, size=1000)]
    assert cut_groups(groups, 1000) == groups


def test_partitions_are_as_large_as_what_the_table_shows():
    run = RunBuilder()
    descriptor = run.descriptor({f"x{n}": 0.5 for n in range(20)})
    for first in range(0, 40_000, 10_000):
        row = {f"x{n}": float(first) for n in range(20)}
        run.event_page(descriptor, [row] * 10_000)
    options = {"daskbroker.partition-size": "4 MB", "daskbroker.seal-rows": 10_000}
    with dask.config.set(options), daskbroker.temp() as db:
        insert_all(db, run.stop())
        assert db[-1].table().npartitions == 2  # of 1.8 MB a page
        assert db[-1].table(timestamps=True).npartitions == 4  # of 3.4 MB


@given(st.integers(0, 100_000), st.integers(0, 3000), st.integers(1, 200))
def test_a_cut_is_even_and_ends_where_chunks_of_files_do(count, most, align):
    cut = even_cut(count, most, align)
    assert sum(cut) == count
    most = max(1, most)
    assert max(cut) <= most
    assert cut == (0,) or min(cut) > 0
    assert len(set(cut[:-1])) <= 1  # as Zarr needs it
    assert cut[-1] <= cut[0]
    if align <= most:
        assert all(length % align == 0 for length in cut[:-1])
    elif count:
        assert len(cut) <= -(-count // most)  # no more blocks than there have to be
        assert len(cut) < 2 or cut[0] - cut[-1] < len(cut)  # no short tail


def test_three_runs_of_150_frames_make_four_even_blocks():
    assert even_cut(450, 128) == (113, 113, 113, 111)


@given(st.lists(st.integers(1, 2000), max_size=90), st.integers(1, 100_000))
def test_columns_that_are_read_together(sizes, rows):
    named = {f"x{place}": size for place, size in enumerate(sizes)}
    groups = column_groups(named, rows)
    assert [name for group in groups for name in group] == list(named)
    for group in groups:
        assert 1 <= len(group) <= 64
        assert len(group) == 1 or rows * sum(named[name] for name in group) <= 8 * 2**20


def test_blocks_of_many_columns_are_larger_so_that_tasks_are_fewer(db):
    run = RunBuilder()
    descriptor = run.descriptor({f"x{n}": 0.5 for n in range(300)})
    for first in range(0, 400, 50):
        row = {f"x{n}": float(first) for n in range(300)}
        run.event_page(descriptor, [row] * 50)
    insert_all(db, run.stop())
    few = [f"x{n}" for n in range(100)]
    size = 300 * 8 * 50  # of 50 rows
    with dask.config.set({"daskbroker.loaded-size": 0, "daskbroker.partition-size": size}):
        ds = db[-1].dataset()
        assert ds.chunks["time"] == (100,) * 4  # twice the size, as there are twice 128 columns
        assert len(ds.mean().__dask_graph__()) <= 300 * (4 * 2 + 1) + 4 * 5
        assert db[-1].dataset(chunks={"time": "auto"}).chunks == ds.chunks
        assert db[-1].dataset(fields=few).chunks["time"] == (134, 134, 132)  # of the size itself
        assert db[-1].dataset(chunks=f"{size} B").chunks["time"] == (50,) * 8
        assert ds["x7"].mean().compute() == 175.0


def huge_run(events=100_000):
    """Events of 2 MB frames in files that are nowhere: 200 GB."""
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 1024, 1024], "dtype_numpy": "<u2"}
    descriptor = run.descriptor({"img": {**spec, "external": "STREAM:"}, "x": 0.5})
    parameters = {"dataset": "/d", "chunk_shape": [10, 1024, 1024]}
    resource = run.stream_resource("img", parameters=parameters)
    run.stream_datum(resource, descriptor, (0, events))
    for first in range(0, events, 10_000):
        run.event_page(descriptor, [{"x": n * 0.5} for n in range(first, first + 10_000)])
    return run.stop()


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    with daskbroker.connect(tmp_path_factory.mktemp("huge")) as db:
        insert_all(db, huge_run())
        yield db[-1]


def test_a_large_run_is_planned_quickly_in_blocks_of_bounded_size(huge):
    begin = time.perf_counter()
    table, dataset = huge.table(), huge.dataset()
    assert time.perf_counter() - begin < 2
    assert 3000 < table.npartitions <= 10_000
    assert table.known_divisions
    assert len(table) == 100_000
    cuts = dataset["img"].chunks[0]
    assert max(cuts) == 30  # 64 MiB
    assert all(end % 10 == 0 for end in np.cumsum(cuts))  # ten frames are a chunk of the file
    assert isinstance(dataset["x"].variable._data, np.ndarray)  # 800 kB
    with dask.config.set({"daskbroker.loaded-size": 0}):
        assert huge.dataset().chunks["time"] == cuts  # one cut for all
    assert table[["x"]].npartitions == table.npartitions


def test_what_travels_is_small(huge):
    parts = huge.table().expr.operand("parts")
    payloads = [pickle.dumps(parts.payload(number)) for number in (0, 1000, parts.npartitions - 1)]
    lazy = huge.dataset(chunks=None)["img"].variable._data
    assert max(map(len, payloads)) < 6000
    assert len(pickle.dumps(lazy)) < 20_000


def test_a_task_of_a_dataset_carries_its_own_rows(huge):
    with dask.config.set({"daskbroker.loaded-size": 0}):
        dataset = huge.dataset()
    for name in ("img", "x"):
        array = dataset[name].data[:10]
        graph = dict(dask.optimize(array)[0].dask)
        assert len(graph) <= 3
        assert max(len(pickle.dumps(task)) for task in graph.values()) < 7000
        assert {name.split("-")[0] for name in array.dask.layers} == {"daskbroker", "getitem"}
    assert dataset["x"].data[40:50].compute().tolist() == [n * 0.5 for n in range(40, 50)]


@pytest.mark.parametrize("make", [datum_run, stream_run], ids=["datum", "stream"])
def test_a_block_reads_a_file_in_one_call_whatever_chunks_events_are_in(
    make, tmp_path, monkeypatch
):
    calls = []
    read = BlockReader.read
    monkeypatch.setattr(BlockReader, "read", lambda *args: calls.append(args) or read(*args))
    docs, data = make(tmp_path, 14)
    with dask.config.set({"daskbroker.seal-rows": 4}), daskbroker.temp() as db:
        insert_all(db, docs)
        header = db[-1]
        assert len(header.es_given_stream("primary").chunks_given_header(header, "primary")) > 2
        with dask.config.set({"daskbroker.partition-size": 700}):  # seven frames
            image = header.dataset()["img"]
        assert image.chunks[0] == (7, 7)
        np.testing.assert_array_equal(image.values, data.reshape(image.shape))
    assert len(calls) == 2


def test_large_columns_are_read_together_in_groups_of_their_own(db):
    keys = {f"x{n}": [float(n), n + 0.5] for n in range(200)}
    insert_all(db, make_run(keys=keys))
    with dask.config.set({"daskbroker.loaded-size": 0}):
        dataset, again = db[-1].dataset(), db[-1].dataset(fields=["x3", "x150"])
    layers = {name for name in dataset.__dask_graph__().layers if "-read-" in name}
    assert len(layers) == 4
    few = dataset[["x3", "x150"]]
    assert set(few.__dask_graph__().layers) <= set(dataset.__dask_graph__().layers)
    assert {n for n in few.__dask_graph__().layers if "-read-" in n} < layers
    assert again.compute().equals(few.compute())


def test_a_column_that_is_stored_is_read_from_any_partition(huge):
    part = huge.table()[["x"]].partitions[1234].compute()
    assert part["x"].tolist() == ((part.index - 1) * 0.5).tolist()


def test_sizes_cut_text_too(db):
    """Dask knows no size of objects; the store knows what is in its chunks."""
    texts = [f"{number:01000}" for number in range(200)]
    insert_all(db, make_run(keys={"x": [1.0] * 200, "note": texts}))
    header = db[-1]
    with dask.config.set({"daskbroker.loaded-size": 0}):
        whole = header.dataset()
        with pytest.raises(NotImplementedError, match="object dtype"):
            whole.chunk("auto")
        for chunks in ("50 kB", {"time": "50 kB"}):
            dataset = header.dataset(chunks=chunks)
            assert len(dataset.chunks["time"]) > 1
            xr.testing.assert_identical(dataset.load(), header.dataset(chunks=None).load())
        assert header.dataset(chunks={"time": "auto"}).chunks == whole.chunks
        of_one = header.dataset(chunks={"x": "80 B"})
        assert of_one["x"].chunks == ((10,) * 20,)
        assert of_one["note"].chunks == whole["note"].chunks
        with pytest.raises(BadQuery, match="8 MiB"):
            header.dataset(chunks="much")


def test_cuts_that_are_none_are_refused(db):
    insert_all(db, make_run(10, time=1.76e9))
    insert_all(db, make_run(2, time=1.77e9))
    cuts = [0, -5, 1.5, True, "0 MiB", "-5 MiB", "1e400 MiB", object(), float("nan"), {"time": 0}]
    cuts += [{"time": True}, {"time": (-1, 11)}, {"x": -3}, {"time": 1.5}]
    for chunks in cuts:
        for ask in (db[-2].dataset, db().dataset, db[-2].tree):
            with pytest.raises(BadQuery, match=r"chunks.*MiB"):
                ask(chunks=chunks)
    for chunks in (-1, {"time": -1}, {"time": (0, 10)}, {"time": np.int64(5)}, {"time": None}):
        assert db[-2].dataset(chunks=chunks).compute()["n"].sum() == 135
