"""What a task that fills carries."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest

from daskbroker.core.errors import ConfigError, FillError, HandlerExists, HandlerNotFound
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import LazySquares, Squares, datum_run, squares_run


def filling_of(header, **handlers):
    source = header.es_given_stream("primary")
    return source.filling(source.descriptors_given_header(header), **handlers)


def names(header, **options):
    with dask.config.set({"daskbroker.loaded-size": 0}):
        return header.table(**options)._name, header.dataset(**options)["img"].data.name


def test_the_same_work_has_the_same_name(db):
    insert_all(db, squares_run())
    db.register_handler("SQUARES", Squares)
    before = names(db[-1])
    assert names(db[-1]) == before
    other = names(db[-1], handler_overrides={"img": LazySquares})
    db.root_map["/a"] = "/b"
    moved = names(db[-1])
    with dask.config.set({"daskbroker.shape-mismatch": "keep"}):
        kept = names(db[-1])
    without = db[-1].table(fill=False)._name  # of a dataset, references are no Dask arrays
    assert len({*before, *other, *moved, *kept, without}) == 9


def test_open_handlers_do_not_travel(db, tmp_path):
    docs, data = datum_run(tmp_path)
    insert_all(db, docs)
    dataset = db[-1].dataset(chunks=None)
    before = len(pickle.dumps(dataset))
    np.testing.assert_array_equal(dataset["img"].values[:, 0], data)  # handlers are open now
    assert len(pickle.dumps(dataset)) == before
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again["img"].values[:, 0], data)


def test_only_handlers_that_the_run_needs_travel(db):
    insert_all(db, squares_run())
    db.register_handler("SQUARES", Squares)
    db.register_handler("another", LazySquares)
    assert set(filling_of(db[-1]).factories) == {"SQUARES"}
    given = filling_of(db[-1], handler_registry={"SQUARES": LazySquares, "third": Squares})
    assert [f.reference.partition(":")[2] for f in given.factories.values()] == ["LazySquares"]


def test_settings_are_those_of_the_plan_not_of_the_worker(db, tmp_path):
    docs, _ = datum_run(tmp_path, shape=(5, 5))
    insert_all(db, docs)
    table = db[-1].table()
    with (
        dask.config.set({"daskbroker.shape-mismatch": "keep"}),
        pytest.raises(FillError, match="shape"),
    ):
        table.compute()


def test_a_setting_that_makes_no_sense(db, tmp_path):
    insert_all(db, datum_run(tmp_path)[0])
    with (
        dask.config.set({"daskbroker.shape-mismatch": "pad"}),
        pytest.raises(ConfigError, match="pad"),
    ):
        db[-1].table()


def test_registering_handlers_of_a_broker(db):
    db.register_handler("A", Squares)
    with pytest.raises(
        HandlerExists, match="is registered for this spec; overwrite=True replaces it"
    ):
        db.register_handler("A", LazySquares)
    db.register_handler("A", LazySquares, overwrite=True)
    assert db.handler_registry.specs()["A"].endswith(":LazySquares")
    db.deregister_handler("A")
    with pytest.raises(HandlerNotFound, match="no handler is registered for spec 'A'"):
        db.deregister_handler("A")


def test_nothing_is_looked_up_for_a_run_without_external_keys(db):
    from daskbroker.testing import make_run

    insert_all(db, make_run())
    assert filling_of(db[-1]) is None
