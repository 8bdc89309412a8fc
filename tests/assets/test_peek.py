"""Shape and dtype from files: which process looks when, and where the result is stored."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time

import dask
import numpy as np
import pytest

import daskbroker
from daskbroker.assets.filling import knowledge
from daskbroker.assets.filling.knowledge import UnforeseenCells, cells_noted, known_of
from daskbroker.assets.peek import background, groups
from daskbroker.assets.peek.background import BackgroundPeeker
from daskbroker.assets.references.locating import References
from daskbroker.core.bounded_dict import BoundedDict
from daskbroker.core.errors import BadQuery
from daskbroker.core.peeks import Cell, ExtraFrames, Peek, claim_sort
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.claim_runs import LEGACY, claim_run
from daskbroker.testing.detector_runs import SHAPE
from daskbroker.testing.files import frames, write_hdf5

pytestmark = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")

U2 = np.dtype("u2")
FRAMES = (Cell((1, 6, 8), U2),)
STRUCTURED = np.dtype([("a", "<u2"), ("b", [("c", "<f4"), ("d", "u1", (2, 3))])])


def peek(run="r", key="img", **more):
    facts = {"sort": "s", "spec": "AD_HDF5", "handler": "h", "rows": 3, "cells": FRAMES}
    return Peek(run, f"d-{run}", key, **{**facts, **more})


# -- as it is stored -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        (Cell((1, 6, 8), U2),),
        (Cell((), np.dtype(float)), Cell((3,), np.dtype(bool))),
        (Cell(None, np.dtype(object)),),
        (Cell((2,), STRUCTURED),),
        (Cell((2,), np.dtype("U5")), Cell((2,), np.dtype("S3"))),
    ],
)
def test_a_peek_as_text(cells):
    one = peek(cells=cells, files=(("/a/ö.h5", 2**40, 2**62),))
    again = Peek.of_body(one.run, one.descriptor, one.key, one.sort, one.body())
    assert again == one


def test_frames_in_no_event_as_text():
    one = peek(extra=(ExtraFrames("/a/ö.h5", 8, 4, "multiplier", 2), ExtraFrames("/b", 5, 4)))
    assert Peek.of_body(one.run, one.descriptor, one.key, one.sort, one.body()) == one
    assert "extra" not in peek().body()


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"cells": 3}', "null"])
def test_a_peek_that_makes_no_sense_is_none(body):
    assert Peek.of_body("r", "d", "k", "s", body) is None


def test_sorts():
    claim = {"dtype": "array", "shape": [1, 6, 8], "source": "PV:a"}
    sort = claim_sort(["A"], "img", claim)
    assert claim_sort(["A", "A"], "img", {**claim, "source": "PV:b", "precision": 3}) == sort
    others = [
        claim_sort(["B"], "img", claim),
        claim_sort(["A"], "other", claim),
        claim_sort(["A"], "img", {**claim, "shape": [1, 6, 9]}),
        claim_sort(["A"], "img", {**claim, "dtype_numpy": "<u2"}),
    ]
    assert len({sort, *others}) == 5


def test_an_error_notes_what_was_found_wherever_it_is_unpickled():
    place, cell = ("store", "descriptor", os.urandom(4).hex()), Cell((2, 3), U2)
    sent = pickle.dumps(UnforeseenCells("message", place, cell))
    knowledge._noted.pop(place)
    assert cells_noted(place) == ()
    error = pickle.loads(sent)
    assert str(error) == "message"
    assert cells_noted(place) == (cell,)


def test_a_full_claim_is_the_same_whether_somebody_has_looked_or_not():
    claim = {"dtype": "array", "shape": [6, 8], "dtype_numpy": "<u2"}
    cell = Cell((1, 6, 8), U2)
    assert known_of(claim, [cell]).declared.shape == (6, 8)
    assert not known_of(claim, [cell]).wrong
    asked = known_of(claim, [cell], asked=True)
    assert asked.declared.shape == (1, 6, 8)
    assert "(1, 6, 8)" in asked.wrong


# -- stores ----------------------------------------------------------------------------------


def events_of(broker):
    (source,) = broker.event_sources
    return source.store


@pytest.fixture(params=["embedded", "mongodb"])
def place(request, tmp_path):
    if request.param == "embedded":
        return tmp_path / "store"
    return request.getfixturevalue("mongo_database")


def test_stores_keep_peeks(place):
    odd = "r\udc80"
    some = [peek("a"), peek("b", sort="t"), peek(odd), peek("a", key="k y", rows=5)]
    with daskbroker.connect(place) as db:
        store = events_of(db)
        assert store.list_peeks(["a"]) == store.find_peeks(["s"]) == []
        store.put_peeks(some)
        store.put_peeks([peek("b", sort="t", rows=7)])
    with daskbroker.connect(place, mode="r") as db:
        store = events_of(db)
        assert sorted(p.key for p in store.list_peeks(["a"])) == ["img", "k y"]
        assert store.list_peeks(["b", "c"]) == [peek("b", sort="t", rows=7)]
        assert [p.run for p in store.list_peeks([odd])] == [odd]
        assert sorted(p.sort for p in store.find_peeks(["s", "t", "u"])) == ["s", "t"]
        store.put_peeks([peek("z")])
        assert store.list_peeks(["z"]) == []


def test_a_store_that_may_only_be_read_stays_as_it_is(place, tmp_path):
    docs, data = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
    with daskbroker.connect(place) as db:
        insert_all(db, docs)
    with daskbroker.connect(place, mode="r") as reader:
        image = reader[-1].dataset()["img"]
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image.values, data[:, None])
        assert events_of(reader).list_peeks([docs[0][1]["uid"]]) == []


def test_two_clients_give_tasks_the_same_names(place, tmp_path):
    docs, _ = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
    names = set()
    for mode in (None, None, "r"):
        with daskbroker.connect(place, mode=mode) as db:
            if mode is None:
                insert_all(db, docs)
            names.add((db[-1].table()._name, db[-1].dataset()["img"].data.name))
    assert len(names) == 1


def test_opening_runs_makes_the_references_of_none(db, tmp_path, monkeypatch):
    """Thousands of them would take a third of the time, and start the garbage collector."""
    monkeypatch.setattr(knowledge, "_noted", BoundedDict())  # other tests leave what they found
    for name in "abc":
        folder = tmp_path / name
        folder.mkdir()
        insert_all(db, claim_run(folder, [1, *SHAPE])[0])
    db.peek(db[-1])

    def references():
        return {id(one) for one in gc.get_objects() if type(one) is References}

    before = references()
    table = db().table()
    assert references() <= before
    assert len(table.compute()) == 12


def test_events_that_hold_values_are_read_once_to_find_no_reference(db, monkeypatch):
    run = RunBuilder()
    image = {"source": "x", "dtype": "array", "shape": [], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": image})
    run.event(descriptor, {"img": [[1.5]]}, filled={"img": True})
    insert_all(db, run.stop())
    read, contents = [], groups._contents
    monkeypatch.setattr(groups, "_contents", lambda *args: read.append(args) or contents(*args))
    assert db[-1].dataset()["img"].values[0].tolist() == [[1.5]]
    assert len(read) == 1


def test_a_lost_file_that_comes_later_is_looked_into(db, tmp_path):
    """Its cells differ, which would be an error if the first file alone was known."""
    run = RunBuilder()
    image = {"source": "x", "dtype": "array", "shape": [], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": image})
    for number in range(2):
        resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path=f"{number}.h5")
        datum = run.datum(resource, point_number=0)
        run.event(descriptor, {"img": datum}, filled={"img": False})
    insert_all(db, run.stop())
    write_hdf5(tmp_path / "0.h5", frames(1, SHAPE))
    assert db[-1].dataset(missing="drop")["img"].shape == (1, 1, *SHAPE)
    write_hdf5(tmp_path / "1.h5", frames(1, SHAPE).astype("f4") + 0.5)
    image = db[-1].dataset()["img"]
    assert image.dtype == np.float32
    assert image.values[1, 0, 0, 0] % 1 == 0.5


def test_a_mode_that_makes_no_sense(db, tmp_path):
    insert_all(db, claim_run(tmp_path, [1, *SHAPE])[0])
    with pytest.raises(BadQuery, match="peek"):
        db[-1].dataset(peek="all")


def test_other_keys_are_left_alone(db, tmp_path):
    """No file is opened for a column that nobody has asked for."""
    docs, _ = claim_run(tmp_path, [], **LEGACY)
    insert_all(db, docs)
    (tmp_path / "a.h5").unlink()
    assert db[-1].dataset(fields=["x"])["x"].shape == (4,)
    assert db[-1].table(fields=["x"]).compute()["x"].tolist() == [0.0, 0.5, 1.0, 1.5]


def test_cells_are_met_while_only_a_part_is_read(db, tmp_path):
    """A file that was replaced after the dataset was opened."""
    docs, _ = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
    insert_all(db, docs)
    image = db[-1].dataset()["img"]
    for dtype, shape in (("<f4", SHAPE), ("<u2", (8, 6)), ("<u2", (6, 10))):
        (tmp_path / "a.h5").unlink()
        claim_run(tmp_path, [], data=frames(4, shape, dtype))
        with pytest.raises(UnforeseenCells, match=str(np.dtype(dtype))):
            image[:2, 0, 1, 2:4].compute()


# -- in the background -----------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(background, "QUIET_SECONDS", 0.05)


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_newest_is_looked_into_first_and_errors_stop_nothing(quick):
    seen = []

    def look(run):
        seen.append(run)
        raise OSError(run)

    peeker = BackgroundPeeker(look)
    for run in "abc":
        peeker.add(run)
    wait_until(lambda: len(seen) == 3)
    assert seen == ["c", "b", "a"]
    wait_until(lambda: peeker._thread is None)
    peeker.add("d")
    wait_until(lambda: seen[-1] == "d")


def test_nothing_begins_while_runs_stop_one_after_the_other(quick):
    seen = []
    peeker = BackgroundPeeker(seen.append)
    times = [time.monotonic()] * 2
    while not seen and times[-1] < times[0] + 0.4:
        peeker.add("a")
        time.sleep(0.002)
        times.append(time.monotonic())
    # On a busy machine there may really be a pause between two stops.
    longest = max(end - begin for begin, end in zip(times, times[2:]))
    assert not seen or longest >= background.QUIET_SECONDS
    wait_until(lambda: seen)
    peeker.close()


def test_a_stop_is_no_error_if_no_thread_can_begin(quick, monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    seen = []
    peeker = BackgroundPeeker(seen.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        peeker.add("a")
    peeker.add("b")
    wait_until(lambda: seen == ["b", "a"])
    peeker.close()


def test_closing_waits_for_what_is_under_way_and_drops_the_rest(quick):
    begun, ended = threading.Event(), []

    def look(run):
        begun.set()
        time.sleep(0.2)
        ended.append(run)

    peeker = BackgroundPeeker(look)
    peeker.add("a")
    peeker.add("b")
    begun.wait(10)
    peeker.close()
    assert ended == ["b"]
    peeker.add("c")
    assert peeker._thread is None


def test_a_forked_child_leaves_it_to_its_parent(quick):
    seen = []
    peeker = BackgroundPeeker(seen.append)
    peeker.add("a")
    child = os.fork()
    if child == 0:
        time.sleep(0.3)
        os._exit(len(seen))
    assert os.waitpid(child, 0)[1] == 0
    wait_until(lambda: seen == ["a"])


def test_a_fork_waits_for_a_look(quick):
    """In the child nobody would give back the lock that the look has taken."""
    lock, begun = threading.Lock(), threading.Event()

    def look(run):
        with lock:
            begun.set()
            time.sleep(0.3)

    peeker = BackgroundPeeker(look)
    peeker.add("a")
    assert begun.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_look_may_fork(quick):
    seen = []

    def look(run):
        child = os.fork()
        if child == 0:
            os._exit(0)
        seen.append(os.waitpid(child, 0)[1])

    begin = time.monotonic()
    BackgroundPeeker(look).add("a")
    wait_until(lambda: seen)
    assert seen == [0]
    assert time.monotonic() - begin < 5


def test_children_are_forked_while_files_are_looked_into(quick, place, tmp_path):
    """Neither parent nor child waits for a lock that nobody holds."""
    with dask.config.set({"daskbroker.peek-after-stop": True}), daskbroker.connect(place) as db:
        uids = []
        for number in range(8):
            folder = tmp_path / str(number)
            folder.mkdir()
            docs, _ = claim_run(folder, [1, *SHAPE], **LEGACY)
            insert_all(db, docs)
            uids.append(docs[0][1]["uid"])
            time.sleep(0.06)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                image = db[uids[-1]].dataset()["img"].values
                os._exit(0 if image.dtype == np.uint16 and image.shape == (4, 1, *SHAPE) else 1)
            assert os.waitpid(child, 0)[1] == 0
        wait_until(lambda: {p.run for p in events_of(db).list_peeks(uids)} == set(uids))


def test_runs_without_files_start_no_thread(quick, db):
    with dask.config.set({"daskbroker.peek-after-stop": True}):
        insert_all(db, make_run())
    (source,) = db.event_sources
    assert source._peeker is None


def test_no_file_stays_open(quick, db, tmp_path):
    """Whoever writes detector files can open them again to write."""
    from tests.assets.conftest import open_files

    docs, _ = claim_run(tmp_path, [1, *SHAPE], **LEGACY)
    with dask.config.set({"daskbroker.peek-after-stop": True}):
        insert_all(db, docs)
    uid = docs[0][1]["uid"]
    wait_until(lambda: events_of(db).list_peeks([uid]))
    wait_until(lambda: not [path for path in open_files(tmp_path) if path.endswith(".h5")])
