"""Tables and datasets on workers: what travels, what is shared, what survives."""

from __future__ import annotations

import pickle
import shutil
import threading
import time
from pathlib import Path

import cloudpickle
import dask
import numpy as np
import pytest

import daskbroker
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.times import check_time_index
from daskbroker.views.table.dask_methods import shuffle_options

CHUNKS = 80


@pytest.fixture
def many_chunks(tmp_path):
    """A stopped run of 80 chunks of 10 events each; a partition is a chunk."""
    settings = {"daskbroker.seal-rows": 10, "daskbroker.partition-size": 1}
    with dask.config.set(settings), daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, make_run(10 * CHUNKS))
        yield db


def cut_dataset(header):
    """A Dataset of which nothing but coordinates is in memory."""
    with dask.config.set({"daskbroker.loaded-size": 0}):
        return header.dataset()


def in_graph(collection):
    """Bytes of the graph that goes to the scheduler."""
    return len(cloudpickle.dumps(collection.__dask_graph__()))


def test_a_table_on_workers(many_chunks, client):
    table = many_chunks[-1].table()
    assert table.npartitions == CHUNKS
    with dask.config.set(scheduler="synchronous"):
        expected = table.compute()
    assert table.compute().equals(expected)
    assert len(table) == len(expected)
    assert table["x"].sum().compute() == pytest.approx(expected["x"].sum())
    assert table.loc[15:25].compute().equals(expected.loc[15:25])


def test_a_time_index_on_workers(many_chunks, client):
    insert_all(many_chunks, make_run(50))
    check_time_index(many_chunks().table("primary")[["time", "x", "n"]], np.random.default_rng(1))
    one = pickle.loads(pickle.dumps(many_chunks[-1].table())).repartition(npartitions=1)
    indexed = one.persist().set_index("time")
    counted = indexed["x"].resample("1s").count().compute()
    assert counted.tolist() == one.compute().set_index("time")["x"].resample("1s").count().tolist()


def test_divisions_that_must_be_computed(many_chunks, client):
    """With a scheduler in this process, Dask waits for ever on Python 3.11."""
    table = many_chunks[-1].table()
    with dask.config.set(scheduler="synchronous"):
        whole = table.compute()
    expected = whole.assign(v=whole["x"].cumsum()).set_index("time")["v"].resample("1s").count()
    found = []

    def count():
        for made in (table["x"].cumsum(), table["x"].ffill().cumsum()):
            indexed = table.assign(v=made).set_index("time")
            found.append(indexed["v"].resample("1s").count().compute().tolist())
        found.append(table.assign(v=table["x"].cumsum()).set_index("n").loc[3:5].compute())

    waiting = threading.Thread(target=count, daemon=True)
    waiting.start()
    waiting.join(120)
    assert not waiting.is_alive()
    assert found[:2] == [expected.tolist()] * 2
    assert len(found[2]) == int(whole["n"].between(3, 5).sum())


def test_images_and_mixed_cells_are_shuffled(many_chunks, client):
    """Which Arrow, by which Dask transfers rows on a cluster, has no type of."""
    images = [(np.arange(4).reshape(2, 2) + number).tolist() for number in range(40)]
    keys = {"k": [number % 5 for number in range(40)], "img": images, "odd": [1, "a"] * 20}
    insert_all(many_chunks, make_run(keys=keys))
    table = many_chunks[-1].table()
    assert table.npartitions > 1
    whole = table.compute()
    by_k = table.set_index("k").compute()
    assert sorted(map(str, by_k["img"])) == sorted(map(str, whole["img"]))
    assert by_k["odd"].tolist().count("a") == 20
    both = table[["k", "odd", "img"]].merge(table[["k"]].drop_duplicates(), on="k").compute()
    assert sorted(both["k"]) == sorted(whole["k"])
    assert both["img"].iloc[0].dtype == whole["img"].iloc[0].dtype
    assert len(table.shuffle("k").compute()) == 40
    assert table.sort_values("k").compute()["k"].tolist() == sorted(whole["k"])
    with dask.config.set(
        {"dataframe.shuffle.method": "p2p"}
    ):  # chosen by the user, and so it fails
        assert shuffle_options(table) == {}
    assert shuffle_options(table[["k"]]) == {}


def test_client_and_workers_have_the_same_zone(tmp_path, client):
    with daskbroker.connect(tmp_path / "store", timezone="Asia/Tokyo") as db:
        insert_all(db, make_run(3))
        assert daskbroker.connect(tmp_path / "store") is not db
        for thing in (db, db[-1], db[-1].portable()):
            zone = client.submit(lambda it: getattr(it, "db", it).timezone, thing, pure=False)
            assert zone.result() == "Asia/Tokyo"
        assert next(iter(db().map(repr))).result() == repr(db[-1])


def test_a_dataset_on_workers(many_chunks, client):
    dataset = cut_dataset(many_chunks[-1])
    with dask.config.set(scheduler="synchronous"):
        expected = dataset.compute()
    assert dataset.compute().identical(expected)
    both = cut_dataset(many_chunks())
    assert both.drop_vars("run").compute()["x"].identical(expected["x"])


def test_sizes_of_graphs_and_pickles(many_chunks):
    # Small chunks are moved from SQLite into packs when there are 4 MiB of them.
    pack_small_chunks(many_chunks.header_source.store._database)
    header = many_chunks[-1]
    table, dataset = header.table(), cut_dataset(header)
    assert len(pickle.dumps(table)) < 2048 * CHUNKS
    assert len(pickle.dumps(dataset["x"])) < 2048 * CHUNKS
    assert in_graph(table.optimize()) < 2048 * CHUNKS
    assert in_graph(dataset["x"].data) < 2048 * CHUNKS
    assert in_graph(dataset[["x", "y", "n"]]) < 2048 * CHUNKS
    task = next(iter(dict(table.optimize().__dask_graph__()).values()))
    assert len(cloudpickle.dumps(task)) < 2048


def test_the_same_table_twice_is_one_computation(many_chunks, client):
    first, again = many_chunks[-1].table(), many_chunks[-1].table()
    assert first.dask.keys() == again.dask.keys()
    futures = client.compute(first), client.compute(again)
    assert futures[0].key == futures[1].key
    datasets = cut_dataset(many_chunks[-1]), cut_dataset(many_chunks[-1])
    keys = [set(dict(dataset["x"].data.dask)) for dataset in datasets]
    assert keys[0] == keys[1]
    assert futures[0].result().equals(futures[1].result())


def test_a_header_sent_a_thousand_times_is_one_broker(runs, client):
    header = next(iter(runs))
    text = pickle.dumps([pickle.dumps(header)] * 1000)

    def open_all(text):
        import pickle

        from daskbroker.core import open_brokers

        before = set(open_brokers._brokers)  # those of other tests
        headers = [pickle.loads(one) for one in pickle.loads(text)]
        lengths = {len(headers[0].table().compute(scheduler="synchronous"))}
        return len({id(h.db) for h in headers}), len(set(open_brokers._brokers) - before), lengths

    future = client.submit(open_all, text, pure=False)
    assert future.result() == (1, 1, {20})


def test_threads_of_a_worker_share_one_broker(runs, client):
    headers = list(runs)

    def use(header):
        return id(header.db), len(header.table().compute(scheduler="synchronous"))

    address = next(iter(client.nthreads()))
    futures = client.map(use, headers * 5, pure=False, workers=[address])
    found = client.gather(futures)
    assert {count for _, count in found} == {20}
    assert len({identity for identity, _ in found}) == 1


def test_workers_killed_during_a_table(many_chunks, client, kill_worker):
    def slow(part):
        import time

        time.sleep(0.02)
        return part

    table = many_chunks[-1].table()
    with dask.config.set(scheduler="synchronous"):
        expected = table.compute()
    killers = [threading.Timer(delay, kill_worker) for delay in (0.3, 1.2)]
    for killer in killers:
        killer.start()
    found = table.map_partitions(slow, meta=table._meta).compute()
    for killer in killers:
        killer.join()
    assert found.equals(expected)


def test_workers_killed_during_a_map(runs, client, kill_worker):
    def slow(header):
        import time

        time.sleep(0.2)
        return float(header.table().compute(scheduler="synchronous")["x"].sum())

    killers = [threading.Timer(delay, kill_worker) for delay in (0.2, 0.8)]
    for killer in killers:
        killer.start()
    found = [(o.header.start["number"], o.result()) for o in runs.map(slow)]
    for killer in killers:
        killer.join()
    assert sorted(found) == [(number, pytest.approx(190 + number)) for number in range(10)]


def test_a_folder_that_workers_do_not_see(many_chunks, client):
    pack_small_chunks(many_chunks.header_source.store._database)
    header = many_chunks[-1]
    table, dataset = pickle.loads(pickle.dumps((header.table(), cut_dataset(header))))
    pickled = pickle.dumps(header)
    folder = many_chunks.uri
    hidden = folder + "-hidden"
    shutil.move(folder, hidden)
    try:
        begin = time.monotonic()
        for collection in (table, dataset):
            with pytest.raises(FileNotFoundError, match="all see it under the same path") as error:
                collection.compute()
            assert folder in str(error.value)
            assert "worker tcp://" in str(error.value)
        future = client.submit(pickle.loads, pickled, pure=False)
        with pytest.raises(FileNotFoundError, match=r"no daskbroker store at .* worker tcp://"):
            future.result()
        assert time.monotonic() - begin < 10
    finally:
        shutil.move(hidden, folder)


def test_a_lost_file_is_not_taken_for_a_lost_folder(many_chunks, client):
    pack_small_chunks(many_chunks.header_source.store._database)
    table = many_chunks[-1].table()
    for file in Path(many_chunks.uri).rglob("pack-*"):
        file.unlink()
    with pytest.raises(
        daskbroker.DaskbrokerError, match=r"pack-\w+.arrow is missing .* worker tcp"
    ):
        table.compute()
