"""Conformance of pages and bulk documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ...core.errors import BadDocument
from ..base import Conformance, Put, check_run, insert_all, table_of
from ..runs import RunBuilder, external_run, paged_run


class PageConformance(Conformance):
    """Pages, and the deprecated bulk documents."""

    @pytest.mark.parametrize("arrays", [False, True], ids=["lists", "arrays"])
    def test_pages_come_out_as_events(self, put_checked: Put, arrays: bool) -> None:
        docs = paged_run(arrays=arrays)
        header = put_checked(docs)
        table = table_of(header)
        assert table.index.tolist() == list(range(1, 13))
        assert table["x"].tolist() == [n * 0.5 for n in range(12)]
        assert table["label"].tolist() == [f"a{n}" for n in range(12)]

    def test_large_page(self, put_checked: Put) -> None:
        """A page of many rows, mixed with single events and with small pages."""
        run = RunBuilder()
        descriptor = run.descriptor({"x": 0.5, "v": [0.5, 1.5]})
        run.event(descriptor, {"x": -1.0, "v": [1.0, 2.0]})
        rows = [{"x": n * 0.5, "v": [n * 1.0, 2.0]} for n in range(3000)]
        page = run.event_page(descriptor, rows)
        page["data"] = {key: np.array(column) for key, column in page["data"].items()}
        run.event_page(descriptor, rows[:3])
        run.event(descriptor, {"x": -2.0, "v": [1.0, 2.0]})
        docs = run.stop()
        header = put_checked(docs)
        table = table_of(header)
        assert table["x"].tolist() == [-1.0, *(n * 0.5 for n in range(3000)), 0.0, 0.5, 1.0, -2.0]

    def test_empty_page(self, put_checked: Put) -> None:
        run = RunBuilder()
        descriptor = run.descriptor({"x": 0.5})
        page = run.event_page(descriptor, [{"x": 1.5}])
        empty = {"descriptor": descriptor, "uid": [], "seq_num": [], "time": []}
        run.add("event_page", {**empty, "data": {"x": []}, "timestamps": {"x": []}, "filled": {}})
        docs = run.stop()
        header = put_checked(docs)
        assert table_of(header).index.tolist() == page["seq_num"]

    def test_datum_pages(self, put: Put) -> None:
        docs = external_run(0, stop=False)
        resource = docs[1][1]["uid"]
        ids = [f"{resource}/{n}" for n in range(4)]
        page = {"resource": resource, "datum_id": ids, "datum_kwargs": {"n": np.arange(4)}}
        docs.append(("datum_page", page))
        more = [f"{resource}/more{n}" for n in range(2)]
        docs.append(("datum_page", {"resource": resource, "datum_id": more, "datum_kwargs": {}}))
        header = put(docs)
        check_run(header, docs)

    def test_bulk_documents(self, put_checked: Put) -> None:
        """They are deprecated, and accepted."""
        run = RunBuilder()
        spec = {"source": "x", "dtype": "array", "shape": [4], "external": "FILESTORE:"}
        first, second = run.descriptor({"img": spec}), run.descriptor({"x": 0.5}, "other")
        resource = run.resource()
        ids = [f"{resource}/{n}" for n in range(3)]
        kwargs = [{"n": n} for n in range(3)]
        bulk = {"resource": resource, "datum_ids": ids, "datum_kwarg_list": kwargs}
        run.add("bulk_datum", bulk)
        events = [run.row(first, {"img": uid}, filled={"img": False}) for uid in ids]
        run.add("bulk_events", {first: events, second: [run.row(second, {"x": 0.5})]})
        docs = run.stop()
        header = put_checked(docs)
        assert table_of(header)["img"].tolist() == ids

    @pytest.mark.parametrize("part", ["data", "timestamps", "seq_num", "time", "filled"])
    @pytest.mark.parametrize("rows", [4, 2000])
    def test_page_with_a_short_column_is_refused(self, broker: Any, part: str, rows: int) -> None:
        run = RunBuilder()
        descriptor = run.descriptor({"x": 0.5})
        before = list(run.documents)
        page = run.event_page(descriptor, [{"x": 0.5}] * rows)
        page["filled"] = {"x": [True] * rows}
        columns = page[part]["x"] if isinstance(page[part], dict) else page[part]
        columns.pop()
        insert_all(broker, before)
        with pytest.raises(BadDocument, match=part):
            broker.insert("event_page", page)
        check_run(broker[run.uid], before)
