"""Filling where workers are processes of their own."""

from __future__ import annotations

import pickle
import threading
import time
import warnings

import dask
import numpy as np
import pytest

from daskbroker.assets.peek import on_workers
from daskbroker.core.errors import ClaimWarning, FillError
from daskbroker.testing.base import insert_all
from daskbroker.testing.claim_runs import LEGACY, claim_run_of_squares, run_of_parts
from daskbroker.testing.conformance.filling_extra import datum_run_of
from daskbroker.testing.detector_runs import Squares, datum_run, squares, squares_run, stream_run
from daskbroker.testing.files import frames

BLOCK = {"daskbroker.partition-size": 400}  # bytes: four frames


@pytest.fixture(params=[datum_run, stream_run], ids=["datum", "stream"])
def header_and_frames(request, db, tmp_path):
    docs, data = request.param(tmp_path, 40)
    insert_all(db, docs)
    return db[-1], data.reshape(40, 1, 6, 8)


def test_tables_and_datasets(header_and_frames, client):
    header, data = header_and_frames
    with dask.config.set(BLOCK):
        table, dataset = header.table(), header.dataset()
    assert table.npartitions >= 10
    np.testing.assert_array_equal(np.stack(table.compute()["img"].tolist()), data)
    np.testing.assert_array_equal(dataset["img"].values, data)
    np.testing.assert_allclose(dataset["img"].mean("time").values, data.mean(0))
    np.testing.assert_array_equal(dataset["img"][:, 0, 2, 1:7].values, data[:, 0, 2, 1:7])


def test_workers_fill_without_opening_the_store(header_and_frames, client):
    header, data = header_and_frames

    def opened(header):
        from daskbroker.stores.embedded import database

        image = header.dataset(chunks=None)["img"].values
        return int(image.sum()), len(database._open)

    (outcome,) = header.db().map(opened)
    assert outcome.result() == (int(data.sum()), 0)


def test_registered_handlers_travel_by_reference(db, client):
    insert_all(db, squares_run(12))
    db.register_handler("SQUARES", Squares)
    header = db[-1]
    parts = header.table().expr.operand("parts")
    sent = pickle.dumps(parts.payload(0))
    assert b"daskbroker.testing.detector_runs:Squares" in sent
    np.testing.assert_array_equal(np.stack(header.table().compute()["img"].tolist()), squares(12))
    (outcome,) = db().map(lambda header: header.dataset(chunks=None)["img"].values)
    np.testing.assert_array_equal(outcome.result(), squares(12))


def test_a_handler_that_no_module_has_travels_by_value(db, client):
    class Cubes(Squares):
        def __call__(self, n):
            return super().__call__(n) * n

    insert_all(db, squares_run(4))
    table = db[-1].table(handler_registry={"SQUARES": Cubes}).compute()
    assert [cell[0, 0] for cell in table["img"]] == [2.0 * n**3 for n in range(4)]


def test_a_missing_file_is_an_error_at_once(db, tmp_path, client):
    docs, _ = datum_run(tmp_path)
    (tmp_path / "a.h5").unlink()
    insert_all(db, docs)
    begin = time.monotonic()
    with pytest.raises(FillError, match=r"a\.h5"):
        db[-1].table().compute()
    assert time.monotonic() - begin < 2
    assert len(db[-1].table()[["x"]].compute()) == 5


class OnWorkers(Squares):
    """Handler of files that only workers can see."""

    def __call__(self, n):
        from daskbroker.core.errors import this_worker

        if this_worker() is None:
            raise FileNotFoundError("not here")
        return super().__call__(n).astype("f4")


def test_files_that_only_workers_see(db, client):
    docs = claim_run_of_squares()
    insert_all(db, docs)
    db.register_handler("SQUARES", OnWorkers)
    header = db[-1]
    image, table = header.dataset()["img"], header.table()
    assert (image.dtype, image.shape) == (np.float32, (4, 6, 8))
    values = image.values
    assert values.dtype == np.float32
    assert values[3, 0, 0] == 9
    assert {cell.dtype for cell in table.compute()["img"]} == {np.dtype("f4")}
    with dask.config.set(scheduler="synchronous"):  # it is remembered
        assert header.dataset()["img"].dtype == np.float32


def test_workers_that_have_no_time_to_look(db, client, monkeypatch):
    """Opening does not wait for ever."""
    monkeypatch.setattr(on_workers, "SECONDS", 0.5)
    insert_all(db, claim_run_of_squares())
    db.register_handler("SQUARES", OnWorkers)
    busy = client.map(time.sleep, [4.0] * 4, pure=False)
    time.sleep(0.5)
    begin = time.monotonic()
    with pytest.warns(ClaimWarning, match="dtypes="):
        image = db[-1].dataset()["img"]
    assert time.monotonic() - begin < 3
    assert image.dtype == object
    client.cancel(busy)


def test_workers_warn_the_client_of_frames_in_no_event(db, tmp_path, client):
    docs, data = datum_run_of(tmp_path, (1, 6, 8), 8, dtype_numpy="<u2")
    insert_all(db, docs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(db[-1].dataset()["img"].values[:, 0], data[:4])
        end = time.monotonic() + 20
        while not caught and time.monotonic() < end:
            time.sleep(0.05)
    (message,) = {str(one.message) for one in caught if one.category is ClaimWarning}
    assert "a.h5': the file has 8 frames, but the documents of the run refer to 4" in message


def test_what_workers_find_to_differ_is_known_to_the_client(db, tmp_path, client):
    parts = [frames(2, (6, 8), dtype, start=2 * n) for n, dtype in enumerate(("u1", "u4", "u1"))]
    insert_all(db, run_of_parts(tmp_path, parts, [1, 6, 8], **LEGACY))
    header = db[-1]
    with dask.config.set(BLOCK), pytest.raises(FillError, match="uint32"):
        header.dataset()["img"].compute()
    image = header.dataset()["img"]
    assert image.dtype == np.uint32
    np.testing.assert_array_equal(image.values[:, 0], np.concatenate(parts))


def test_a_worker_that_dies_while_filling(db, client, kill_worker):
    class Slow(Squares):
        def __call__(self, n):
            time.sleep(0.02)
            return super().__call__(n)

    insert_all(db, squares_run(80))
    with dask.config.set({"daskbroker.partition-size": 384 * 4}):
        image = db[-1].dataset(handler_registry={"SQUARES": Slow})["img"]
    assert len(image.chunks[0]) == 20
    killer = threading.Timer(0.4, kill_worker)
    killer.start()
    try:
        np.testing.assert_array_equal(image.values, squares(80))
    finally:
        killer.join()
