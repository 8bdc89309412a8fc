"""Conformance of brokers, headers and results: search, refusal, pickling, continuation."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ...core.errors import (
    BadDocument,
    BadQuery,
    DuplicateUID,
    FieldNotFound,
    RunNotFound,
    UnknownReference,
)
from ...views.runs import table_to_stream
from ...views.table.from_documents import stream_to_table
from ..base import Conformance, Put, check_run, insert_all
from ..compare import assert_documents_equal
from ..runs import RunBuilder, external_run, interleave, make_run, stream_datum_run

READ_ELSEWHERE = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    things = pickle.load(file)
read = {
    "uids": [header.uid for header in things["broker"]()],
    "results": [header.uid for header in things["results"]],
    "documents": [list(header.documents(fill=False)) for header in things["headers"]],
    "tables": [table.compute() for table in things["tables"]],
    "datasets": [dataset.compute() for dataset in things["datasets"]],
    "same": all(header.db is things["broker"] for header in things["headers"]),
}
with open(sys.argv[2], "wb") as file:
    pickle.dump(read, file)
"""
"""Reads what was pickled into a file, and pickles into another what it has read."""


def read_elsewhere(folder: Path, things: dict[str, Any]) -> dict[str, Any]:
    """Return what another Python process reads from pickled objects."""
    given, taken = folder / "given.pickle", folder / "read.pickle"
    given.write_bytes(pickle.dumps(things))
    command = [sys.executable, "-c", READ_ELSEWHERE, str(given), str(taken)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = pickle.loads(taken.read_bytes())
    return read


def _uids(headers: Any) -> list[str]:
    return [header.uid for header in headers]


class NounConformance(Conformance):
    """Look-up, searches, refusals, repetition, threads and pickles."""

    def ten(self, broker: Any) -> list[str]:
        """Insert ten runs; return their uids, newest first."""
        uids: list[str] = []
        for number in range(10):
            docs = make_run(2, scan_id=number % 5, plan_name=("count", "scan")[number % 2])
            insert_all(broker, docs)
            uids.insert(0, docs[0][1]["uid"])
        return uids

    def test_offsets_and_slices(self, broker: Any) -> None:
        """Slices clamp as those of lists; an offset that is too far back is an IndexError."""
        uids = self.ten(broker)
        assert broker[-1].uid == uids[0]
        assert broker[np.int64(-10)].uid == uids[-1]
        assert _uids(broker[-3:]) == uids[:3]
        assert _uids(broker[-5:-2]) == uids[2:5]
        assert _uids(broker[-1000:]) == uids
        assert _uids(broker[[uids[4], -1]]) == [uids[4], uids[0]]
        with pytest.raises(IndexError, match="only 10 runs"):
            broker[-11]
        chosen = broker(scan_id=3).table().compute()["run"]
        assert chosen.tolist() == [uids[6], uids[6], uids[1], uids[1]]
        for several in (chosen.unique(), chosen.drop_duplicates(), np.array([uids[6], uids[1]])):
            assert _uids(broker[several]) == [uids[6], uids[1]]
        assert _uids(broker[np.array([-1, 3])]) == [uids[0], uids[1]]
        many = [*uids, uids[3], uids[5][:20], -1, 3]  # whole uids are looked up together
        assert _uids(broker[many]) == [*uids, uids[3], uids[5], uids[0], uids[1]]
        with pytest.raises(RunNotFound, match="0" * 36):
            broker[[*many, "0" * 36]]
        for nested in ([-1, [-2]], [slice(-2, None)], [np.array([-1])]):
            with pytest.raises(TypeError, match="a list of runs needs the uid, scan_id or offset"):
                broker[nested]

    def test_uids_prefixes_and_scan_ids(self, broker: Any) -> None:
        """Text is a uid or the beginning of one, an int a scan_id, whose newest run is found."""
        for uid in ("123456-a", "123456-b", "abcdef123456"):
            insert_all(broker, make_run(1, uid=uid, scan_id=7))
        assert broker["abcde"].uid == "abcdef123456"
        assert broker[7].uid == "abcdef123456"
        assert broker["123456-a"].uid == "123456-a"
        with pytest.raises(ValueError, match=r"123456-a.*123456-b"):
            broker["12345"]
        insert_all(broker, make_run(1, uid="12345"))
        insert_all(broker, make_run(1, uid="y" * 50))
        assert broker["12345"].uid == "12345"  # one that is all of a uid means that
        assert broker["y" * 5].uid == broker["y" * 40].uid == "y" * 50
        for unknown in ("absent", 123456, "abcd"):
            with pytest.raises(KeyError, match=f"no run has the .*{unknown}"):
                broker[unknown]

    def test_header_source(self, broker: Any) -> None:
        """The manifesto: ``hs[uid]``, ``hs[scan_id]``, ``hs[-1]``, ``hs(...)``; stop is None."""
        uids = self.ten(broker)
        insert_all(broker, make_run(1, stop=False, uid="still-open", scan_id=99))
        source = broker.header_source
        assert source["still-open"][1] is None
        assert source[-2][0]["uid"] == uids[0]
        assert source[99][0]["uid"] == "still-open"
        assert [start["uid"] for start, _ in source(plan_name="scan")] == uids[::2]

    def test_results(self, broker: Any) -> None:
        """They may be iterated again, sliced and counted."""
        uids = self.ten(broker)
        results = broker(plan_name="count")
        assert _uids(results) == _uids(results) == uids[1::2]
        assert len(results) == 5
        assert _uids(results[1:3]) == uids[3:7:2]
        assert results[-1].uid == uids[-1]
        assert len(results[2:]) == 3
        assert not broker(plan_name="absent")

    def test_filters_do_not_hide_uids(self, broker: Any) -> None:
        uids = self.ten(broker)
        broker.add_filter(plan_name="count")
        assert broker[-1].uid == uids[1]
        assert len(broker()) == 5
        assert broker[uids[0]].uid == uids[0]
        assert broker.filters == [{"plan_name": "count"}]
        broker.clear_filters()
        assert len(broker()) == 10

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"scan_id": {"$gte": 3}}, "cd"),
            ({"sample.name": "Ag"}, "ac"),
            ({"sample.name": {"$in": ["Au", "Ag"]}}, "abc"),
            ({"sample.name": {"$regex": "^A[ug]$"}}, "abc"),
            ({"sample.name": {"$regex": "^a[ug]$", "$options": "i"}}, "abc"),
            ({"sample.name": {"$options": "i", "$regex": "^AG$"}}, "ac"),
            ({"sample.name": {"$not": {"$options": "i", "$regex": "^AG$"}}}, "bd"),
            ({"comment": {"$options": "", "$regex": "pure"}}, "c"),
            ({"tags": "hot"}, "ab"),
            ({"tags": {"$all": ["hot", "wet"]}}, "b"),
            ({"tags": {"$size": 1}}, "a"),
            ({"flag": True}, "a"),
            ({"flag": 1}, "b"),
            ({"sample": {"$exists": False}}, "d"),
            ({"$or": [{"scan_id": 1}, {"flag": 1}]}, "ab"),
            ({"scan_id": {"$not": {"$lt": 3}}}, "cd"),
            ({"note": "{'$where': 1}"}, ""),
            ({"full": "silver"}, "c"),
            ({"full": "comment"}, ""),
            ({"full": "ILVE", "search": "substring"}, "c"),
            ({"full": "s.lver", "search": "regex"}, "c"),
            ({"since": 200, "until": 300}, "bc"),
            ({"since": "1970-01-01T00:04:00+00:00"}, "cd"),
            ({"stop": {"exit_status": "fail"}}, "b"),
            ({"descriptor": {"name": "dark"}}, "d"),
        ],
        ids=repr,
    )
    @pytest.mark.filterwarnings("ignore:no run was found")
    def test_queries(self, broker: Any, query: dict[str, Any], found: str) -> None:
        extras: dict[str, dict[str, Any]] = {
            "a": {"sample": {"name": "Ag"}, "tags": ["hot"], "flag": True},
            "b": {"sample": {"name": "Au"}, "tags": ["hot", "wet"], "flag": 1},
            "c": {"sample": {"name": "Ag"}, "comment": "pure silver"},
            "d": {},
        }
        for number, (name, extra) in enumerate(extras.items(), 1):
            stream = "dark" if name == "d" else "primary"
            docs = make_run(
                1, streams=[stream], uid=f"run-{name}", time=100.0 * number, scan_id=number, **extra
            )
            docs[-1][1]["exit_status"] = "fail" if name == "b" else "success"
            insert_all(broker, docs)
        results = broker(**query)
        assert sorted(_uids(results)) == [f"run-{name}" for name in found]
        assert len(results) == len(found)

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"$where": "sleep(1)"}, r"'\$where' is not allowed here"),
            ({"a": {"$function": {}}}, r"the operator '\$function' is not allowed"),
            ({"$expr": {}}, r"'\$expr' is not allowed here"),
            ({"a": {"$regex": "("}}, r"'\(' is not a valid regular expression"),
            ({"since": "2026-03-29 02:30"}, "the clocks of Europe/Berlin skipped 2026-03-29"),
            ({"since": "someday"}, "'someday' is not a time; write for example"),
            ({"a": {"$in": 1}}, r"\$in needs a list, not 1"),
        ],
        ids=repr,
    )
    def test_hostile_queries_are_refused(
        self, broker: Any, query: dict[str, Any], message: str
    ) -> None:
        broker.timezone = "Europe/Berlin"
        with pytest.raises(BadQuery, match=message):
            len(broker(**query))

    def test_same_documents_again(self, put: Put, broker: Any) -> None:
        """They are stored once."""
        for docs in (make_run(3), external_run(2), stream_datum_run()):
            header = put(docs)
            stored = [pair for pair in docs if pair[0] != "stop" or header.stop is not None]
            insert_all(broker, copy.deepcopy(stored))
            check_run(header, stored)

    def test_same_uid_with_other_content(self, put: Put, broker: Any) -> None:
        for docs in (make_run(2), external_run(2), stream_datum_run()):
            header = put(docs)
            stored = [pair for pair in docs if pair[0] != "stop" or header.stop is not None]
            for name, doc in stored:
                other = copy.deepcopy(doc)
                other["other"] = 1
                with pytest.raises(DuplicateUID, match=name):  # noqa: PT012
                    broker.insert(name, other)
                    broker.flush()
            check_run(header, stored)

    def test_unknown_references_are_refused(self, broker: Any) -> None:
        """Nothing is stored of what names an unknown run or descriptor."""
        for docs in (make_run(1), external_run(1), stream_datum_run()):
            for index in range(1, len(docs)):
                if docs[index][0] != "start":
                    with pytest.raises(UnknownReference, match="is not stored; insert it"):
                        broker.insert(*docs[index])
            assert len(broker()) == 0 or docs[0][1]["uid"] not in _uids(broker())

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("event", {"data": {"unknown": 1}}),
            ("event", {"seq_num": "1"}),
            ("event", {"time": float("nan")}),
            ("event", {"uid": None}),
            ("event", {"data": {"x": ...}}),
            ("descriptor", {"data_keys": 5}),
            ("start", {"time": "now"}),
            ("stop", {"exit_status": "maybe"}),
        ],
        ids=repr,
    )
    def test_bad_documents_leave_no_trace(
        self, broker: Any, name: str, change: dict[str, Any]
    ) -> None:
        """A document that is refused may be inserted again once it is mended."""
        docs = make_run(2)
        for kind, doc in docs:
            if kind == name:
                with pytest.raises(BadDocument, match=next(iter(change))):
                    broker.insert(kind, {**doc, **change})
            broker.insert(kind, doc)
        check_run(broker[-1], docs)

    def test_what_is_no_document_is_refused(self, broker: Any) -> None:
        for name, doc, problem in (
            ("start", None, "a document is a mapping, not NoneType"),
            ("start", [1], "a document is a mapping, not list"),
            ("nonsense", {}, "'nonsense' is not a document name"),
            (5, {}, "5 is not a document name"),
            ("event", {}, "event document: lacks '"),
        ):
            with pytest.raises(BadDocument, match=problem):
                broker.insert(name, doc)

    def test_interleaved_runs(self, broker: Any) -> None:
        runs = [make_run(5), external_run(2), stream_datum_run()]
        insert_all(broker, interleave(*runs))
        for docs in runs:
            check_run(broker[docs[0][1]["uid"]], docs)

    def test_reading_while_another_thread_inserts(self, broker: Any) -> None:
        """What is read is always a beginning of what is written."""
        docs = make_run(300)
        insert_all(broker, docs[:2])
        header = broker[-1]
        errors: list[BaseException] = []

        def write() -> None:
            try:
                insert_all(broker, docs[2:])
            except BaseException as error:
                errors.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        lengths = []
        while writer.is_alive():
            numbers = header.table().compute().index.tolist()
            assert numbers == list(range(1, len(numbers) + 1))
            lengths.append(len(numbers))
        writer.join()
        assert not errors
        assert lengths == sorted(lengths)
        check_run(broker[-1], docs)

    def test_pickles(self, put: Put, broker: Any) -> None:
        header = put(make_run(3))
        assert pickle.loads(pickle.dumps(broker)) is broker
        text = pickle.dumps(header)
        copies = [pickle.loads(text) for _ in range(1000)]
        assert all(one.db is broker and one == header for one in copies)
        assert _uids(pickle.loads(pickle.dumps(broker()))) == [header.uid]
        table = pickle.loads(pickle.dumps(header.table()))
        assert table.compute().equals(header.table().compute())
        dataset = pickle.loads(pickle.dumps(header.dataset()))
        assert dataset.compute().identical(header.dataset().compute())

    def test_pickles_are_read_in_another_process(self, broker: Any, tmp_path: Path) -> None:
        """Of a stopped run, of one that goes on, and of references."""
        runs = [make_run(5), make_run(4, stop=False), external_run(2)]
        for docs in runs:
            insert_all(broker, docs)
        broker.flush()
        headers = [broker[docs[0][1]["uid"]] for docs in runs]
        tables = [header.table(fill=False) for header in headers]
        datasets = [header.dataset(fill=False) for header in headers]
        results = broker(uid={"$in": [header.uid for header in headers]})
        tables.append(results.table("primary", fill=False))
        things = {"broker": broker, "results": results, "headers": headers}
        read = read_elsewhere(tmp_path, {**things, "tables": tables, "datasets": datasets})
        assert read["uids"] == _uids(broker())
        assert read["results"] == _uids(results)
        assert read["same"]
        for docs, found in zip(runs, read["documents"], strict=True):
            assert_documents_equal(docs, found)
        for table, found in zip(tables, read["tables"], strict=True):
            assert found.equals(table.compute())
            assert found.attrs == table.compute().attrs
        for dataset, found in zip(datasets, read["datasets"], strict=True):
            assert found.identical(dataset.compute())

    def test_hostile_metadata_is_text(self, broker: Any) -> None:
        text = "<script>alert(1)</script>'; drop table header; --"
        docs = make_run(1, plan_name=text, note={"$where": "1"})
        insert_all(broker, docs)
        check_run(broker[-1], docs)
        assert "<script>" not in broker[-1]._repr_html_() + broker()._repr_html_()
        assert _uids(broker(plan_name=text)) == [docs[0][1]["uid"]]

    def test_a_run_goes_on_after_reopening(self, broker: Any, reopen: Callable[[], Any]) -> None:
        """A store is closed in the middle of a run, and opened again."""
        docs = make_run(6)
        insert_all(broker, docs[:5])
        again = reopen()
        insert_all(again, docs[5:])
        check_run(again[-1], docs)

    def test_fields(self, put: Put) -> None:
        """Names, projections, and the descriptor that has them."""
        header = put(make_run(2, keys=("x", "y1", "y2"), sample={"name": "Ag"}))
        table = header.table(fields=["x", "time", "start:sample.name"]).compute()
        assert table.columns.tolist() == ["time", "x", "start:sample.name"]
        assert str(table["time"].dtype) == "datetime64[us, UTC]"
        assert table["start:sample.name"].tolist() == ["Ag", "Ag"]
        assert header.table(fields="y.").columns.tolist() == ["time", "y1", "y2"]
        for view in (header.table, header.dataset):  # an iterator can be gone through only once
            assert list(view(fields=(key for key in ["y1", "x"]))[["y1", "x"]]) == ["y1", "x"]
        with pytest.raises(KeyError, match="absent"):
            header.table(fields=["absent"])
        chosen = [dict(header.documents(fields=["x"]))["descriptor"] for _ in range(2)]
        parent = header.descriptors["primary"][0]
        assert chosen[0] == chosen[1]
        assert chosen[0]["uid"] != parent["uid"] == chosen[0]["derived_from"]
        assert list(chosen[0]["data_keys"]) == ["x"]

    def test_one_table_of_many_runs(self, broker: Any) -> None:
        """``db(...).table()`` with the column ``run``, small runs in few partitions."""
        uids = self.ten(broker)
        table = broker().table("primary")
        assert table.npartitions == 1
        frame = table.compute()
        assert frame.columns[0] == "run"
        assert frame["run"].tolist() == [uid for uid in reversed(uids) for _ in range(2)]

    def test_methods_of_the_manifesto(self, put: Put) -> None:
        """EventSource and Header have the methods of the manifesto."""
        header = put(make_run(3, streams=("primary", "dark")))
        source = header.es_given_stream("dark")
        assert source.stream_names_given_header(header) == {"primary", "dark"}
        assert len(source.descriptors_given_header(header, "dark")) == 1
        names = [name for name, _ in source.documents_given_header(header, "dark")]
        assert names == ["descriptor", "event", "event", "event"]
        assert len(source.table_given_header(header, "dark")) == 3
        plan = source.chunks_given_header(header, "dark")
        read = source.read_chunk(plan[0], ["data:x"])
        assert read.column_names == ["data:x"]
        event = next(doc for name, doc in header.events() if name == "event")
        assert source.fill_event(event) == event
        assert [d for _, d in source.fill_event_stream([("event", event)])] == [event]
        table = header.table("dark").compute()
        assert source.fill_table(table).equals(table)
        assert set(header.fields("dark")) == {"x", "y", "n"}
        with pytest.raises(KeyError, match=r"nothing.*primary"):
            header.es_given_stream("nothing")

    def test_arguments_have_the_names_of_the_manifesto(self, put: Put) -> None:
        """What the manifesto writes as ``es.fill_event(ev, in_place=False)`` takes these names."""
        header = put(make_run(3))
        source = header.es_given_stream(stream_name="primary")
        read = {"header": header, "stream_name": "primary", "fill": False, "fields": None}
        filled = {"in_place": False, "fields": None, "handler_registry": None}
        filled["handler_overrides"] = None
        documents = list(source.documents_given_header(**read))
        event = documents[-1][1]
        table = source.table_given_header(**read)
        assert source.fill_event(ev=event, **filled) == event
        assert [d for _, d in source.fill_event_stream(ev_gen=documents, **filled)][-1] == event
        assert len(source.fill_table(tab=table, **filled)) == 3
        shown = stream_to_table(doc_generator=header.documents(fill=False))
        assert len(shown) == 3
        made = table_to_stream(table=shown, header=header, stream="primary")
        assert [name for name, _ in made] == ["start", "descriptor", *["event"] * 3, "stop"]

    def test_a_field_to_fill_that_is_not_there_is_an_error(self, put: Put) -> None:
        """Otherwise a mistyped field gives events and tables that are not filled."""
        header = put(external_run(2))
        source = header.es_given_stream("primary")
        documents = list(header.stream("primary", fill=False))
        event = next(doc for name, doc in documents if name == "event")
        unfilled = header.table(fill=False)
        for fields in ("imgg", ["imgg"], ["x", "imgg"]):
            with pytest.raises(FieldNotFound, match=r"no data key 'imgg' to fill.*img"):
                source.fill_event(event, fields=fields)
            with pytest.raises(FieldNotFound, match=r"no data key 'imgg' to fill.*img"):
                list(source.fill_event_stream(documents, fields=fields))
            for table in (unfilled, unfilled.compute()):
                with pytest.raises(FieldNotFound, match=r"no data key 'imgg' to fill.*img"):
                    source.fill_table(table, fields=fields)
        assert source.fill_event(event, fields=["x"]) == event
        assert list(source.fill_event_stream(header.documents(fill=False), fields=iter("x")))
        assert source.fill_table(unfilled.compute(), fields=["x"]).equals(unfilled.compute())

    def test_views_agree(self, put: Put) -> None:
        """Table, Dataset and documents have the same values."""
        run = RunBuilder()
        descriptor = run.descriptor({"x": 0.5, "v": [1.0, 2.0], "label": "a"})
        for number in range(5):
            run.event(descriptor, {"x": number / 2, "v": [number, 0.5], "label": str(number)})
        header = put(run.stop())
        table, dataset = header.table().compute(), header.dataset().compute()
        events = [doc for name, doc in header.documents() if name == "event"]
        for key in ("x", "v", "label"):
            values = [doc["data"][key] for doc in events]
            assert [np.asarray(cell).tolist() for cell in table[key]] == values
            assert dataset[key].values.tolist() == values
        assert dataset["seq_num"].values.tolist() == table.index.tolist()

    def test_the_index_of_a_table_comes_back_as_columns(self, put: Put, broker: Any) -> None:
        """The index levels of a table become columns of the run."""
        table = put(make_run(6)).table().compute()
        curve = table.groupby("x")[["y"]].mean()
        levels = table.groupby(["x", "n"])[["y"]].max()
        binned = table.set_index("time")[["y"]].resample("500ms").mean()
        for pages in (False, True):
            for number, frame in enumerate((curve, levels, table[["y"]].describe(), binned)):
                uid = f"made-{pages}-{number}"
                insert_all(broker, table_to_stream(frame, pages=pages, uid=uid))
                found = broker[uid].table().compute()
                expected = frame.reset_index()
                assert set(found.columns) == {"time", *expected.columns}
                for name in expected.columns:
                    assert found[name].tolist() == expected[name].tolist()
