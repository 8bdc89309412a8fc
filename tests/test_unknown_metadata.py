"""Projected metadata that no run has is told; what only some runs have is a gap."""

from __future__ import annotations

import pytest

from daskbroker.core.errors import FieldNotFound
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all


def run_of(number, **start):
    run = RunBuilder(uid=f"run-{number}", number=number, **start)
    settings = {"det": {"data": {"det_gain": 2}, "timestamps": {}, "data_keys": {}}}
    descriptor = run.descriptor({"x": 0.5}, configuration=settings)
    for place in range(2):
        run.event(descriptor, {"x": float(place)})
    return run


@pytest.fixture
def runs(db):
    """A run without ``sample``, one with, and one without a stop whose ``temperature`` is None."""
    insert_all(db, run_of(1).stop())
    insert_all(db, run_of(2, sample={"name": "Ag"}).stop())
    insert_all(db, run_of(3, temperature=None).documents)
    return db()


def views(of):
    return {
        "table": lambda fields: of.table(fields=fields).compute(),
        "dataset": lambda fields: of.dataset(fields=fields),
        "documents": lambda fields: list(of.documents(fields=fields)),
    }


def views_of_many(runs):
    tree = {"tree": lambda fields: runs.dataset(fields=fields, combine="tree")}
    return views(runs) | tree | {"to_dataframe": runs.to_dataframe}


def test_unknown_metadata_of_a_run_is_an_error_that_names_it(runs):
    with_stop, open_run = runs[1], runs[0]
    follow = {"follow": lambda fields: list(with_stop.follow(fields=fields))}
    cases = {
        "start:typo": r"run 'run-2' has no 'typo' in its start document; there are: .*sample.*; "
        "in one table of several runs, such a run has None there",
        "start:sample.nam": r"no 'sample\.nam' in its start document; there are: sample\.name",
        "start:sample[0].a": r"An item of a list is written with a dot: start:sample\.0\.a$",
        "start:sample.name.first": r"there are: sample\.name",
    }
    for name, view in (views(with_stop) | follow).items():
        for field, message in cases.items():
            with pytest.raises(FieldNotFound, match=message):
                pytest.fail(f"{name} with {field} gave {view(['x', field])}")
    for view in views(with_stop).values():
        with pytest.raises(FieldNotFound, match=r"'stop:reson' names .* stop document; .*reason"):
            view("stop:reson")
        with pytest.raises(FieldNotFound, match="devices are: det; keys of det: det_gain"):
            view("config:det:gian")
    for view in views(open_run).values():
        view(["x", "stop:exit_status"])  # may still come
        view(["x", "start:temperature"])  # is there, and is None


def test_metadata_that_no_run_has_is_an_error_and_a_gap_is_none(runs):
    for name, view in views_of_many(runs).items():
        for field in ("start:typo", "stop:typo", "start:sample.nam"):
            with pytest.raises(FieldNotFound, match="none of 3 runs has"):
                pytest.fail(f"{name} with {field} gave {view([field])}")
        view(["start:sample.name", "stop:reason", "start:temperature"])
    table = runs.table(fields=["start:sample.name", "stop:exit_status"]).compute()
    assert table["start:sample.name"].fillna("").tolist() == ["", "", "Ag", "Ag", "", ""]
    assert table["stop:exit_status"].fillna("").tolist() == ["success"] * 4 + [""] * 2
    only_open = runs[:1]
    for view in views_of_many(only_open).values():
        view(["stop:reason"])
