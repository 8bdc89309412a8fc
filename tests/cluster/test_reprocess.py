"""Reprocessing: new runs with their provenance, exactly one of each, whatever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import functions  # beside this file; see conftest.py
import pytest

import daskbroker
from daskbroker.core.errors import BadDocument, ConfigError
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


@pytest.fixture
def into(tmp_path):
    with daskbroker.connect(tmp_path / "into") as broker:
        yield broker


@pytest.fixture(params=["workers", "threads"])
def anywhere(request):
    """With a Client and without."""
    if request.param == "threads":
        with dask.config.set(scheduler="threads"):
            yield
    else:
        request.getfixturevalue("client")
        yield


def check_complete(runs, into, function, number_of_products=2):
    """Each source has its products, once, with all their rows."""
    made = {}
    for header in into():
        origin = header.start["derived_from"]
        assert origin["function"] == f"functions:{function}"
        assert header.stop is not None
        made.setdefault(origin["runs"][0], []).append(header)
    assert set(made) == {header.uid for header in runs}
    for header in runs:
        products = sorted(made[header.uid], key=lambda h: h.start["derived_from"]["number"])
        assert [p.start["derived_from"]["number"] for p in products] == list(
            range(number_of_products)
        )
        x = header.table().compute(scheduler="synchronous")["x"].tolist()
        first = products[0].table().compute(scheduler="synchronous")
        assert first["x"].tolist() == x
    return made


def test_tables_become_runs(runs, into, anywhere):
    report = daskbroker.reprocess(runs, functions.doubled, into, parameters={"factor": 3})
    assert not report.failed
    assert not report.skipped
    assert len(report.done) == len(into) == 10
    for source, (uid,) in report.done.items():
        old, new = runs._db[source], into[uid]
        table = new.table().compute(scheduler="synchronous")
        assert table["double"].tolist() == (table["x"] * 3).tolist()
        assert len(table) == 20
        origin = new.start["derived_from"]
        assert origin["runs"] == [source]
        assert origin["function"] == "functions:doubled"
        assert origin["parameters"] == {"factor": 3}
        assert {"python", "daskbroker", "dask", "numpy"} <= origin["versions"].keys()
        assert new.start["number"] == old.start["number"]


def test_new_runs_have_the_order_of_their_sources(runs, into, anywhere):
    daskbroker.reprocess(runs, functions.doubled, into)
    oldest_first = [header.uid for header in reversed(runs)]
    assert [h.start["derived_from"]["runs"] for h in reversed(into())] == [
        [u] for u in oldest_first
    ]
    x = runs.table(fields="x").compute(scheduler="synchronous")["x"]
    assert into().table(fields="x").compute(scheduler="synchronous")["x"].tolist() == x.tolist()


def test_again_makes_nothing_new(runs, into, anywhere):
    first = daskbroker.reprocess(runs[:4], functions.doubled, into)
    again = daskbroker.reprocess(runs, functions.doubled, into)
    assert len(first.done) == 4
    assert len(again.done) == 6
    assert len(again.skipped) == 4
    assert all("done before" in reason for reason in again.skipped.values())
    assert len(into) == 10
    other = daskbroker.reprocess(runs, functions.doubled, into, parameters={"factor": 5})
    assert len(other.done) == 10
    assert len(into) == 20


def test_failures_are_reported_and_can_be_repeated(runs, into, anywhere):
    report = daskbroker.reprocess(runs, functions.fails_sometimes, into)
    (uid,) = report.failed
    assert runs._db[uid].start["number"] == 3
    assert isinstance(report.failed[uid], ZeroDivisionError)
    assert "9 runs done, 9 made of them; 0 skipped, 1 failed" in str(report)
    again = daskbroker.reprocess(runs, functions.fails_sometimes, into)
    assert list(again.failed) == [uid]
    assert len(again.skipped) == 9
    assert len(into) == 9


def test_all_that_a_function_may_give(db, into, anywhere):
    insert_all(db, make_run(4))

    def everything(header):
        yield header.table()
        yield header.table().compute(scheduler="synchronous")
        yield None
        yield header.dataset()
        yield from header.documents()
        yield list(make_run(2, stop=False))

    report = daskbroker.reprocess(db(), everything, into)
    assert report.failed == {}
    (uids,) = report.done.values()
    assert len(uids) == len(set(uids)) == 5
    lengths = [len(into[uid].table().compute(scheduler="synchronous")) for uid in uids]
    assert lengths == [4, 4, 4, 4, 2]
    assert [into[u].start["derived_from"]["number"] for u in uids] == list(range(5))
    nothing = daskbroker.reprocess(db(), lambda header: None, into, name="nothing")
    assert list(nothing.done.values()) == [[]]
    for name, (given, advice) in {
        "five": (lambda header: 5, "must return or yield tables"),
        "array": (lambda header: header.dataset()["x"].mean(), "a DataArray; .*to_dataset"),
        "tree": (lambda header: header.tree(), r"a DataTree; .*\[name\].to_dataset\(\) makes"),
        "mapping": (lambda header: {"a": 1}, r"a dict; .*DataFrame\(\[result\]\)"),
    }.items():
        refused = daskbroker.reprocess(db(), given, into, name=name)
        assert re.search(advice, str(*refused.failed.values()))


def test_whole_runs_as_pairs_one_after_the_other(db, into, anywhere):
    """Each start begins a run, whether the one before has stopped or not."""
    insert_all(db, make_run(4))
    given = [make_run(2, sample="a"), make_run(3, stop=False, sample="b"), make_run(1, sample="c")]

    def pairs(header):
        for documents in given[:2]:
            yield from documents
        yield header.table()
        yield None
        yield from map(list, given[2])

    report = daskbroker.reprocess(db(), pairs, into, name="pairs")
    assert report.failed == {}
    (uids,) = report.done.values()
    made = [into[uid] for uid in uids]
    assert [len(header.table().compute(scheduler="synchronous")) for header in made] == [2, 3, 4, 1]
    assert [header.start.get("sample") for header in made] == ["a", "b", None, "c"]
    assert [header.start["derived_from"]["number"] for header in made] == [0, 1, 2, 3]
    assert all(header.stop is not None for header in made)
    assert len(into) == 4
    for documents, header in zip(given, [made[0], made[1], made[3]], strict=True):
        x = [doc["data"]["x"] for name, doc in documents if name == "event"]
        assert header.table().compute(scheduler="synchronous")["x"].tolist() == x


def test_a_named_job_goes_on_when_its_function_has_moved(runs, into, anywhere):
    """And is another job without the name, or with other parameters."""

    def moved(header, factor=2):
        return functions.doubled(header, factor)

    moved.__module__ = "elsewhere.functions"
    first = daskbroker.reprocess(runs[:4], functions.doubled, into, name="double")
    again = daskbroker.reprocess(runs, moved, into, name="double")
    assert (len(first.done), len(again.done), len(again.skipped)) == (4, 6, 4)
    assert set(again.skipped) == set(first.done)
    names = {header.start["derived_from"]["function"].partition(":")[0] for header in into()}
    assert names == {"functions", "elsewhere.functions"}
    jobs = {header.start["derived_from"]["job"] for header in into()}
    assert len(jobs) == 1
    assert not daskbroker.reprocess(into(), moved, into, name="double").done
    other = daskbroker.reprocess(runs[:1], moved, into, name="double", parameters={"factor": 3})
    unnamed = daskbroker.reprocess(runs[:1], functions.doubled, into)
    renamed = daskbroker.reprocess(runs[:1], functions.doubled, into, name="twice")
    assert len(other.done) == len(unnamed.done) == len(renamed.done) == 1
    assert len(into) == 13


def test_a_function_of_datasets(runs, into, anywhere):
    def mean(dataset, weight):
        return dataset[["x"]].mean("time") * weight

    report = daskbroker.reprocess(
        runs, mean, into, dataset="primary", parameters={"weight": 20}, name="mean"
    )
    assert not report.failed
    found = {h.start["number"]: h.dataset()["x"].values.item() for h in into()}
    assert found == {number: pytest.approx(190 + number) for number in range(10)}


def test_into_the_same_store(runs):
    with dask.config.set(scheduler="synchronous"):
        db = runs._db
        first = daskbroker.reprocess(db(), functions.doubled, db)
        assert (len(first.done), first.skipped) == (10, {})
        again = daskbroker.reprocess(db(), functions.doubled, db)
    assert len(again.skipped) == 20
    assert len(db) == 20


def test_open_runs_wait(db, into):
    insert_all(db, make_run(3, stop=False))
    report = daskbroker.reprocess(db(), functions.doubled, into)
    assert list(report.skipped.values()) == ["it has not stopped"]
    taken = daskbroker.reprocess(db(), functions.doubled, into, unfinished=True)
    assert len(taken.done) == 1


def test_what_is_given_is_runs_a_function_and_a_broker(runs, into, tmp_path):
    db = runs._db
    assert len(daskbroker.reprocess(db[-1], functions.doubled, into).done) == 1
    assert len(daskbroker.reprocess(db, functions.doubled, into).done) == 9
    with pytest.raises(ConfigError, match="function of a header, not a str"):
        daskbroker.reprocess(runs, "functions:doubled", into, name="doubled")
    opens = r"into must be a broker, not a \w+; daskbroker.connect\(.*other'\) opens it"
    for place in (tmp_path / "other", str(tmp_path / "other")):
        with pytest.raises(ConfigError, match=opens):
            daskbroker.reprocess(runs, functions.doubled, place)
        with pytest.raises(ConfigError, match=opens):
            daskbroker.copy(runs, place)
    with pytest.raises(ConfigError, match="into must be a broker, not a NoneType"):
        daskbroker.copy(runs, None)
    with pytest.raises(BadDocument, match="a DataArray is not a table"):
        list(daskbroker.table_to_stream(db[-1].dataset()["x"], db[-1]))
    with pytest.raises(BadDocument, match="a str is not a table"):
        list(daskbroker.table_to_stream("table", db[-1]))


def test_functions_without_a_name_of_their_own_need_one(runs, into):
    factor = 2

    def closure(header):
        return header.table().assign(y=factor)

    for func in (closure, lambda header: None, functions.doubled.__call__):
        with pytest.raises(ValueError, match="name="):
            daskbroker.reprocess(runs, func, into)
    report = daskbroker.reprocess(runs, closure, into, name="closure")
    assert len(report.done) == 10


def test_an_edited_function_is_another_one(runs, into):
    def first(header):
        return header.table()

    original, first = first, None

    def first(header):
        return header.table().head(1)

    assert len(daskbroker.reprocess(runs[:1], original, into).done) == 1
    assert len(daskbroker.reprocess(runs[:1], first, into).done) == 1
    assert sorted(len(header.table()) for header in into()) == [1, 20]


def test_what_was_cut_off_is_finished(runs, into):
    """The start of the first product and half of the second are there; nothing else is."""
    header = runs[0]

    class Cut(Exception):
        pass

    inserted = []

    class HalfBroker:
        header_source, event_sources = into.header_source, into.event_sources
        batch = into.batch

        def insert(self, name, doc):
            if len(inserted) == 4:
                raise Cut
            inserted.append(name)
            into.insert(name, doc)

    report = daskbroker.reprocess([header], functions.slowly, HalfBroker())
    assert isinstance(report.failed[header.uid], Cut)
    assert [h.stop for h in into()] == [None, None]
    time.sleep(0.01)
    again = daskbroker.reprocess([header], functions.slowly, into)
    assert len(again.done[header.uid]) == 2
    check_complete([header], into, "slowly")


def test_workers_are_killed(runs, into, client, kill_worker):
    killers = [threading.Timer(delay, kill_worker) for delay in (0.2, 0.9)]
    for killer in killers:
        killer.start()
    report = daskbroker.reprocess(runs, functions.slowly, into)
    for killer in killers:
        killer.join()
    assert not report.failed
    assert len(report.done) == 10
    assert len(into) == 20
    check_complete(runs, into, "slowly")


SCRIPT = """
import sys
import dask
import daskbroker
import functions
source, target = map(daskbroker.connect, sys.argv[1:3])
with dask.config.set(scheduler="threads", num_workers=2):
    print(daskbroker.reprocess(source(), functions.slowly, target), flush=True)
"""


def test_the_job_itself_is_killed_and_run_again(runs, into):
    folder = str(Path(__file__).parent)
    paths = [folder, str(Path(daskbroker.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", SCRIPT, runs._db.uri, into.uri]
    attempts = 0
    while True:
        job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        wanted = min(len(into) + 5, 20)
        while job.poll() is None and (attempts >= 3 or len(into) < wanted):
            time.sleep(0.005)
        attempts += 1
        if job.poll() is None:
            job.send_signal(signal.SIGKILL)
            job.communicate()
            continue
        text, _ = job.communicate()
        assert job.returncode == 0
        break
    assert attempts > 1
    assert "0 failed" in text
    check_complete(runs, into, "slowly")
