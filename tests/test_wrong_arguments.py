"""An argument of a wrong type or value is an error of the call that names it."""

from __future__ import annotations

import numpy as np
import pytest

import daskbroker
from daskbroker.core.arguments import FLAG, SECONDS, accepts
from daskbroker.core.errors import BadArgument, BadQuery, DaskbrokerError
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


class Odd:
    def __repr__(self):
        raise RuntimeError("no text")


def test_a_name_that_no_argument_has_is_told_with_the_nearest(db):
    insert_all(db, make_run(1))
    with pytest.raises(
        BadArgument, match=r"^connect\(\) has no argument 'readonly'; it has: uri, .*mode"
    ):
        daskbroker.connect(readonly=True)
    with pytest.raises(BadArgument, match=r"'root_map'; write connect\(\{'uri': .*'root_map': "):
        daskbroker.connect(root_map={})
    for view in (db[-1].table, db[-1].dataset, db[-1].documents, db().table, db().dataset):
        with pytest.raises(TypeError, match=r"^\w+\(\) has no argument '.*; the nearest is f\w+="):
            view(field="x", filled=True)
    with pytest.raises(TypeError, match=r"^table\(\) has no argument 'streamname'.* stream_name="):
        db[-1].table(streamname="primary")
    for of in (daskbroker.stream_to_table, daskbroker.RunBuffer().table):
        with pytest.raises(BadArgument, match=r"\(\) has no argument 'peek'; it has: .*timezone"):
            of(**({"doc_generator": []} if of is daskbroker.stream_to_table else {}), peek=True)
    with pytest.raises(BadArgument, match=r"header\.stream\(name\) has .* not 'primary'$"):
        db[-1].documents("primary")
    with pytest.raises(BadArgument, match=r"'stream_name'; write header\.stream\(name\)$"):
        db[-1].events(stream_name="primary")
    with pytest.raises(BadArgument, match=r"'grid'; write header\.dataset\(grid=True\) of each"):
        db().dataset(grid=True)
    with pytest.raises(BadArgument, match=r"'columns'; write fields="):
        db[-1].table(columns=["det"])
    with pytest.raises(BadQuery, match=r"derived_from: a .*Header is no .*; write its uid, or use"):
        db(derived_from=db[-1])
    with pytest.raises(BadArgument, match="has no argument 'fmt'; it has: folder, format, stream"):
        db().export("out", fmt="csv")
    with pytest.raises(BadQuery, match=r"not one of text, .*; db\.insert inserts documents"):
        db("start", {"uid": "u"})  # as of RE.subscribe(db)


def test_every_wrong_argument_is_named(db, tmp_path):
    insert_all(db, make_run(3))
    header, results = db[-1], db()
    table, dataset = header.table(), header.dataset()
    other = daskbroker.connect(tmp_path / "other")
    start = make_run(1)[0][1]

    def copy_runs(runs):
        daskbroker.copy(runs, other)

    def make_broker(header_source):
        daskbroker.DataBroker(header_source, db.event_sources)

    def all_documents(of):
        return lambda **given: list(of.documents(**given))

    calls = [
        (daskbroker.connect, (), {"uri": (5, 1.5, [], b"x", object()), "create": ("zz", None, -1)}),
        (daskbroker.connect, (tmp_path / "s",), {"mode": ("", [], 5), "timezone": ("", [], 5)}),
        (daskbroker.check, (), {"runs": ("zz", 5, None, b"x", [5], {5: 5}, object())}),
        (daskbroker.check, (db,), {"files": ("zz", None, []), "progress": ("zz", 5)}),
        (copy_runs, (), {"runs": ("zz", 5, None, [5], (1, "zz"), {5: 5}, b"x")}),
        (
            daskbroker.copy,
            (db, other),
            {"files": (5, "", b"x"), "verify": ("zz",), "progress": (5,)},
        ),
        (lambda db: daskbroker.backup(db, tmp_path / "b"), (), {"db": ("zz", 5, None, header)}),
        (daskbroker.backup, (db,), {"folder": (5, None, "", b"x", [])}),
        (lambda results: daskbroker.reprocess(results, len, other), (), {"results": (5, "zz")}),
        (daskbroker.reprocess, (db, len, other), {"parameters": (5, "zz", [5]), "name": (5, "")}),
        (daskbroker.attrs, (), {"source": (None, 5, "zz", [])}),
        (daskbroker.stream_to_table, (), {"doc_generator": (None, 5)}),
        (daskbroker.table_to_stream, (table,), {"stream": ("", [5]), "time": ("zz", [], b"x")}),
        (daskbroker.table_to_stream, (table,), {"provenance": (5, "zz"), "uid": (5, "")}),
        (daskbroker.dataset_to_stream, (dataset,), {"stream": ("", [5]), "time": ("zz", [])}),
        (daskbroker.PageBuffer, (), {"rows": (0, None, "zz", 1.5), "in_order": ("zz",)}),
        (daskbroker.verify_references, (), {"references": (5, None, [])}),
        (make_broker, (), {"header_source": (5, None)}),
        (daskbroker.DataBroker, (db.header_source,), {"event_sources": (5, [5], "zz", None)}),
        (
            lambda **given: daskbroker.DataBroker(db.header_source, db.event_sources, **given),
            (),
            {
                "root_map": (
                    5,
                    ["/a"],
                    {"/a": 5},
                    {"/a": None},
                    {5: "/a"},
                    {"/a": ""},
                    {b"/a": "/b"},
                )
            },
        ),
        (daskbroker.DataBroker.named, (), {"name": (5, "", None, [])}),
        (daskbroker.DataBroker.from_config, (), {"config": (5, "zz", None)}),
        (db.insert, ("start", start), {"run": (5, [], b"x")}),
        (db.watch, (), {"interval": (-1, "zz", None, float("nan")), "timeout": (-1, "zz", [])}),
        (db.watch, (), {"interval": (float("inf"), 1e12), "timeout": (np.timedelta64(1, "s"),)}),
        (lambda spec: db.register_handler(spec, "json:loads"), (), {"spec": (5, "", None, [5])}),
        (db.deregister_handler, (), {"spec": (5, "", None, [])}),
        (db.seal, (), {"keep_journal": ("zz", None, [])}),
        (header.follow, (), {"stream_name": (None, 5, ["primary"])}),
        (header.follow, (), {"interval": (-1, "zz", None), "timeout": (-1, "zz")}),
        (header.references, (), {"to": (5, "zz", [5])}),
        (header.plot, (), {"frame": ("a", 1.5, True, [0], (), (0, "a"))}),
        (header.export, (), {"path": (5, "", None, b"x")}),
        (header.export, (tmp_path / "e",), {"format": ("", 5, [])}),
        (results.export, (), {"folder": (5, "", None, b"x")}),
        (results.export, (tmp_path / "e", "csv"), {"verify": ("no",), "resume": ("no", None)}),
        (header.export, (tmp_path / "e", "csv"), {"verify": ("no", None), "fill": ("no",)}),
        (results.map, (), {"func": (5, None, "zz")}),
        (results.map, (len,), {"in_flight": (0, -1, "zz", 1.5), "progress": ("zz", [])}),
        (results.map, (len,), {"in_flight": (np.timedelta64(2),)}),
        (results.__getitem__, (), {"key": (None, 1.5, [])}),
    ]
    rest = {
        "fill": ("zz", None, [], -1),
        "duplicates": (b"x", None, []),
        "handler_registry": (5, "zz", []),
        "handler_overrides": (5, "zz", []),
        "fill_value": ({5: 5},),
        "fields": (5, [5], b"x"),
    }
    for views in (header, results):
        calls += [(views.table, (), rest), (views.dataset, (), {**rest, "chunks": ("", [], 1.5)})]
        quick = {name: values for name, values in rest.items() if name != "duplicates"}
        if views is results:  # some of many runs may have such a key
            del quick["fill_value"]
        calls.append((all_documents(views), (), quick))
    for function, given, wrong in calls:
        for name, values in wrong.items():
            for value in values:
                told = f"{function}({name}={value!r})"
                shown = {"key": "index", "fields": "field"}.get(name, name)
                with pytest.raises(DaskbrokerError, match=shown):
                    pytest.fail(f"{told} gave {function(*given, **{name: value})!r}")
    other.close()


def test_less_usual_arguments_that_are_right(db, tmp_path):
    """Paths as they come, NumPy's scalars, and an endless timeout."""
    insert_all(db, make_run(3))
    for roots in ([tmp_path], (str(tmp_path), tmp_path), {tmp_path}, np.array([str(tmp_path)])):
        broker = daskbroker.DataBroker(db.header_source, db.event_sources, readable_roots=roots)
        assert set(broker.readable_roots) == {str(tmp_path)}
    for timeout in (np.float32(60), np.int8(60), float("inf"), np.inf, None):
        assert len(list(db[-1].follow("primary", timeout=timeout))) == 6
        assert next(iter(db.watch(interval=0.01, timeout=0)), None) is None


def test_arguments_are_checked_however_they_are_given():
    @accepts(second=FLAG, third=SECONDS.or_none())
    def function(first, second=False, *, third=None):
        """Text."""
        return first, second, third

    assert function.__doc__ == "Text."
    assert function(1, True, third=2) == (1, True, 2)
    assert function(1, second=np.True_) == (1, True, None)
    assert function(1, 0, third=np.float32(0.5)) == (1, 0, 0.5)
    for call in (lambda: function(1, "no"), lambda: function(1, second="no")):
        with pytest.raises(BadArgument, match="second takes True or False, not 'no'"):
            call()
    with pytest.raises(BadArgument, match="third takes a number of seconds, 0 or more, or None"):
        function(1, third=-1)
    with pytest.raises(BadArgument, match="not … of type Odd"):
        function(1, Odd())
    with pytest.raises(TypeError, match="first"):
        function()
