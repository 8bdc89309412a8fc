"""Text of documents where it meets terminals, HTML, patterns, dtypes and paths."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings

import dask
import msgpack
import numpy as np
import pytest
from dask.utils import key_split

import daskbroker
from daskbroker.assets.transfer import _is_made_of, _literals
from daskbroker.core.errors import (
    BadDocument,
    BadQuery,
    ConfigError,
    DaskbrokerError,
    FieldNotFound,
    OffsetOutOfRange,
    StreamNotFound,
)
from daskbroker.core.name_lists import listed, misspelled, nearest
from daskbroker.core.printable import printable, shown
from daskbroker.testing import RunBuilder, assert_documents_equal, make_run, stream_datum_run
from daskbroker.work.ingest import ingest

EVIL = {
    "escape": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "C1": "\x9b31m",
    "bidi": "abc\u202etxt.exe\u2066",
    "newline": "one\ntwo\rthree\u2028four",
    "surrogate": "half\ud800",
    "rest": "\x00\x7f\u200b",
}
PLAIN = "Grüße, Ω 试样 42"


def is_plain(text):
    return all(sign.isprintable() or sign == "\n" for sign in text)


def insert_all(db, documents):
    for name, doc in documents:
        db.insert(name, doc)


# -- terminals -------------------------------------------------------------------------------


def test_printable():
    assert printable(PLAIN) == PLAIN
    assert printable("\x1b[31m\n\u202e\ud800\x9b") == r"\x1b[31m\n\u202e\ud800\x9b"
    for text in EVIL.values():
        assert printable(text).isprintable()


class Unreadable:
    """An object whose ``repr`` fails."""

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, "a"], "[1, 'a']"),
        (list(range(500)), "a list of 500 items"),
        (dict.fromkeys(range(500)), "a mapping of 500 items"),
        ("a" * 500 + "z", f"'{'a' * 97} … {'a' * 96}z'"),
        (range(10**300), f"range(0, 1{'0' * 190}… of type range"),
        (Unreadable(), "… of type Unreadable"),
    ],
    ids=["short", "list", "mapping", "text", "long", "unreadable"],
)
def test_a_value_in_a_message(value, text):
    assert shown(value) == text


def test_a_value_in_a_message_that_is_nested_deeper_than_python_goes():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "a list that is nested too deeply to be shown"


@pytest.fixture
def evil_store(tmp_path):
    """A run with unpleasant text wherever a document may have some."""
    text = "".join(EVIL[name] for name in EVIL if name != "surrogate")
    run = make_run(
        keys={"x": [1.0, 2.0], f"key{text}": [1.0, 2.0], "words": [text, "b"]},
        uid="evil-run",
        stream=f"str{text}",
        plan_name=text,
        sample={text: text, "half": EVIL["surrogate"]},
        reason=text,
    )
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, run)
    return tmp_path / "store", f"str{text}", f"key{text}"


LINES = (
    ("ls",),
    ("ls", "--json"),
    ("show", "-1"),
    ("show", "-1", "--stream", "nothing"),
    ("show", "no\x1b[31mthing"),
    ("info",),
    ("check",),
    ("ls", "$\x1b[31m=1"),
)

COMMANDS = """
import json, os, sys
import daskbroker.cli, daskbroker.connect, daskbroker.header  # once, not for each line
for number, line in enumerate(json.loads(sys.argv[1])):
    if not os.fork():
        for handle in (1, 2):
            os.dup2(os.open(f"{sys.argv[2]}/{number}.{handle}", os.O_WRONLY | os.O_CREAT), handle)
        sys.argv = ["daskbroker", *line]
        daskbroker.cli.main()
    os.wait()
"""
"""Lines of the command line, each by a process of its own with files for what it prints."""


def test_no_text_of_a_document_has_an_effect_on_a_terminal(evil_store, tmp_path):
    store, *_ = evil_store
    lines = json.dumps([(*arguments, "--db", str(store)) for arguments in LINES])
    subprocess.run([sys.executable, "-c", COMMANDS, lines, str(tmp_path)], check=True)
    for number, arguments in enumerate(LINES):
        printed, errors = ((tmp_path / f"{number}.{handle}").read_bytes() for handle in (1, 2))
        for text in (printed, errors):
            assert is_plain(text.decode()), arguments
            assert b"Traceback" not in text, arguments
        assert len(errors.splitlines()) <= 1, arguments
        assert printed + errors, arguments
        if arguments == ("ls",):
            assert len(printed.splitlines()) == 2  # with its heading


def test_errors_and_reprs_are_plain_lines(evil_store):
    store, stream, _ = evil_store
    with daskbroker.connect(store) as db:
        header = db[-1]
        errors = []
        for wrong in (
            lambda: header.table("nothing"),
            lambda: header.table(stream, fields=["nothing"]),
            lambda: header.config_data("nothing"),
            lambda: header.dataset(stream, dtypes={"nothing": "f8"}),
            lambda: header.table(stream, fields=[f"({EVIL['escape']}"]),
            lambda: db(**{EVIL["escape"]: {"$where": 1}}),
            lambda: db[EVIL["escape"]],
        ):
            with pytest.raises(
                DaskbrokerError, check=lambda error: str(error).isprintable()
            ) as caught:
                wrong()
            errors.append(str(caught.value))
        shown = [repr(header), repr(db(plan_name=EVIL["escape"])), repr(db), *errors]
        assert all(line.isprintable() for text in shown for line in text.split("\n")), shown
        for html in (header._repr_html_(), db()._repr_html_()):
            assert is_plain(html)


def test_values_of_a_wrong_type_are_named(db):
    for name, doc in make_run(2):
        db.insert(name, doc)
    header = db[-1]
    dataset = header.dataset()
    for wrong, message in (
        (lambda: header.dataset(dtypes="f4"), "dtypes must be a mapping by variable.*not 'f4'"),
        (lambda: header.dataset(roi=5), "roi must be a mapping by variable.*not 5"),
        (lambda: header.plot(y=5), "no data key 5 to plot"),
        (lambda: db().to_dataframe(5), "'start:sample.name', not 5"),
        (lambda: daskbroker.savable(dataset["x"]), r"is not a Dataset; .to_dataset\(name='x'\)"),
        (
            lambda: list(daskbroker.dataset_to_stream(header.table())),
            "table_to_stream takes a table",
        ),
        (lambda: list(daskbroker.dataset_to_stream(5)), "a int is not a Dataset"),
    ):
        with pytest.raises(DaskbrokerError, match=message):
            wrong()


def test_warnings_are_plain_lines(tmp_path):
    content = {"uri": str(tmp_path / "store"), f"odd{EVIL['escape']}": 1}
    with pytest.raises(ConfigError, check=lambda error: str(error).isprintable()) as caught:
        daskbroker.DataBroker.from_config(content)
    assert str(caught.value).isprintable()
    old = {
        "metadatastore": {
            "module": "databroker.headersource.mongo", "class": "MDS",
            "config": {"host": "h", "port": 1, "database": "d"},
        },
        "assets": {
            "module": "databroker.assets.mongo", "class": "Registry",
            "config": {"host": "h", "port": 1, "database": "d"},
        },
        f"odd{EVIL['escape']}": 1,
    }  # fmt: skip
    from daskbroker.configuration import settings_of

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        settings_of(old, f"file{EVIL['bidi']}")
    assert all(str(one.message).isprintable() for one in seen)


# -- lists of names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name"),
    [("plan", "plan_type"), ("id", "uid"), ("Smaple", "sample"), ("ophyd", "versions.ophyd"),
     ("detector", "detectors"), ("xyz", None), ("user", None), ("", None)],
)  # fmt: skip
def test_the_nearest_name_is_like_what_was_asked(asked, name):
    known = ["plan_type", "plan_name", "uid", "sample", "versions.ophyd", "detectors", "purpose"]
    assert nearest(known, asked) == name
    assert nearest([], asked) is None


def test_few_names_are_all_listed():
    assert listed([]) == "none"
    assert listed(["b", "a"], "x") == "b, a"


def test_of_many_names_the_nearest_are_listed():
    names = [f"detector_{n}_stats" for n in range(500)] + ["eiger_exposure_time"]
    text = listed(names, "eiger_exposure")
    assert text.startswith("eiger_exposure_time, ")
    assert text.endswith("(501 in all)")
    assert len(text) < 400
    assert len(listed(["x" * 10_000] * 3)) < 400


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("Count", "count"), ("gridscan", "grid_scan"), ("cuont", "count"), ("LAB6", "LaB6"),
     ("b6al", "LaB6"), ("Ag-4", None), ("fly", None), ("", None)],
)  # fmt: skip
def test_a_wrong_spelling_is_recognized(asked, meant):
    assert misspelled(["count", "grid_scan", "Ag-3", "LaB6"], asked) == meant


@pytest.fixture
def wide(db):
    """A run of 500 data keys, streams apart."""
    keys = {f"detector_{n:03}_stats": [1.0] for n in range(500)}
    insert_all(db, make_run(keys=keys, uid="wide-run"))
    return db["wide-run"]


def test_no_error_lists_500_names(db, wide):
    for wrong in (
        lambda: wide.table(fields=["detector_400_stat"]),
        lambda: wide.table(fields=["("]),
        lambda: wide.dataset(dtypes={"detector_400_stat": "f8"}),
    ):
        with pytest.raises(DaskbrokerError, match="500 in all") as caught:
            wrong()
        assert len(str(caught.value)) < 600
        assert "500 in all" in str(caught.value)
    with pytest.raises(FieldNotFound, match="there are: detector_400_stats, "):
        wide.table(fields=["detector_400_stat"])


def test_what_was_asked_for_is_cut_too(db, wide):
    long = dict.fromkeys((f"key-{n}" for n in range(500)), 1)
    for wrong in (
        lambda: wide.table(long),
        lambda: wide.table(fields=[long]),
        lambda: wide.table(fields=["x" * 900]),
        lambda: db["x" * 100_000],
    ):
        with pytest.raises(DaskbrokerError, check=lambda error: len(str(error)) < 1000) as caught:
            wrong()
        assert len(str(caught.value)) < 1000


def test_of_many_streams_the_nearest_are_named(db):
    documents = make_run(1, uid="streams", stop=False)
    insert_all(db, documents)
    descriptor = next(doc for name, doc in documents if name == "descriptor")
    for number in range(60):
        db.insert("descriptor", {**descriptor, "uid": f"d{number}", "name": f"stream-{number}"})
    with pytest.raises(StreamNotFound, match="has: stream-33, ") as caught:
        db["streams"].table("stream_33")
    assert "has: stream-33, " in str(caught.value)
    assert len(str(caught.value)) < 500


# -- graphs and HTML -------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def script_run(db):
    insert_all(
        db, make_run(keys={SCRIPT: [[1.0, 2.0], [3.0, 4.0]], "x": [1.0, 2.0], "a-b": [1, 2]})
    )
    return db[-1]


def graph_keys(graph):
    names = {str(key[0] if isinstance(key, tuple) else key) for key in graph}
    return names | set(map(str, getattr(graph, "layers", ())))


@pytest.fixture
def lazy():
    """So that small streams, too, are arrays of Dask."""
    with dask.config.set({"daskbroker.loaded-size": 0}):
        yield


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("chunks", ["auto", {"time": 1}, 1])
def test_keys_of_graphs_are_clean(script_run, chunks):
    dataset = script_run.dataset(chunks=chunks)
    assert set(dataset.data_vars) >= {SCRIPT, "x", "a-b"}
    names = graph_keys(dataset.__dask_graph__())
    assert names
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names), names
    np.testing.assert_array_equal(dataset[SCRIPT].compute(), [[1.0, 2.0], [3.0, 4.0]])
    html = dataset.__dask_graph__()._repr_html_()
    assert "<script>" not in html
    again = script_run.dataset(chunks=chunks)
    assert graph_keys(again.__dask_graph__()) == names


@pytest.mark.usefixtures("lazy")
def test_keys_name_run_stream_and_key(db):
    """The dashboard groups tasks by what comes before the first digits."""
    for _ in range(2):
        insert_all(db, make_run(keys={"x": [1.0, 2.0]}, streams=("primary", "dark")))
    header = db[-1]
    uid = header.uid[:8]
    found = {
        f"daskbroker-primary-x-{uid}": header.dataset()["x"],
        f"daskbroker-primary-read-{uid}": header.dataset()["x"],
        f"daskbroker-dark-{uid}-x": header.dataset("dark", chunks=1)["x"],
        "daskbroker-primary-x-2.runs": db().dataset()["x"],
        f"daskbroker-primary-{uid}": header.table().optimize(),
        "daskbroker-dark-2.runs": db().table("dark").optimize(),
    }
    for name, collection in found.items():
        keys = graph_keys(collection.__dask_graph__())
        assert any(key.startswith(f"{name}-") for key in keys), (name, keys)
    assert key_split(header.dataset()["x"].data.name) == "daskbroker-primary-x"


def test_a_table_shows_no_script(script_run):
    table = script_run.table()
    for lazy in (table, table[[SCRIPT]], table.mean(numeric_only=True)):
        graph = lazy.dask
        assert all("<" not in name for name in graph_keys(graph))
        for html in (lazy._repr_html_() if hasattr(lazy, "_repr_html_") else "",
                     graph._repr_html_() if hasattr(graph, "_repr_html_") else ""):  # fmt: skip
            assert "<script>" not in html


def test_variables_keep_their_names_and_attributes(script_run):
    one, other = script_run.dataset(), script_run.dataset(chunks={"time": 1})
    for name in one.variables:
        assert one[name].attrs == other[name].attrs
        assert one[name].dims == other[name].dims


# -- patterns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", re.compile("(a+)+$"), "(a|a)+$", "data:(a|a)+$", "ts:(a|a)+$"]
)
def test_a_pattern_of_fields_that_takes_for_ever_is_an_error(db, pattern):
    insert_all(db, make_run(keys={"a" * 60 + "!": [1.0], "a" * 61 + "!": [1.0]}))
    began = time.process_time()
    with pytest.raises(FieldNotFound, match=r"took longer|matches no data key") as caught:
        db[-1].table(fields=[pattern])
    assert time.process_time() - began < 5
    if "|" in getattr(pattern, "pattern", pattern):  # others are quick in this engine
        assert isinstance(caught.value, BadQuery)


def test_documents_of_many_runs_end_at_such_a_pattern(db):
    for _ in range(20):
        insert_all(db, make_run(keys={"a" * 60 + "!": [1.0]}))
    began = time.process_time()
    with pytest.raises(FieldNotFound, match="took longer"):
        list(db().documents(fields=["(a|a)+$"]))
    assert time.process_time() - began < 10


def test_patterns_of_fields_mean_what_they_did(db):
    insert_all(db, make_run(keys={"det_a": [1.0], "det_b": [1.0], "Motor": [1.0]}))
    header = db[-1]
    assert list(header.table(fields=["det_.*"]).columns) == ["time", "det_a", "det_b"]
    wanted = re.compile("MOTOR", re.IGNORECASE)
    assert list(header.table(fields=[wanted]).columns) == ["time", "Motor"]
    with pytest.raises(FieldNotFound, match="text"):
        header.table(fields=[re.compile(b"x")])


def test_templates_of_files_need_no_backtracking():
    literals = _literals({"template": "folder/" + "%d" * 40 + "!"})
    began = time.process_time()
    assert not _is_made_of("1" * 200, literals)
    assert _is_made_of("1" * 200 + "!", literals)
    assert time.process_time() - began < 1
    for template, name, found in (
        ("img_%05d.tif", "img_00001.tif", True),
        ("img_%05d.tif", "img_.tiff", False),
        ("a%da", "a", False),
        ("{:03d}-{}.h5", "001-2.h5", True),
        ("plain.h5", "plain.h5", True),
        ("plain.h5", "plain.h5x", False),
        ("", "anything", True),
    ):
        assert _is_made_of(name, _literals({"template": template})) is found


# -- dtypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["(2, i4", "(2,)i4", "O", "i4,(2,3)f8", "{'names':", "V8", "i4" * 2000, "(" * 5000, ""]
)
def test_ingest_takes_only_plain_dtypes(db, tmp_path, kind):
    array = {b"nd": True, b"type": kind.encode(), b"kind": b"", b"shape": [1], b"data": b"12345678"}
    documents = [["start", {"uid": "u", "time": 1.0, "x": array}]]
    (tmp_path / "run.msgpack").write_bytes(b"".join(map(msgpack.packb, documents)))
    report = ingest(db, [tmp_path / "run.msgpack"])
    assert report.refused == 1
    assert "run.msgpack" in report.refusals[0].reason


def test_ingest_takes_plain_dtypes(db, tmp_path):
    value = np.arange(3, dtype="<u2")
    array = {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": [3],
             b"data": value.tobytes()}  # fmt: skip
    path = tmp_path / "run.msgpack"
    path.write_bytes(msgpack.packb(["start", {"uid": "run-u", "time": 1.0, "x": array}]))
    assert ingest(db, [path]).refused == 0
    assert db["run-u"].start["x"] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["(2, i4", "(" * 5000, "O", "i4,(2"])
def test_a_claimed_dtype_that_numpy_cannot_parse(db, kind):
    documents = list(stream_datum_run())
    for name, doc in documents:
        if name == "descriptor":
            doc["data_keys"] = {
                key: {**claim, "dtype_str": kind} for key, claim in doc["data_keys"].items()
            }
    insert_all(db, documents)
    assert "img" in db[-1].dataset(peek=False)


# -- numbers, places, objects ----------------------------------------------------------------

BIG = 10**30


@pytest.fixture(params=["embedded", "mongodb"])
def two_runs(request, tmp_path):
    place = tmp_path / "store"
    if request.param == "mongodb":
        place = request.getfixturevalue("mongo_database")
    with daskbroker.connect(place) as db:
        for number in range(2):
            insert_all(db, make_run(2, uid=f"run-{number}-abc", scan_id=number))
        yield db


def test_numbers_that_no_store_has(two_runs):
    db = two_runs
    for wrong in (
        lambda: db[-BIG],
        lambda: db()[BIG],
        lambda: db()[-BIG],
        lambda: db.header_source[-BIG],
    ):
        with pytest.raises(OffsetOutOfRange, match="2 runs"):
            wrong()
    assert [h.uid for h in db[-BIG:]] == [h.uid for h in db()[:BIG]] == ["run-1-abc", "run-0-abc"]
    assert db[:-BIG] == list(db()[BIG:]) == list(db()[BIG : 2 * BIG]) == []
    assert len(db()[BIG:]) == 0
    with pytest.raises(KeyError, match="no run has the scan_id"):
        db[BIG]


def test_things_in_place_of_a_run_or_a_stream(two_runs):
    db, header = two_runs, two_runs[-1]
    assert db.seal(header) == db.seal(header.start) == db.seal(header.uid) == 0
    for wrong in ({"a": 1}, ["run-1-abc"], 5):
        with pytest.raises(TypeError, match="a header, a start document or a uid"):
            db.seal(wrong)
    for wrong in ({"a": 1}, ["primary"], 5, None):
        for method in (
            header.table, header.dataset, header.es_given_stream, header.fields, header.devices,
            db().table, db().dataset,
        ):  # fmt: skip
            with pytest.raises(StreamNotFound, match="stream"):
                method(wrong)
        with pytest.raises(StreamNotFound, match="stream"):
            list(header.stream(wrong))
        with pytest.raises(FieldNotFound, match="device"):
            header.config_data(wrong)
    with pytest.raises(FieldNotFound, match="names and patterns"):
        header.table(fields=5)


class Bad:
    """Raises wherever it is asked."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("boom")


class BadMapping(dict):
    """Raises where it is read."""

    def items(self):
        raise RuntimeError("boom")


class BadNumber(int):
    def __int__(self):
        raise RuntimeError("boom")


@pytest.mark.parametrize("kind", [Bad, BadMapping, BadNumber])
def test_objects_that_raise(two_runs, kind):
    value = kind()
    with pytest.raises(BadDocument, match=r"start 'odd'.*boom"):
        two_runs.insert("start", {"uid": "odd", "time": 1.0, "x": value})
    run = two_runs[-1].uid
    with pytest.raises(BadDocument, match="boom"):
        two_runs.insert("resource", {
            "uid": "r", "run_start": run, "spec": "x", "root": "", "resource_path": "",
            "resource_kwargs": {"x": value}, "path_semantics": "posix",
        })  # fmt: skip


@pytest.mark.parametrize("shape", [4, "four", {}, None, [True], [0], [-1], ["x"], [[1]], []])
def test_a_chunk_shape_of_any_kind(db, shape):
    documents = list(stream_datum_run())
    for name, doc in documents:
        if name == "stream_resource":
            doc["parameters"] = {**doc["parameters"], "chunk_shape": shape}
    insert_all(db, documents)
    dataset = db[-1].dataset(peek=False)
    external = next(name for name in dataset.data_vars if dataset[name].ndim > 1)
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(DaskbrokerError, match="no such file"),
    ):
        dataset[external].compute()  # there is no file


@pytest.mark.parametrize("begin", ["\n", "\n\n  \n", "\ufeff\n", "\r\n\t\n"])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_recording_that_begins_with_blank_lines(db, tmp_path, begin, form):
    documents = make_run(3)
    whole = json.dumps(documents, indent=1)
    text = "\n".join(map(json.dumps, documents)) if form == "lines" else whole
    (tmp_path / "run.jsonl").write_text(begin + text)
    assert ingest(db, [tmp_path / "run.jsonl"]).refused == 0
    assert_documents_equal(documents, db[-1].documents())


def test_lines_are_counted_from_the_first(db, tmp_path):
    first = json.dumps(make_run(1)[0])
    (tmp_path / "run.jsonl").write_text(f"\n\n{first}\n[nonsense\n")
    (refusal,) = ingest(db, [tmp_path / "run.jsonl"]).refusals
    assert "line 4" in refusal.reason
    (tmp_path / "blank.jsonl").write_text("\n\n\n")
    (refusal,) = ingest(db, [tmp_path / "blank.jsonl"]).refusals
    assert "blank.jsonl" in refusal.reason


STRANGE = [
    "file://otherhost/x", "file://localhostx/y", "file://", "file://me:s3cret@host/x",
    "file:/tmp/x", "file:x", "http:/x", "mongodb:/me:s3cret@h/db", "mongodb:me:s3cret@h/db",
    "mongodb//me:s3cret@h/db", "me:s3cret@h/db", "//me:s3cret@h/db", " mongodb://me:s3cret@h/db",
    "mongodb:/me:s3cret@h/db.yml", "mongodb+srv:/me:s3cret@h/db", "redis:/me:s3cret@h/1",
    "mongodb:\\\\me:s3cret@h/db", "mongodb;//me:s3cret@h/db", "MongoDB:/me:s3cret@h/db",
]  # fmt: skip


@pytest.mark.parametrize("place", STRANGE)
def test_strange_places_are_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    for make in (
        lambda: daskbroker.connect(place),
        lambda: daskbroker.connect({"uri": place}),
    ):
        with pytest.raises(ConfigError, check=lambda error: "s3cret" not in str(error)) as caught:
            make()
        assert "s3cret" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_places_that_are_sound(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    for place in (
        f"file://{tmp_path}/one", f"file://localhost{tmp_path}/two", f"FILE{tmp_path}"[4:] + "/x",
        "./mongodb:x", "./a:b", "./plain",
    ):  # fmt: skip
        daskbroker.connect(place).close()
    assert sorted(os.listdir(tmp_path)) == ["a:b", "mongodb:x", "one", "plain", "two", "x"]


def test_a_malformed_uri_in_a_document(db):
    from daskbroker.assets.files.resolving import resolve
    from daskbroker.core.errors import FillError

    with pytest.raises(FillError, match="malformed"):
        resolve({"uid": "r", "mimetype": "x/y", "uri": "file://[x"})


def test_text_with_lone_surrogates_in_every_view(db, tmp_path):
    """Neither Arrow nor pandas' text can hold it; it is an object then."""
    half = EVIL["surrogate"]
    run = RunBuilder(sample=half, plan_name=half, detectors=[half])
    text = {"source": half, "dtype": "string", "shape": []}
    device = {"data": {"s": half}, "timestamps": {"s": 1.0}, "data_keys": {"s": text}}
    descriptor = run.descriptor({"x": 0.5, "t": text}, configuration={"det": device})
    run.event(descriptor, {"x": 1.0, "t": half})
    insert_all(db, run.stop(reason=half))
    savable = daskbroker.savable
    savable(db[-1].dataset()).to_netcdf(tmp_path / "one.nc")
    savable(db[-1].tree()).to_netcdf(tmp_path / "tree.nc")
    savable(db[-1].dataset(fields=["x", "start:sample", "config:det:s"])).to_netcdf(
        tmp_path / "fields.nc"
    )
    db[-1].export(tmp_path / "run.jsonl")
    other = daskbroker.connect(tmp_path / "other")
    for file in ("run.jsonl", "one.nc", "tree.nc", "fields.nc"):
        (uid,) = ingest(other, [tmp_path / file]).runs
        header = other[uid]
        (stream,) = header.streams
        table = header.table(stream, fields=["x", "start:plan_name"]).compute()
        assert table["start:plan_name"].tolist() == [half]
        assert header.table(stream).compute()["x"].tolist() == [1.0]
        dataset = header.dataset(stream).load()
        if file != "fields.nc":
            assert dataset["t"].values.tolist() == [half]
        assert daskbroker.attrs(dataset)["start"]["sample"] == half
        header.export(tmp_path / f"{file}.again.nc", format="netcdf")
        header.export(tmp_path / f"{file}.parquet", format="parquet")
        header._repr_html_().encode()
    frame = other().to_dataframe(["sample", "start:plan_name"])
    assert set(frame["sample"]) == set(frame["start:plan_name"]) == {half}
    assert len(other(sample=half)) == len(other())
