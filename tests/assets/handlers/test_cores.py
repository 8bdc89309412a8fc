"""Work divided among idle cores: all of it is done once, errors come out, no core is shared."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dask import config

from daskbroker.assets.handlers import cores
from daskbroker.assets.handlers.cores import divide, most_threads
from daskbroker.core.errors import ConfigError


@pytest.fixture(autouse=True)
def four_threads():
    with config.set({"daskbroker.decode-threads": 4}):
        yield
    assert cores._helpers._busy == 0


class Watched:
    """Work that records which thread did what, and how many worked at once."""

    def __init__(self, seconds=0.005):
        self.done, self.threads, self.counts, self.now = [], set(), [], 0
        self.lock, self.seconds = threading.Lock(), seconds

    @property
    def most(self):
        return max(self.counts, default=0)

    def __call__(self, item):
        with self.lock:
            self.now += 1
            self.counts.append(self.now)
            self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
            self.done.append(item)


def test_everything_is_done_once_by_several_threads():
    work = Watched()
    divide(work, range(40))
    assert sorted(work.done) == list(range(40))
    assert 1 < work.most <= 4
    assert threading.get_ident() in work.threads


@pytest.mark.parametrize("items", [0, 1, 5])
def test_alone(items):
    work = Watched()
    divide(work, range(items), alone=True)
    assert work.done == list(range(items))
    assert work.most <= 1


def test_calls_side_by_side_share_the_cores():
    """Four calls on four cores: nobody helps, or not for long."""
    work, together = Watched(), threading.Barrier(4)

    def call(_):
        together.wait()
        divide(work, range(30))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert len(work.done) == 120
    assert statistics.median(work.counts) <= 4


def test_a_call_gets_the_cores_of_those_that_end():
    """It begins when all four cores are taken."""
    work, release = Watched(), threading.Event()
    held = threading.Barrier(5)

    def hold(_):
        held.wait()
        release.wait()

    def call(item):
        if len(work.done) == 10:
            assert len(work.threads) == 1
            release.set()
        work(item)

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(divide, hold, range(2)) for _ in range(2)]
        held.wait()
        divide(call, range(80))
        for other in others:
            other.result()
    assert sorted(work.done) == list(range(80))
    assert 1 < len(work.threads) <= 4


@pytest.mark.parametrize("bad", [0, 7, 39])
def test_an_error_ends_it(bad):
    done = []

    def work(item):
        if item == bad:
            raise ValueError(f"item {item}")
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match=f"item {bad}"):
        divide(work, range(40))
    count = len(done)
    time.sleep(0.05)
    assert len(done) == count  # nobody goes on


def test_a_forked_child_has_helpers_of_its_own():
    divide(Watched(), range(8))  # threads are there
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        work = Watched()
        divide(work, range(20))
        os.write(writing, f"{len(work.done)} {work.most > 1}".encode())
        os._exit(0)
    assert os.read(reading, 20) == b"20 True"
    os.waitpid(child, 0)
    os.close(reading), os.close(writing)


def _told():
    return most_threads()


def test_how_many_threads():
    assert most_threads() == 4
    with config.set({"daskbroker.decode-threads": 0, "num_workers": 3}):
        assert most_threads() == 3
    with config.set({"daskbroker.decode-threads": 0}):
        assert most_threads() == cores.CPU_COUNT
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_told) == 1  # there are as many processes as cores
    with (
        config.set({"daskbroker.decode-threads": "many"}),
        pytest.raises(ConfigError, match="decode-threads"),
    ):
        most_threads()
