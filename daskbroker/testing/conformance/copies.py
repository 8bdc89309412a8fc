"""Conformance, copies: changing an object that was returned does not change what others see."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from ...core.documents import plain
from ..base import Conformance, Put, check_run, inserted
from ..compare import difference
from ..runs import RunBuilder

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "method": lambda doc: doc.copy(),
    "to_dict": lambda doc: doc.to_dict(),
}

GIVEN: dict[str, Callable[[Any], Any]] = {
    "start": lambda h: h.start,
    "stop": lambda h: h.stop,
    "item": lambda h: h["start"],
    "unpacked": lambda h: {**h.start},
    "attribute": lambda h: h.start.sample,
    "descriptors": lambda h: h.descriptors,
    "descriptors of the store": lambda h: h.es_given_stream("primary").store.list_descriptors(
        [h.uid]
    ),
    "one descriptor": lambda h: h.es_given_stream("primary").store.find_descriptor(
        h.descriptors["primary"][0]["uid"]
    ),
    "configuration": lambda h: h.config_data("eiger"),
    "streams": lambda h: h.streams,
    "fields": lambda h: sorted(h.fields("primary")),
    "documents": lambda h: list(h.documents(fill=False)),
    "selected documents": lambda h: list(
        h.documents(fill=False, fields=["v", "start:sample.name"])
    ),
    "documents of a stream": lambda h: list(h.stream("primary", fill=False)),
    "documents of a search": lambda h: list(h.db(uid=h.uid).documents(fill=False)),
    "header of the source": lambda h: h.db.header_source[h.uid],
    "attributes of the dataset": lambda h: h.dataset(fill=False).attrs,
    "attributes of the table": lambda h: h.table(fill=False).compute().attrs,
    "cells of the table": lambda h: h.table(fill=False).compute()["v"].tolist(),
    "cells of the dataset": lambda h: h.dataset(fill=False)["v"].values,
}


def nested_run(*, stop: bool = True) -> list[tuple[str, Any]]:
    """Return a run with nested mappings and lists in each of its documents."""
    run = RunBuilder(sample={"name": "Si", "sizes": [1, [2, 3]]}, motors=["x"])
    configuration = {
        "eiger": {
            "data": {"roi": [0, 1], "mode": {"name": "fast"}},
            "timestamps": {"roi": 1.0, "mode": 1.0},
            "data_keys": {
                "roi": {"source": "s", "dtype": "array", "shape": [2]},
                "mode": {"source": "s", "dtype": "string", "shape": []},
            },
        }
    }
    spec = {"source": "s", "dtype": "array", "shape": [2]}
    keys = {"v": spec, "n": [1.0], "odd": "text"}
    descriptor = run.descriptor(keys, configuration=configuration)
    for number in range(3):
        row = {"v": [float(number), 2.0], "n": [[1], [2, {"deep": [number]}]], "odd": "a"}
        run.event(descriptor, row, note={"extra": [number]})
    resource = run.resource(resource_kwargs={"shape": [1, 2]})
    run.datum(resource, roi=[1, 2], window={"x": [0]})
    return list(run.stop()) if stop else list(run.documents)


def spoil(value: Any) -> None:
    """Change everything that can be changed inside a value, at each level."""
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list, tuple)):
        for item in list(inner):
            spoil(item)
    with suppress(TypeError):
        if isinstance(value, dict):
            value.update(dict.fromkeys([*value, "new"], "spoilt"))
    with suppress(TypeError):
        if isinstance(value, list):
            value[:] = ["spoilt"]
    with suppress(ValueError):
        if isinstance(value, np.ndarray):
            value[...] = 99


class CopyConformance(Conformance):
    """Changing what a store returns does not change the store."""

    @pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
    def test_copies_are_plain_and_changed_alone(
        self, put: Put, copied: Callable[[Any], Any]
    ) -> None:
        docs = nested_run()
        header = put(docs)
        for _, doc in [*header.documents(fill=False), ("start", header.start)]:
            before = plain(doc)
            found = copied(doc)
            assert type(found) is dict
            assert difference(before, found) is None
            spoil(found)
            assert difference(before, found) is not None
            assert difference(before, plain(doc)) is None
        check_run(header, inserted(header, docs))

    @pytest.mark.parametrize("look", GIVEN.values(), ids=GIVEN)
    def test_what_is_given_out_is_changed_alone(
        self, put: Put, broker: Any, look: Callable[[Any], Any]
    ) -> None:
        docs = nested_run()
        header = put(docs)
        before = plain(look(header))
        spoil(look(header))
        assert difference(before, plain(look(header))) is None
        assert difference(before, plain(look(broker[header.uid]))) is None
        check_run(header, inserted(header, docs))
        check_run(broker[header.uid], inserted(header, docs))

    def test_filters_are_those_that_were_added(self, put: Put, broker: Any) -> None:
        header = put(nested_run())
        query = {"sample.name": {"$in": ["Si"]}}
        broker.add_filter(**query)
        spoil(query)
        spoil(broker.filters)
        assert broker.filters == [{"sample.name": {"$in": ["Si"]}}]
        assert broker()[0].uid == header.uid

    def test_what_was_inserted_is_changed_alone(self, broker: Any, reopen: Any) -> None:
        docs = nested_run()
        given = copy.deepcopy(docs)
        for name, doc in given:
            broker.insert(name, doc)
            spoil(doc)
        uid = docs[0][1]["uid"]
        check_run(broker[uid], docs)
        check_run(reopen()[uid], docs)

    def test_documents_given_out_can_be_inserted(self, put: Put, broker: Any) -> None:
        header = put(nested_run())
        again = [("start", {**header.start, "uid": "again", "more": header.start["sample"]})]
        descriptor = {**header.descriptors["primary"][0], "uid": "d", "run_start": "again"}
        again.append(("descriptor", descriptor))
        for number, (name, doc) in enumerate(header.documents(fill=False)):
            if name == "event":
                again.append((name, {**doc, "uid": f"e{number}", "descriptor": "d"}))
        for pair in again:
            broker.insert(*pair)
        check_run(broker["again"], again)
        broker.seal()
        check_run(broker["again"], again)
