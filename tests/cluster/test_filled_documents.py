"""Documents that workers fill: as without workers, some blocks ahead within bounds."""

from __future__ import annotations

import shutil
import time

import dask
import numpy as np
import pytest

import daskbroker
from daskbroker.core.errors import FillError, this_worker
from daskbroker.testing import interleave, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import (
    Squares,
    Tables,
    datum_run,
    filled_cells,
    image_claim,
    squares,
    squares_run,
    stacked,
    stream_run,
)
from daskbroker.testing.runs import RunBuilder

FRAME = 6 * 8 * 8
"""Bytes of one of :class:`Squares`."""

EACH_ALONE = {"daskbroker.prefetch": 4, "daskbroker.prefetch-bytes": 4}
"""Every event in a block of its own."""


class OnWorkers(Squares):
    """Handler of files that only workers can see."""

    def __call__(self, n):
        if this_worker() is None:
            raise FileNotFoundError("not here")
        return super().__call__(n)


@pytest.fixture(params=["embedded", "mongodb"])
def broker(request, tmp_path):
    place = (
        tmp_path / "store"
        if request.param == "embedded"
        else request.getfixturevalue("mongo_database")
    )
    with daskbroker.connect(place) as found:
        yield found


def locally(documents):
    with dask.config.set(scheduler="synchronous"):
        return list(documents())


def same(documents, expected):
    """Compare values that may be arrays."""
    found = list(documents)
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, doc), (_, wanted) in zip(found, expected, strict=True):
        assert doc.keys() == wanted.keys()
        data, wanted_data = doc.get("data", {}), wanted.get("data", {})
        assert data.keys() == wanted_data.keys()
        for key, cell in data.items():
            assert type(cell) is type(wanted_data[key])
            np.testing.assert_array_equal(cell, wanted_data[key])
        assert {**doc, "data": {}} == {**wanted, "data": {}}
    return True


def mixed_run(folder):
    """A run with references, filled values, frames of a stream and events without a frame."""
    docs, _ = datum_run(folder, 6)
    events = [doc for name, doc in docs if name == "event"]
    events[1]["data"]["img"] = np.full((1, 6, 8), 7, "u2")
    events[1]["filled"]["img"] = True
    events[4]["data"]["img"] = None
    return docs


RUNS = {"datum": datum_run, "stream": stream_run, "mixed": mixed_run}


@pytest.mark.parametrize("settings", [{}, EACH_ALONE], ids=["as it comes", "each alone"])
@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_the_same_documents_as_without_workers(broker, tmp_path, client, make, settings):
    docs = make(tmp_path)
    insert_all(broker, docs if isinstance(docs, list) else docs[0])
    header = broker[-1]
    for documents in (
        header.documents,
        lambda: header.documents(fields=["img"]),
        lambda: header.stream("primary"),
    ):
        expected = locally(documents)
        with dask.config.set(settings):
            assert same(documents(), expected)


def test_only_workers_see_the_files(broker, client):
    insert_all(broker, squares_run(12))
    broker.register_handler("SQUARES", OnWorkers)
    with dask.config.set(EACH_ALONE):
        np.testing.assert_array_equal(stacked(filled_cells(broker[-1])), squares(12))


def test_a_run_that_is_not_sealed(broker, client):
    insert_all(broker, squares_run(12)[:-1])
    broker.register_handler("SQUARES", OnWorkers)
    np.testing.assert_array_equal(stacked(filled_cells(broker[-1])), squares(12))


def test_cells_that_are_no_arrays(broker, client):
    docs = squares_run(3, shape=[1])
    (resource,) = (doc for name, doc in docs if name == "resource")
    resource["resource_kwargs"] = {}
    insert_all(broker, docs)
    broker.register_handler("SQUARES", Tables)
    cells = filled_cells(broker[-1])
    assert [cell[0]["n"].tolist() for cell in cells] == [[0, 1], [1, 2], [2, 3]]


def test_many_runs(broker, tmp_path, client):
    runs = []
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        runs.append((datum_run, stream_run)[number % 2](folder, 3)[0])
        runs.append(make_run(3))
    insert_all(broker, interleave(*runs))
    expected = locally(lambda: broker().documents())
    assert same(broker().documents(), expected)
    with dask.config.set(EACH_ALONE):
        assert same(broker().documents(), expected)


# -- how far ahead ---------------------------------------------------------------------------


def reads(client):
    """Return the number of blocks that the workers have read or are reading, as they count them."""
    return sum(client.run(lambda: __import__("builtins").__dict__.get("squares_read", 0)).values())


class Counted(Squares):
    def __call__(self, n):
        import builtins

        builtins.squares_read = getattr(builtins, "squares_read", 0) + 1
        return super().__call__(n)


def test_some_blocks_ahead_and_no_more(db, client):
    insert_all(db, squares_run(60))
    header = db[-1]
    before = reads(client)
    settings = {"daskbroker.prefetch": 6, "daskbroker.prefetch-bytes": 6 * 5 * FRAME}
    with dask.config.set(settings):
        documents = header.documents(handler_registry={"SQUARES": Counted})
        given = 0
        while given < 40:
            given += next(documents)[0] == "event"
            if given % 8 == 0:
                time.sleep(0.1)
                assert reads(client) - before <= given + 6 * 5 + 5
        assert reads(client) - before >= 45
        documents.close()


def test_tasks_have_short_names(db, client):
    insert_all(db, squares_run(12))
    settings = {"daskbroker.prefetch": 4, "daskbroker.prefetch-bytes": 4 * FRAME}
    with dask.config.set(settings):  # so that there are tasks ahead of what is given
        documents = db[-1].documents(handler_registry={"SQUARES": Counted})
        while next(documents)[0] != "event":
            pass
        keys = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
        documents.close()
    assert keys
    assert {dask.utils.key_split(key) for key in keys} == {"daskbroker-fill"}


def test_closing_early_cancels(db, client):
    class Slow(Squares):
        def __call__(self, n):
            time.sleep(0.05)
            return super().__call__(n)

    insert_all(db, squares_run(40))
    with dask.config.set(EACH_ALONE):
        documents = db[-1].documents(handler_registry={"SQUARES": Slow})
        while next(documents)[0] != "event":
            pass
        documents.close()
    deadline = time.monotonic() + 10
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline, "tasks are left on the scheduler"
        time.sleep(0.05)


def test_references_that_are_not_sealed_go_with_the_tasks(db, client):
    """Of an open run."""
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(dtype_numpy="<f8")})
    resource = run.resource("SQUARES", root="/", resource_path="", resource_kwargs={"scale": 2.0})
    for place in range(3000):
        run.event(descriptor, {"img": run.datum(resource, n=place, note="x" * 500)})
    insert_all(db, run.documents)
    settings = {"daskbroker.prefetch": 4, "daskbroker.prefetch-bytes": 4 * 100 * FRAME}

    class Noted(Squares):
        def __call__(self, n, note):
            return super().__call__(n)

    with dask.config.set(settings):
        documents = db[-1].documents(handler_registry={"SQUARES": Noted})
        assert sum(1 for name, _ in documents if name == "event") == 3000


# -- what fails ------------------------------------------------------------------------------


def test_a_file_that_is_gone_is_an_error_of_its_first_event(broker, tmp_path, client):
    docs, _ = datum_run(tmp_path)
    insert_all(broker, docs)
    shutil.move(tmp_path / "a.h5", tmp_path / "b.h5")
    documents = broker[-1].documents()
    assert [next(documents)[0] for _ in range(3)] == ["start", "resource", "datum"]
    with pytest.raises(FillError, match=r"a\.h5.*no such file"):
        list(documents)


def test_a_worker_that_dies_is_replaced(db, client, kill_worker):
    class Slow(Squares):
        def __call__(self, n):
            time.sleep(0.02)
            return super().__call__(n)

    insert_all(db, squares_run(60))
    cells = []
    with dask.config.set(EACH_ALONE):
        for name, doc in db[-1].documents(handler_registry={"SQUARES": Slow}):
            if name == "event":
                cells.append(doc["data"]["img"])
                if len(cells) in (10, 40):
                    kill_worker()
    np.testing.assert_array_equal(stacked(cells), squares(60))
