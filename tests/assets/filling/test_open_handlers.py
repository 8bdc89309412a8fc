"""Open handlers are shared, bounded, and never closed while they are read."""

from __future__ import annotations

import os
import shutil
import threading

import dask
import h5py
import numpy as np
import pytest

from daskbroker.assets.filling.open_handlers import HandlerCache, open_handlers
from daskbroker.assets.handlers import BlockHandler, Datums
from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames, write_hdf5


class Counts(BlockHandler):
    """Handler that returns how often it was refreshed."""

    built = 0

    def __init__(self, grows: bool = False) -> None:
        self.grows, self.refreshed = grows, 0
        type(self).built += 1

    def read(self, datums, roi=()):
        return np.zeros(len(datums))

    def refresh(self):
        self.refreshed += 1
        return self.grows


def test_the_same_handler_until_it_is_the_oldest(tmp_path):
    handlers = HandlerCache(2)
    a, b = handlers.get("a", "", Counts), handlers.get("b", "", Counts)
    assert handlers.get("a", "", Counts) is a
    handlers.get("c", "", Counts)
    assert len(handlers) == 2
    assert handlers.get("a", "", Counts) is a
    assert handlers.get("b", "", Counts) is not b


def test_size_by_configuration():
    handlers = HandlerCache()
    with dask.config.set({"daskbroker.handler-cache": 3}):
        for key in range(10):
            handlers.get(key, "", Counts)
        assert len(handlers) == 3
    with dask.config.set({"daskbroker.handler-cache": 0}):
        handlers.get(0, "", Counts)
        assert len(handlers) == 0


def test_a_file_that_grew_is_refreshed_and_one_that_was_replaced_is_opened_anew(tmp_path):
    path = tmp_path / "f"
    path.write_text("1")
    for grows in (True, False):
        handlers = HandlerCache(2)
        get = lambda: handlers.get("k", str(path), lambda: Counts(grows))  # noqa: B023, E731
        first = get()
        assert get() is first
        assert first.refreshed == 0
        with path.open("a") as file:
            file.write("more")
        assert (get() is first) is grows
        assert first.refreshed == 1
        second = get()
        (tmp_path / "g").write_text("other")
        (tmp_path / "g").replace(path)
        assert get() is not second
        path.unlink()
        third = get()
        path.write_text("back")
        assert get() is not third


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_HDF5_SWMR"])
def test_a_file_that_is_written_again_in_its_place(tmp_path, reader, spec):
    """By handlers of two datasets: HDF5 keeps what it has read of a file while one has it open."""

    def write(name, names, data):
        for key in names:
            write_hdf5(tmp_path / name, data, key, compression="gzip")
        return tmp_path / name

    path = write("f.h5", "ab", frames(4, (30, 40)))
    shutil.copyfile(path, tmp_path / "linked.h5")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((4, 30, 40), "u2")
        layout[:] = h5py.VirtualSource("linked.h5", "a", (4, 30, 40))
        file.create_virtual_dataset("a", layout)

    def check(data):
        for key, name in (("a", "f.h5"), ("b", "f.h5"), ("a", "virtual.h5")):
            points = [{"point_number": n} for n in range(len(data) if name == "f.h5" else 4)]
            got = reader.resource(spec, tmp_path / name, points, key=key)
            np.testing.assert_array_equal(got[:, 0], data[: len(points)])

    check(frames(4, (30, 40)))
    again = frames(7, (30, 40), start=99)
    other = write("other.h5", "ba", again)
    for name in ("f.h5", "linked.h5"):
        shutil.copyfile(other, tmp_path / name)
    check(again)


def test_rows_of_a_writer_that_ended_while_a_thread_reads(tmp_path, reader):
    """HDF5 opens nothing anew that is open, and shares what it knew of it."""
    path = tmp_path / "f.h5"

    def check(count):
        shutil.copyfile(tmp_path / "written.h5", path)
        points = [{"point_number": n} for n in range(count)]
        got = reader.resource("AD_HDF5_SWMR", path, points, key="d")
        np.testing.assert_array_equal(got[:, 0, 0, 0], range(count))

    with h5py.File(tmp_path / "written.h5", "w", libver="latest") as file:
        rows = file.create_dataset("d", (2, 1, 1), "i4", np.arange(2), maxshape=(None, 1, 1))
        file.swmr_mode = True
        check(2)
        reads = [entry.handler for entry in open_handlers()._entries.values()]
        rows.resize(9, 0)
        rows[:, 0, 0] = range(9)
    check(9)
    assert len(reads) == 1


def test_failing_to_build_keeps_nothing():
    handlers = HandlerCache(2)

    def fail():
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            handlers.get("k", "", fail)
    assert isinstance(handlers.get("k", "", Counts), Counts)


def test_many_threads_build_once():
    handlers, Counts.built = HandlerCache(4), 0
    start, found = threading.Barrier(8), []

    def work():
        start.wait()
        found.append(handlers.get("k", "", Counts))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counts.built == 1
    assert len(set(map(id, found))) == 1


def test_evicting_under_readers(tmp_path, reader):
    """Twelve files in a cache of two, read by eight threads: right values, files closed at last."""
    paths = [write_hdf5(tmp_path / f"{n}.h5", frames(20, start=20 * n)) for n in range(12)]
    errors, most = [], []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for n in rng.integers(0, 12, 60):
                rows = rng.integers(0, 20, 5)
                datums = Datums({"point_number": rows}, 5)
                got = reader.resource("AD_HDF5", paths[n], datums)
                np.testing.assert_array_equal(got[:, 0], frames(20, start=20 * n)[rows])
                most.append(len(open_handlers()))
        except Exception as error:
            errors.append(error)

    with dask.config.set({"daskbroker.handler-cache": 2}):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert max(most) <= 2


def test_a_thousand_files_few_open(tmp_path, reader):
    path = write_hdf5(tmp_path / "0.h5", frames(1))
    for n in range(1, 200):
        os.link(path, tmp_path / f"{n}.h5")
    open_handlers().clear()
    before = len(os.listdir("/proc/self/fd"))
    for n in range(200):
        reader.resource("AD_HDF5", tmp_path / f"{n}.h5", [{"point_number": 0}])
    assert len(os.listdir("/proc/self/fd")) - before <= 64
    assert len(open_handlers()) == 64


def test_one_that_failed_is_not_kept(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(2))
    with pytest.raises(FillError, match="has 2 frames, too few for place 2"):
        reader.resource("AD_HDF5", path, [{"point_number": 2}])
    assert len(open_handlers()) == 0


def test_a_forked_child_opens_its_own(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(3))
    reader.resource("AD_HDF5", path, [{"point_number": 0}])
    mine = open_handlers()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        good = open_handlers() is not mine and len(open_handlers()) == 0
        got = reader.resource("AD_HDF5", path, [{"point_number": 1}])
        good = good and bool((got[0, 0] == frames(3)[1]).all())
        os.write(write, b"y" if good else b"n")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"y"
    os.close(read), os.close(write)
    assert open_handlers() is mine
    got = reader.resource("AD_HDF5", path, [{"point_number": 2}])
    np.testing.assert_array_equal(got[0, 0], frames(3)[2])
