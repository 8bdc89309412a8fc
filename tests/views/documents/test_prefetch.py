"""Reading ahead without a cluster: how far, to the end, and nothing is left behind."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import dask
import pytest

import daskbroker
from daskbroker.core.chunks import ChunkReader
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.views.documents.prefetch import Prefetcher
from daskbroker.workers import open_pool

CHUNKS = 40


@dataclass(frozen=True)
class Counted(ChunkReader):
    """Reads as another reader does, and notes what it was asked for."""

    reader: ChunkReader
    asked: list = field(default_factory=list)

    def read(self, key, columns=None):
        self.asked.append(key)
        return self.reader.read(key, columns)

    def read_stored(self, key, columns):
        raise AssertionError


@pytest.fixture
def plan(tmp_path):
    """The plan of a run in forty chunks, with a reader that counts."""
    with (
        dask.config.set({"daskbroker.seal-rows": 10}),
        daskbroker.connect(tmp_path / "store") as db,
    ):
        insert_all(db, make_run(10 * CHUNKS))
        found = db.event_sources["embedded"].store.plan_runs([db[-1].uid]).events
        assert len(found) == CHUNKS
        yield type(found)(
            Counted(found.reader),
            found.descriptors,
            found.schemas,
            found.records,
            found.keys,
            found.store,
        )


def until(true, what):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def settings(plan, chunks):
    """So that reads of one chunk each may hold so many chunks together."""
    size = int(plan.records["bytes"].max())
    return {"daskbroker.prefetch": chunks, "daskbroker.prefetch-bytes": chunks * size}


def test_the_next_chunk_is_read_meanwhile_up_to_the_last(plan):
    """However much was read before: what counts is what is held at a time."""
    asked = plan.reader.asked
    with dask.config.set(settings(plan, 3)), Prefetcher() as ahead:
        for number, table in enumerate(ahead.tables(plan, range(CHUNKS))):
            assert table.column("seq_num")[0].as_py() == 10 * number + 1
            wanted = min(number + 2, CHUNKS)
            until(lambda wanted=wanted: len(asked) >= wanted, f"{number}: nothing is read ahead")
            assert len(asked) <= wanted
    assert len(asked) == CHUNKS


def test_no_more_is_read_ahead_than_may_be_held(plan):
    asked = plan.reader.asked
    with dask.config.set(settings(plan, 1)), Prefetcher() as ahead:
        tables = ahead.tables(plan, range(CHUNKS))
        for number in range(3):
            next(tables)
            time.sleep(0.2)
            assert len(asked) == number + 1


def test_what_is_held_counts_for_all_that_read(plan):
    """Streams that are read together share one bound."""
    asked = plan.reader.asked
    with dask.config.set(settings(plan, 3)), Prefetcher() as ahead:
        first = ahead.tables(plan, range(CHUNKS))
        second = ahead.tables(plan, range(CHUNKS))
        for _ in range(CHUNKS):
            next(first), next(second)
        assert len(list(first)) == len(list(second)) == 0
        assert len(asked) == 2 * CHUNKS
        assert ahead._bytes_in_flight == 0


def test_closing_early_gives_back_what_is_held(plan):
    with dask.config.set(settings(plan, 3)), Prefetcher() as ahead:
        tables = ahead.tables(plan, range(CHUNKS))
        next(tables)
        assert ahead._bytes_in_flight > 0
        tables.close()
        assert ahead._bytes_in_flight == 0


def threads(prefix):
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


@pytest.mark.parametrize("to_the_end", [True, False])
def test_no_thread_is_left(plan, to_the_end):
    ahead = Prefetcher()  # kept, as it may be by a traceback
    with dask.config.set(settings(plan, 3)), ahead:
        tables = ahead.tables(plan, range(CHUNKS))
        next(tables)
        assert len(threads("daskbroker-ahead")) == 1
        if to_the_end:
            assert len(list(tables)) == CHUNKS - 1
    until(lambda: not threads("daskbroker-ahead"), "the thread is still there")
    assert ahead._executor is not None


def test_calls_of_a_pool_end_with_it():
    """Those under way are waited for, the others never begin."""
    done = []

    def work(number):
        time.sleep(0.05)
        done.append(number)

    with dask.config.set(scheduler="threads", num_workers=1):
        with open_pool() as pool:
            futures = [pool.submit("work", work, number) for number in range(50)]
            futures[0].result()
        count = len(done)
        assert not threads("daskbroker-call")
        assert 1 <= count < 10
        time.sleep(0.1)
        assert len(done) == count
        assert all(future.done() for future in futures)


def test_the_executor_of_the_user_goes_on():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as mine, dask.config.set(scheduler=mine):
        with open_pool() as pool:
            assert pool.submit("int", int, "5").result() == 5
        assert mine.submit(int, "6").result() == 6
