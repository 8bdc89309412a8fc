"""A store that ``daskbroker serve`` serves, read by Tiled's clients and its page."""

from __future__ import annotations

import html
import io
import itertools
import re
import sys

import dask
import httpx
import numpy as np
import pandas as pd
import pytest
from bluesky_tiled_plugins.queries import ScanIDRange, TimeRange
from tiled.client import from_uri
from tiled.queries import (
    Comparison,
    Contains,
    Eq,
    FullText,
    In,
    KeyPresent,
    KeysFilter,
    Like,
    NotEq,
    NotIn,
    Regex,
    SpecsQuery,
    StructureFamilyQuery,
)

import daskbroker
from ci.browser import dom
from daskbroker.core.documents import plain
from daskbroker.core.errors import ConfigError
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import stream_run
from daskbroker.testing.runs import RunBuilder, external_run, make_run, ragged_run, rewound_run
from daskbroker.tiled import BrokerCatalog, Server

from .conftest import KEY, running

SAMPLES = ("silver foil", "gold", "silver salt", "copper")


def odd_run():
    """Two descriptors, arrays, texts, booleans, and a key that Tiled keeps for itself."""
    run = RunBuilder(scan_id=77, sample={"name": "glass"}, motors=["th", "tth"], big=2**70)
    keys = {"spectrum": [1.0, 2.0], "label": "a", "open": True, "_hidden": 1, "n": 1}
    configuration = {"det": {"data": {"gain": 1}, "timestamps": {"gain": 0.0}, "data_keys": {}}}
    for gain in (1, 2):
        configuration["det"]["data"] = {"gain": gain}
        own = {"det": {**configuration["det"], "data": {"gain": gain}}}
        descriptor = run.descriptor(keys, configuration=own)
        for n in range(3):
            cells = {"spectrum": [n, gain], "label": f"ß{n}", "open": bool(n % 2)}
            run.event(descriptor, {**cells, "_hidden": n, "n": 10 * gain + n})
    return run.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with daskbroker.connect(folder / "store") as db:
        for n, sample in enumerate(SAMPLES):
            start = {"sample": {"name": sample}, "num_points": n, "tags": ["a", f"t{n}"]}
            insert_all(db, make_run(events=12, scan_id=n + 1, **start))
        files, _ = stream_run(folder)
        for documents in (odd_run(), files, ragged_run(), rewound_run(), external_run()):
            insert_all(db, documents)
    return folder / "store"


@pytest.fixture(scope="module")
def db(place):
    with daskbroker.connect(place) as broker:
        yield broker


@pytest.fixture(scope="module")
def url(place, free_port):
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "daskbroker", "serve", "--db", str(place), "--port", str(port)]
    with running(command, base, TILED_SINGLE_USER_API_KEY=KEY):
        yield base


@pytest.fixture(scope="module")
def catalog(url):
    client = from_uri(f"{url}/?api_key={KEY}")
    yield client
    client.context.http_client.close()


def refers_to_nothing(header):
    return any("/nowhere" in repr(dict(doc)) for _, doc in header.documents(fill=False))


def of_images(db):
    return next(h for h in db() if "img" in h.fields() and not refers_to_nothing(h))


QUERIES = [
    (Eq("start.sample.name", "gold"), {"sample.name": "gold"}),
    (Eq("scan_id", 77), {"scan_id": 77}),
    (NotEq("start.sample.name", "gold"), {"sample.name": {"$exists": True, "$ne": "gold"}}),
    (Comparison("gt", "start.num_points", 1), {"num_points": {"$gt": 1}}),
    (Comparison("le", "start.num_points", 1), {"num_points": {"$lte": 1}}),
    (Contains("start.tags", "t2"), {"tags": "t2"}),
    (Contains("start.sample.name", "silver"), {"sample.name": {"$regex": "silver"}}),
    (In("start.num_points", [0, 3, 9]), {"num_points": {"$in": [0, 3]}}),
    (NotIn("start.num_points", [0, 3]), {"num_points": {"$in": [1, 2]}}),
    (NotIn("start.num_points", []), {}),
    (Regex("start.sample.name", "^S.*T$", case_sensitive=False), {"sample.name": "silver salt"}),
    (Like("start.sample.name", "s_lv%l"), {"sample.name": {"$regex": "foil|salt$x"}}),
    (Like("start.sample.name", "silver s%"), {"sample.name": "silver salt"}),
    (KeyPresent("start.tags"), {"tags": {"$exists": True}}),
    (KeyPresent("start.tags", exists=False), {"tags": {"$exists": False}}),
    (KeyPresent("stop"), {"stop": {"uid": {"$exists": True}}}),
    (Eq("stop.exit_status", "success"), {"exit_status": "success"}),
    (FullText("silver foil"), {"full": "silver foil"}),
    (FullText("glass"), {"full": "glass"}),
    (SpecsQuery(["BlueskyRun"], []), {}),
    (SpecsQuery([], ["BlueskyRun"]), {"uid": "nobody"}),
    (StructureFamilyQuery("array"), {"uid": "nobody"}),
    (TimeRange(since="2001-01-01", until="2100-01-01"), {"since": "2001-01-01"}),
    (ScanIDRange(2, 4), {"scan_id": {"$in": [2, 3]}}),
]


def test_a_catalogue_of_runs(catalog, db, url):
    uids = [header.uid for header in db()][::-1]
    assert [spec.name for spec in catalog.specs] == ["CatalogOfBlueskyRuns"]
    assert list(catalog) == uids
    assert len(catalog) == len(uids)
    assert [run.start["uid"] for run in catalog.values()[2:5]] == uids[2:5]
    assert list(catalog.keys()[-1:-4:-1]) == uids[:-4:-1]
    assert catalog[-2].item["id"] == uids[-2]
    assert catalog[-1].start == db[-1].start
    assert catalog[uids[2][:8]].start["uid"] == uids[2]
    assert catalog[77].start["sample"] == {"name": "glass"}
    assert catalog[77].start["big"] == float(2**70)
    assert catalog[77].stop["num_events"] == {"primary": 6}
    with pytest.raises(KeyError, match="no-such-run-is-here"):
        catalog["no-such-run-is-here"]
    pages, link = [], f"{url}/api/v1/search/?page[limit]=4&fields="
    while link:
        answer = httpx.get(link, headers={"Authorization": f"Apikey {KEY}"}).json()
        pages.append([item["id"] for item in answer["data"]])
        link = answer["links"]["next"] and answer["links"]["next"] + "&fields="
        assert answer["meta"]["count"] == len(uids)
    assert [len(page) for page in pages] == [4, 4, 1]
    assert [uid for page in pages for uid in page] == uids
    by_id = catalog.sort(("start.scan_id", -1)).values()
    ids = [header.start["scan_id"] for header in db()]
    assert [run.start["scan_id"] for run in by_id] == sorted(ids, reverse=True)
    found = catalog.distinct("start.num_points", counts=True)["metadata"]["start.num_points"]
    assert {item["value"]: item["count"] for item in found} == {0: 1, 1: 1, 2: 1, 3: 1}


def test_queries_are_searches_of_ours(catalog, db):
    for query, ours in QUERIES[:10] + QUERIES[-6:]:
        expected = [header.uid for header in db(**ours)][::-1]
        assert list(catalog.search(query)) == expected, query
    narrowed = catalog.search(FullText("silver")).search(Eq("num_points", 2))
    assert [run.start["sample"]["name"] for run in narrowed.values()] == ["silver salt"]
    assert len(narrowed) == 1
    uid = db[-1].uid
    assert uid in catalog
    assert uid not in list(narrowed)
    with pytest.raises(httpx.HTTPStatusError, match="regular expression"):
        len(catalog.search(Regex("plan_name", "(")))


def test_queries_in_mongodb(mongo_database, db):
    with daskbroker.connect(mongo_database) as other:
        for header in db():
            insert_all(other, header.documents(fill=False))
        for broker in (db, other):
            served = BrokerCatalog(broker)
            queries = [
                pair for pair in QUERIES if not isinstance(pair[0], (TimeRange, ScanIDRange))
            ]
            for query, ours in queries:
                expected = {header.uid for header in broker(**ours)}
                assert set(served.search(query).names()) == expected, query
            keys = KeysFilter([db[-1].uid, "nobody"])
            assert served.search(keys).names() == [db[-1].uid]


def test_values_are_those_of_our_views(catalog, db):
    read = 0
    for header in db():
        if refers_to_nothing(header):
            continue
        run = catalog[header.uid]
        assert list(run) == sorted(header.streams)
        for stream in header.streams:
            check_stream(run[stream], header, stream)
            read += 1
    assert read >= 8


def check_stream(client, header, stream):
    table = header.table(stream, timestamps=True).compute()
    dataset = header.dataset(stream).compute()
    with dask.config.set({"dataframe.convert-string": False}):  # else lists come as text
        served = client.base["internal"].read()
    assert served["seq_num"].tolist() == table.index.tolist()
    seconds = table["time"].astype("int64") / 1e6
    assert served["time"].tolist() == seconds.tolist()
    arrays = set(client.base) - {"internal"}
    for name in table.columns.difference([*arrays, "time"]):
        own = served["key" + name if name.startswith("_") else name]
        for cell, expected in zip(own, table[name], strict=True):
            np.testing.assert_array_equal(cell, expected)
        assert own.dtype == table[name].dtype or own.dtype == object
    for name in arrays:
        expected = dataset[name]
        array = client[name]
        assert array.dtype == expected.dtype
        assert array.dims == expected.dims
        np.testing.assert_array_equal(array.read(), expected.values)
        np.testing.assert_array_equal(array[1:, ..., 0], expected.values[1:, ..., 0])
    as_one = client.read(variables=[*arrays, "time"])
    assert set(as_one) | set(as_one.coords) == {*arrays, "time"}


def test_blocks_are_ours(catalog, db):
    header = of_images(db)
    dataset = header.dataset(chunks="auto")
    array = catalog[header.uid]["primary"]["img"]
    assert array.chunks == dataset["img"].data.chunks
    np.testing.assert_array_equal(
        array.read_block((0,) * array.ndim), dataset["img"].data.blocks[0].compute()
    )


def test_documents_are_those_that_came(catalog, db):
    for header in db():
        datums, others = [], []
        for name, doc in catalog[header.uid].documents():
            if name == "datum_page":
                datums += zip(doc["datum_id"], [doc["resource"]] * len(doc["datum_id"]))
            else:
                others.append((name, dict(doc)))
        own = [(name, plain(doc)) for name, doc in header.documents(fill=False)]
        assert others == [pair for pair in own if pair[0] != "datum"]
        expected = [(doc["datum_id"], doc["resource"]) for name, doc in own if name == "datum"]
        assert datums == expected
    run = catalog[77]
    first, second = run.descriptors
    assert [d["uid"] for d in run.descriptors] == [d["uid"] for d in db[77].descriptors["primary"]]
    assert first["configuration"]["det"]["data"] == {"gain": 1}
    assert second["configuration"]["det"]["data"] == {"gain": 2}


def test_exports_of_tiled(catalog, db, url):
    buffer = io.BytesIO()
    catalog[1]["primary"].base["internal"].export(buffer, format="csv")
    assert len(pd.read_csv(io.BytesIO(buffer.getvalue()))) == 12
    answer = httpx.get(f"{url}/api/v1/search/")
    assert answer.status_code == 401
    missing = next(filter(refers_to_nothing, db()))
    with pytest.raises(httpx.HTTPStatusError, match="nowhere"):
        catalog[missing.uid]["primary"].read()


def test_runs_that_come_later(catalog, db):
    before = len(catalog)
    documents = make_run(events=3, scan_id=500)
    insert_all(db, documents[:4])
    run = catalog[500]
    assert len(catalog.new_variation()) == before + 1
    assert run.stop is None
    assert len(run["primary"].base["internal"].read()) == 2
    insert_all(db, documents[4:])
    run = catalog[500]
    assert run.stop["exit_status"] == "success"
    assert len(run["primary"].base["internal"].read()) == 3


def test_a_stream_of_an_open_run_is_of_one_moment(tmp_path):
    """Its table and its arrays have the same rows, whatever comes while they are looked up."""
    run = RunBuilder("open")
    descriptor = run.descriptor({"spectrum": [1.0, 2.0], "x": 1.0})
    with daskbroker.connect(tmp_path / "store") as db:
        (source,) = db.event_sources
        plan_runs, number = source.store.plan_runs, itertools.count()

        def planned_while_events_come(*args, **kwargs):
            run.event(descriptor, {"spectrum": [next(number), 2.0], "x": 0.5})
            db.insert(*run.documents[-1])
            return plan_runs(*args, **kwargs)

        insert_all(db, run.documents)
        source.store.plan_runs = planned_while_events_come
        try:
            stream = BrokerCatalog(db)["open"]["primary"]
            array, table = stream["spectrum"].read(), stream["internal"].read()
        finally:
            del source.store.plan_runs
        assert array.tolist() == [[0.0, 2.0]]
        assert table["seq_num"].tolist() == [1]


def shown(url):
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", dom(url), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(text))


def test_the_web_page(url, db):
    header = db[1]
    assert header.uid in shown(f"{url}/ui/browse/?api_key={KEY}")
    table = shown(f"{url}/ui/browse/{header.uid}/primary/internal?api_key={KEY}")
    assert "1–10 of 12" in table
    images = of_images(db)
    page = dom(f"{url}/ui/browse/{images.uid}/primary/img?api_key={KEY}")
    assert "planar cut" in page
    assert re.search(r'aria-label="Data rendered" width="8" height="6"', page)


def test_serve_tells_what_is_wrong(db, url, monkeypatch):
    with pytest.raises(ConfigError, match="give another --port"):
        Server(db, int(url.rpartition(":")[2]))
    monkeypatch.setenv("TILED_SINGLE_USER_API_KEY", "a key?")
    with pytest.raises(ConfigError, match="letters and digits"):
        Server(db, 0)
