"""Conformance of searching: a query is answered or refused, never silently empty."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from ...core.errors import (
    AmbiguousUID,
    BadQuery,
    RunNotFound,
    SearchWarning,
    SourceNotFound,
    StreamNotFound,
)
from ...views.runs import table_to_stream
from ..base import Conformance, insert_all
from ..runs import make_run


def _uids(headers: Any) -> list[str]:
    return [header.uid for header in headers]


def _told(search: Any) -> str:
    """Return the warnings raised while a function is called."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search()
    assert all(issubclass(one.category, SearchWarning) for one in caught)
    assert all(one.filename == __file__ for one in caught)
    return "\n".join(str(one.message) for one in caught)


class SearchConformance(Conformance):
    """Special words of queries, hints, narrowing, and derived runs."""

    @pytest.fixture
    def searched(self, broker: Any) -> Iterator[Any]:
        """Return a broker with four raw runs, one of them open, and one derived from the first."""
        for number, keys in enumerate(("x", "det", "x", "x")):
            docs = make_run(
                2,
                keys={keys: [1.0, 2.0]},
                uid=f"run-{number}-of-these",
                time=1000.0 * (number + 1),
                scan_id=number,
                plan_name=("count", "scan")[number % 2],
                sample={"name": "Ag", "heat": [{"zone": 1}]},
                stop=number != 3,
            )
            if number == 1:
                docs[-1][1].update(exit_status="fail", reason="stuck")
            insert_all(broker, docs)
        first = broker["run-0-of-these"]
        frame = first.table(fill=False).compute()
        derived: list[Any] = list(
            table_to_stream(frame, header=first, uid="derived-of-0", time=9000.0)
        )
        derived[0] = "start", {**derived[0][1], "scan_id": 0}
        insert_all(broker, derived)
        return broker

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"data_key": "det"}, "1"),
            ({"data_key": "x"}, "d320"),
            ({"start_time": 2000}, "d321"),
            ({"start_time": 1500, "stop_time": 3000}, "21"),
            ({"stop_time": 2000}, "10"),
            ({"since": 1500, "start_time": 2500, "until": 9999, "stop_time": 3500}, "2"),
            ({"exit_status": "fail"}, "1"),
            ({"exit_status": {"$ne": "fail"}}, "d20"),
            ({"exit_status": "open"}, "3"),
            ({"exit_status": "open", "plan_name": "count"}, ""),
            ({"derived": True}, "d"),
            ({"derived": False}, "3210"),
            ({"derived": False, "data_key": "x", "exit_status": "success"}, "20"),
            ({"start": {"sample.name": "Ag"}, "plan_name": "scan"}, "31"),
            ({"start": {"derived_from": {"$exists": True}}}, "d"),
            ({"start": {}}, "d3210"),
        ],
        ids=repr,
    )
    def test_words_of_databroker(self, searched: Any, query: dict[str, Any], found: str) -> None:
        """Each word has one meaning, and can be combined with all other conditions."""
        wanted = ["derived-of-0" if one == "d" else f"run-{one}-of-these" for one in found]
        results = searched(**query)
        assert _uids(results) == wanted
        assert len(results) == len(wanted)
        assert _uids(results[1:]) == wanted[1:]
        assert _uids(reversed(results)) == wanted[::-1]
        searched.add_filter(**query)
        assert _uids(searched()) == wanted
        searched.clear_filters()

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"search": "surf"}, r"write full='surf'.*start=\{'search': …\}"),
            ({"search": "regex"}, "write full='what to search for', search='regex'"),
            ({"full": "Ag", "search": "surf"}, "'surf' is not one of text, substring, regex"),
            ({"data_key": ["det", "x"]}, r"one data key.*db\(data_key='a'\)\(data_key='b'\)"),
            ({"data_key": None}, "one data key, not None"),
            ({"derived": "yes"}, r"derived: is True .* or False"),
            ({"derived": {"$exists": True}}, r"derived: is True .* or False"),
            ({"start": "Ag"}, "start: needs a query on start documents, not 'Ag'"),
            ({"start_time": "someday"}, "'someday' is not a time"),
            ({"exit_status": {"$where": "1"}}, r"stop: the operator '\$where' is not allowed"),
        ],
        ids=repr,
    )
    def test_what_has_no_meaning_is_refused(
        self, broker: Any, query: dict[str, Any], message: str
    ) -> None:
        """Searches and filters refuse it at once, and the error says what to write."""
        for ask in (broker, broker.add_filter, broker(), broker.header_source):
            with pytest.raises(BadQuery, match=message):
                ask(**query)

    def test_a_header_source_does_not_drop_what_it_cannot_search(self, searched: Any) -> None:
        """A header source has no descriptors, so it refuses conditions on them."""
        with pytest.raises(BadQuery, match=r"cannot search by data_key='det'; a broker can"):
            searched.header_source(data_key="det")
        starts = [start["uid"] for start, _ in searched.header_source(exit_status="fail")]
        assert starts == ["run-1-of-these"]

    def test_start_keys_named_like_such_words(self, searched: Any) -> None:
        """Such keys are searched by ``start=``; a query with the reserved word warns once."""
        assert not _told(lambda: len(searched(derived=False)))
        named: dict[str, Any] = {
            "exit_status": "mine",
            "derived": True,
            "data_key": "k",
            "search": "surf",
        }
        insert_all(searched, make_run(1, uid="with-such-keys", time=9900.0, **named))
        for key, value in named.items():
            assert _uids(searched(start={key: value})) == ["with-such-keys"]
        for ask in (list, len):
            results = searched(exit_status="success")
            told = _told(lambda ask=ask, results=results: ask(results))
            assert told.count("start={'exit_status': …}") == (ask is list)
        assert "start={'derived': …}" in _told(lambda: len(searched(derived=True)))
        assert _uids(searched(derived=True)) == ["derived-of-0"]

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"plan_nam": "scan"}, "The nearest known key is 'plan_name'"),
            ({"plan": "scan"}, "The nearest known key is 'plan_name'"),
            ({"scan": 1}, "The nearest known key is 'scan_id'"),
            ({"sinc": "2026"}, "The nearest word of searches is since="),
            ({"status": "fail"}, "The nearest word of searches is exit_status="),
            ({"operator": "me"}, "The known keys are: .*plan_name"),
            ({"sample.nme": "Ag"}, "The nearest known key is 'sample.name'"),
            ({"name": "Ag"}, "The nearest known key is 'sample.name'"),
            ({"sample.heat.0.zon": 1}, "The nearest known key is 'sample.heat.zone'"),
            (
                {"$or": [{"plan_nam": "scan"}, {"scan_id": 77}]},
                "The nearest known key is 'plan_name'",
            ),
            ({"limit": 3}, r"To limit the number of runs, use a slice, db\(\.\.\.\)\[:10\]"),
            ({"reason": "stuck"}, "Stop documents have it: write stop={'reason': …}"),
            ({"det": 1}, "It is a data key: write data_key='det'"),
            ({"stop": {"exit_statu": "fail"}}, "The nearest known key is 'exit_status'"),
            ({"data_key": "dett"}, "not a data key of the newest .*The nearest known key is 'det'"),
            ({"descriptor": {"nam": "primary"}}, "not a key of descriptor .*known key is 'name'"),
            ({"plan_name": ["scan", "count"]}, r"{'plan_name': {'\$in': \[…\]}}"),
            ({"exit_status": ("fail", "abort")}, r"{'exit_status': {'\$in': \[…\]}}"),
            (
                {"scan_id": "1"},
                r"'scan_id' is a number in the start .*, not text. Write {'scan_id': 1}",
            ),
            ({"scan_id": {"$in": ["1", "2"]}}, r"is a number .* Write {'scan_id': 1}"),
            ({"scan_id": re.compile("1")}, "'scan_id' is a number .* not text"),
            ({"plan_name": 5}, r"is text .*, not a number. Write {'plan_name': '5'}"),
            ({"plan_name": {"$gt": 5}, "scan_id": 1}, "'plan_name' is text"),
            ({"sample": "Ag"}, "is a mapping .* one of its keys: sample.heat.*, sample.name"),
            ({"sample": {"name": "Ag"}}, r"a mapping .* compared as a whole.*{'sample.name': …}"),
            ({"scan_id": {"in": [1, 2]}}, r"compared as a whole.*{'scan_id': {'\$in': …}}"),
            ({"plan_name": "scna"}, "The nearest value is 'scan'"),
            (
                {"time": "1970"},
                "'time' is a number .* dates and times as text, use since= and until=",
            ),
            ({"sample.heat.zone": "1"}, r"Write {'sample.heat.zone': 1}"),
            ({"sample.heat.0.zone": True}, "'sample.heat.0.zone' is a number .* not a boolean"),
            ({"stop": {"num_events.primary": "2"}}, r"Write {'num_events.primary': 2}"),
            ({"descriptor": {"name": 1}}, "'name' is text in the descriptor documents"),
            ({"uid": "run-0-of"}, r"compared as a whole.* uid, use db\['run-0-of'\]"),
            ({"uid": {"$in": ["run-0-of"]}}, r"use db\['run-0-of'\]"),
            ({"uid": "run"}, r"find runs .* use uid={'\$regex': '\^run'}"),
            ({"uid": 7}, "'uid' is text"),
            ({"plan_name": "Scan"}, "'plan_name' is never 'Scan' .* The nearest value is 'scan'"),
            ({"stop": {"exit_status": "sucess"}}, "The nearest value is 'success'"),
            ({"plan_name": {"$in": ["Scan"]}}, "The nearest value is 'scan'"),
            ({"since": "1970-01-02", "until": "1970-01-01"}, "until= is a time before since="),
            ({"full": "plan_name=absent"}, "is looked for as words.* write plan_name=…"),
            ({"full": "x = absent"}, None),
            ({"plan_name": {"$regex": "sca"}, "scan_id": 77}, None),
            ({"plan_name": {"$gt": "sca", "$lt": "scam"}}, None),
            ({"uid": "absent"}, None),
            ({"plan_name": {"$not": {"$regex": "."}}}, None),
            ({"sample.name": None}, None),
            ({"plan_name": "absent"}, None),
            ({"sample.heat.zone": 7}, None),
            ({"sample.heat.0.zone": 7}, None),
            ({"absent": {"$exists": True}}, None),
            ({"derived_from": "absent-run"}, None),
            ({"data_key": "det", "scan_id": 77}, None),
        ],
        ids=repr,
    )
    def test_a_search_that_finds_nothing(
        self, searched: Any, query: dict[str, Any], message: str | None
    ) -> None:
        """A search for an unknown key, or a list, warns once of what may have been meant."""
        if message is None:
            assert not _told(lambda: list(searched(**query)))
            return
        ways = (list, len, bool, repr)
        with pytest.warns(SearchWarning, match=message):
            assert not searched(**query)
        for way in ways:
            assert not _told(lambda way=way: way(searched(**query)))

    def test_runs_made_of_a_run(self, searched: Any) -> None:
        """Derived runs are found by a uid or a part of it; mappings and keys below match too."""
        origin: dict[str, Any] = {"derived_from": "run-2-of-these"}
        insert_all(searched, make_run(1, uid="text-as-origin", time=9800.0, **origin))
        for part in ("run-0-of-these", "run-0-of", "run-0"):
            assert _uids(searched(derived_from=part)) == ["derived-of-0"]
            assert len(searched(derived=True)(derived_from=part)) == 1
        assert _uids(searched(derived_from="run-2-of")) == ["text-as-origin"]
        for part in ("run-1-of", "run", "0-of-these"):
            assert _uids(searched(derived_from=part)) == []
        told = searched["derived-of-0"].start["derived_from"]
        for query in ({"derived_from": told}, {"derived_from.runs": "run-0-of-these"}):
            assert _uids(searched(**query)) == ["derived-of-0"]
        assert _uids(searched(derived_from={"$exists": False}))[0] == "run-3-of-these"
        assert "derived_from='run-0-of'" in repr(searched(derived_from="run-0-of"))

    def test_what_is_found_is_not_warned_of(self, searched: Any) -> None:
        """No warning is given for a list that is stored as such, nor for an empty slice."""
        insert_all(searched, make_run(1, motors=["a", "b"]))
        assert not _told(lambda: list(searched(motors=["a", "b"])))
        assert not _told(lambda: list(searched(plan_name="scan")[5:]))
        assert not _told(lambda: list(searched(plan_nam="scan")[:0]))
        assert "'plan_name'" in _told(lambda: list(searched(plan_nam="scan")[:5]))

    def test_of_too_many_texts_none_is_compared(self, searched: Any) -> None:
        """A run may have a list of any number of texts; others need not be kept to compare."""
        letters = "abcdefghijklmno"
        names = [f"a file of the run {''.join(some)}" for some in product(letters, repeat=3)]
        insert_all(searched, make_run(1, few=names[:9], many=names))
        asked = "a file of the run zzz"
        assert "The nearest value is 'a file of the run" in _told(lambda: len(searched(few=asked)))
        assert not _told(lambda: len(searched(many=asked)))

    def test_a_new_run_brings_new_keys(self, searched: Any) -> None:
        """Known keys are read again when there is another run."""
        assert "'mood'" in _told(lambda: len(searched(mood="bad")))
        assert "'moon'" in _told(lambda: len(searched(moon="full")))
        insert_all(searched, make_run(1, sun="bright"))
        assert not _told(lambda: len(searched(sun="dark")))

    def test_without_runs_nothing_is_said(self, broker: Any) -> None:
        """There is no nearest key in a store without runs, so no warning is given."""
        assert not _told(lambda: len(broker(plan_nam="scan", data_key="det", exit_status="fail")))

    def test_a_source_takes_whole_uids_and_start_documents(self, searched: Any) -> None:
        """A text that is no uid is an error, and a start may have keys such as ``start``."""
        insert_all(searched, make_run(2, uid="abcdef-whole", start=-1, descriptors=[1]))
        header = searched["abcdef"]
        source = header.es_given_stream("primary")
        for run in (header.uid, header.start, header):
            assert source.stream_names_given_header(run) == {"primary"}
            table = source.table_given_header(run, fields=["start:plan_name", "stop:exit_status"])
            assert list(table["start:plan_name"]) == [header.start["plan_name"]] * 2
        for text, why in (
            ("abcdef", r"beginning of a uid.*'abcdef-whole'"),
            ("nope", "uid 'nope'"),
        ):
            for ask in (
                source.stream_names_given_header,
                source.descriptors_given_header,
                source.chunks_given_header,
                source.documents_given_header,
                source.table_given_header,
                source.peek,
            ):
                with pytest.raises(RunNotFound, match=why):
                    ask(text)
        assert header.start in searched
        made = table_to_stream(header.table(), header=header.start)
        assert [name for name, _ in made] == ["start", "descriptor", "event", "event", "stop"]

    def test_a_number_as_text_is_no_scan_id(self, searched: Any) -> None:
        """Nor an offset; the error says what to write. Nor is sealing no run a success."""
        for text in ("3", "-1"):
            with pytest.raises(RunNotFound, match=rf"a number: db\[{text}\]"):
                searched[text]
        for ask in (searched.seal, searched.peek):
            with pytest.raises(RunNotFound, match="no run has the uid 'run-9-of-these'"):
                ask("run-9-of-these")
        assert searched.seal("run-3") >= 0

    def test_runs_in_a_broker(self, searched: Any) -> None:
        """``key in db`` returns whether ``db[key]`` finds a run."""
        header = searched["run-1-of-these"]
        searched.add_filter(plan_name="count")  # narrows searches, not uids
        for key in (header, header.uid, "run-1", header.start, 1, 0, -1, "derived-of-0"):
            assert key in searched
        for key in ("absent", "run", 77, -77):
            assert key not in searched
        searched.clear_filters()
        insert_all(searched, make_run(1, uid="run-0-of-those"))
        with pytest.raises(AmbiguousUID, match="run-0-of-these, run-0-of-those"):
            "run-0" in searched  # noqa: B015
        for key in (None, 1.5, slice(-1, None), [header.uid]):
            with pytest.raises(TypeError, match=r"by uid|needs the uid"):
                key in searched  # noqa: B015

    def test_runs_in_results(self, searched: Any) -> None:
        """Results have runs by uid and prefix, as a broker has; a number is a position."""
        counts = searched(plan_name="count")
        assert counts["run-2-of-these"].uid == counts["run-2"].uid == "run-2-of-these"
        assert counts[0].uid == "derived-of-0"
        assert counts["deriv"] == counts[0]
        assert counts[1:]["run-0"].uid == "run-0-of-these"
        assert "run-2" in counts
        assert counts[0] in counts
        assert searched[1] not in counts
        for results in (counts, counts[:1]):
            assert "run-1-of-these" not in results
            with pytest.raises(RunNotFound, match="none of these runs has the uid 'run-1'"):
                results["run-1"]
        with pytest.raises(KeyError, match="none of these runs has the uid 'run-2'"):
            counts[2:]["run-2"]
        with pytest.raises(TypeError, match="by Header or uid"):
            1 in counts  # noqa: B015

    def test_results_are_narrowed(self, searched: Any) -> None:
        """Results are narrowed by calls and by other results; a slice by its own runs."""
        silver = searched(**{"sample.name": "Ag"})
        scans = searched(plan_name="scan")
        assert _uids(silver(plan_name="scan")) == ["run-3-of-these", "run-1-of-these"]
        assert _uids(silver(data_key="x")(derived=False)(until=1500)) == ["run-0-of-these"]
        assert _uids(silver & scans) == _uids(scans & silver) == _uids(scans)
        assert len(scans & searched(exit_status="fail")) == 1
        assert _uids(silver[:2](plan_name="scan")) == ["run-3-of-these"]
        assert _uids(silver[1:3] & silver[2:]) == ["run-2-of-these"]
        assert _uids(silver("stuck")) == ["run-1-of-these"]
        both = pickle.loads(pickle.dumps(silver & scans))
        assert _uids(both) == _uids(scans)
        assert repr(silver(plan_name="scan")).count("plan_name='scan'") == 1
        with pytest.raises(TypeError, match="unsupported operand"):
            silver & ["run-0-of-these"]

    def test_filters_are_shown(self, searched: Any) -> None:
        """Filters are in the repr of the broker, and once in those of results."""
        assert "filtered" not in repr(searched)
        searched.add_filter(plan_name="scan", derived=False)
        searched.add_filter(since=1500)
        for part in ("plan_name='scan'", "derived=False", "since='1970-01-01"):
            assert repr(searched).count(part) == 1
            assert repr(searched() & searched()).count(part) == 1
        searched.clear_filters()
        assert "filtered" not in repr(searched)

    def test_fields_in_the_place_of_a_stream(self, searched: Any) -> None:
        """The message proposes ``fields=``."""
        header, results = searched["run-1-of-these"], searched(scan_id=1)
        for view in (header.table, header.dataset, results.table, results.dataset):
            with pytest.raises(StreamNotFound, match=r"given as fields=\['det'\]"):
                view(["det"])
        for call in (header.table, header.dataset, header.fields, header.es_given_stream):
            with pytest.raises(StreamNotFound, match=r"'det' is a data key: .*fields=\['det'\]"):
                call("det")
        with pytest.raises(StreamNotFound, match=r"it has: primary$"):
            header.table("absent")

    def test_derived_runs_are_marked(self, searched: Any) -> None:
        """Reprs of headers and results mark derived runs; those of raw runs are unchanged."""
        derived, raw = searched["derived-of-0"], searched["run-0-of-these"]
        assert "derived_from='run-0-of'" in repr(derived)
        assert "run-0-of" in derived._repr_html_()
        badge = '<span class="badge derived">derived</span>'
        assert "derived" not in repr(raw)
        assert badge in derived._repr_html_()
        assert badge not in raw._repr_html_()
        everything, rest = searched(), searched(derived=False)
        assert everything._repr_html_().count(badge) == 1
        assert badge not in rest._repr_html_()
        assert repr(everything).count(", derived") == 1
        assert ", derived" not in repr(rest)

    def test_a_scan_id_means_the_raw_run(self, searched: Any) -> None:
        """Derived runs may repeat the scan_id; one that only they have finds them."""
        assert searched(scan_id=0)[0].uid == "derived-of-0"
        assert searched[0].uid == "run-0-of-these"
        start = {**searched["derived-of-0"].start, "uid": "derived-again", "scan_id": 55}
        searched.insert("start", start)
        assert searched[55].uid == "derived-again"
        assert searched[-1].uid == searched()[0].uid == "derived-again"

    def test_event_sources_are_a_sequence(self, broker: Any) -> None:
        """Event sources are in order, and each is found by its name."""
        sources = broker.event_sources
        assert list(sources) == [sources[index] for index in range(len(sources))]
        for source in sources:
            assert sources[source.name] is source
            assert source in sources
            assert source.name in sources
            assert source.name in repr(sources)
        assert sources[-1] is sources[len(sources) - 1]
        assert sources[:1] == [sources[0]]
        assert dict(sources.items()) == {source.name: source for source in sources}
        with pytest.raises(SourceNotFound, match="no event source 'absent'; there are: "):
            sources["absent"]
        with pytest.raises(IndexError, match="out of range"):
            sources[len(sources)]
