"""What TiledWriter wrote, side by side with what was inserted, and taken over from it."""

from __future__ import annotations

import math
import sys
from itertools import count as counting
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from bluesky import RunEngine
from bluesky.plan_stubs import null
from bluesky.plans import count, scan
from bluesky.preprocessors import SupplementalData, run_decorator
from bluesky_tiled_plugins import TiledWriter
from ophyd.sim import SynSignal, det, motor
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ophyd_async.sim import SimBlobDetector
from tiled.client import from_uri
from tiled.queries import Eq

import daskbroker
from daskbroker.core.errors import ConfigError
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run
from daskbroker.testing.runs import RunBuilder, make_run
from daskbroker.tiled.taken_streams import (
    OF_CELLS,
    OF_EVENTS,
    OF_FILLED,
    OF_INDICES,
    OF_KEYS,
    OF_REFERENCES,
    OF_STAMPS,
)
from daskbroker.tiled.taking import open_tiled, take_runs

from .conftest import KEY, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
EVENTS = 7
SCALARS = {OF_EVENTS, OF_FILLED, OF_CELLS}
FRAMES = {OF_REFERENCES, OF_INDICES, OF_STAMPS}
KEYS = {OF_KEYS}
CONFIGURATION = """
authentication: {{single_user_api_key: {key}}}
trees:
  - path: /
    tree: catalog
    args:
      uri: sqlite:///{folder}/catalog.db
      writable_storage: [{folder}/data, duckdb:///{folder}/tables.duckdb]
      readable_storage: [{folder}]
      init_if_not_exists: true
media_types:
  BlueskyRun:
    application/json-seq: bluesky_tiled_plugins.exporters:json_seq_exporter
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def url(folder, free_port):
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("tiled"))
    configuration = folder / "tiled.yml"
    configuration.write_text(CONFIGURATION.format(folder=folder, key=KEY))
    with running([program, "serve", "config", str(configuration), "--port", str(port)], base):
        yield f"{base}/?api_key={KEY}"


@pytest.fixture(scope="module")
def client(url):
    found = from_uri(url)
    yield found
    found.context.http_client.close()


@pytest.fixture(scope="module")
def both(folder, client):
    """The broker that had every document that TiledWriter had."""
    db = daskbroker.connect(folder / "beside")
    engine = RunEngine({})
    engine.subscribe(db.insert)
    engine.subscribe(TiledWriter(client, batch_size=3))
    engine.preprocessors.append(SupplementalData(baseline=[motor]))
    spectrum = SynSignal(name="spectrum", func=lambda: np.arange(4.0) + 0.5, labels={"detectors"})
    number = counting()
    long = SynSignal(name="long", func=lambda: np.arange(40) + next(number))
    with init_devices():
        blob = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder))
    engine(scan([det, spectrum, long], motor, -1, 1, EVENTS), sample="Ag", note="ß")
    engine(count([blob], num=3), sample="blobs")
    engine(run_decorator(md={"sample": "nothing"})(null)())
    yield db
    db.close()


def take(db, url):
    with open_tiled(f"tiled+{url}") as catalog:
        return take_runs(db, catalog)


def test_side_by_side_with_a_tiled_writer(both, client):
    """TiledWriter of the same RunEngine: what its runs lack of ours is what the report names."""
    for header in both():
        run = client[header.uid]
        assert dict(run.start) == header.start.to_dict()
        assert {k: v for k, v in run.stop.items() if k != "_id"} == header.stop.to_dict()
        assert set(run) == set(header.streams)
        for stream in header.streams:
            table = header.table(stream, fill=False).compute()
            dataset = header.dataset(stream).compute()
            with dask.config.set({"dataframe.convert-string": False}):  # else lists come as text
                served = run[stream].read()
            for key in header.fields(stream):
                values = np.stack([np.asarray(cell) for cell in served[key].values])
                np.testing.assert_array_equal(values, dataset[key].values.reshape(values.shape))
            assert len(table) == dataset.sizes["time"]
        given = [doc for name, doc in header.documents(fill=False) if name == "event"]
        told = [doc for name, doc in run.documents() if name == "event"]
        assert not {doc["uid"] for doc in given} & {doc["uid"] for doc in told}
    blobs = both(sample="blobs")[0]
    names = [name for name, _ in blobs.documents(fill=False)]
    told = [name for name, _ in client[blobs.uid].documents()]
    assert names.count("stream_datum") > told.count("stream_datum") == 2


def test_runs_are_taken_over(both, client, url, tmp_path, folder, monkeypatch):
    with daskbroker.connect(tmp_path / "taken") as db:
        report = take(db, url)
        assert report.failed == {}
        assert {header.uid for header in both()} <= set(report.taken)
        assert any(what.startswith("uids of events") for what in report.lost)
        assert any(what.startswith("references as they came") for what in report.lost)
        for header in both():
            taken = db[header.uid]
            assert taken.start == header.start
            assert {k: v for k, v in taken.stop.items() if k != "_id"} == header.stop
            assert set(taken.streams) == set(header.streams)
            for stream in header.streams:
                given, found = header.dataset(stream).compute(), taken.dataset(stream).compute()
                assert set(given.variables) == set(found.variables)
                for name in set(given.variables) - {"uid"}:
                    np.testing.assert_array_equal(found[name].values, given[name].values)
                stamps = header.table(stream, timestamps=True).compute().filter(like="ts_")
                own = taken.table(stream, timestamps=True).compute().filter(like="ts_")
                for name in stamps:
                    if "blob" not in name:
                        assert own[name].tolist() == stamps[name].tolist()
        before = [dict(doc) for h in db() for _, doc in h.documents(fill=False)]
        again = take(db, url)
        assert (len(again.there), again.taken) == (len(report.taken), [])
        assert [dict(doc) for h in db() for _, doc in h.documents(fill=False)] == before
    check_resumed(both, url, tmp_path, monkeypatch)


def check_resumed(both, url, tmp_path, monkeypatch):
    """Of a run of which a part was taken, the rest comes, and nothing twice."""
    with daskbroker.connect(tmp_path / "part") as db:
        insert, number = db.insert, counting()

        def failing(name, doc, *, run=None):
            if name == "event_page" and next(number) == 1:
                raise KeyboardInterrupt
            insert(name, doc, run=run)

        monkeypatch.setattr(db, "insert", failing)
        with pytest.raises(KeyboardInterrupt):
            take(db, url)
        monkeypatch.undo()
        assert db[-1].stop is None
        assert take(db, url).failed == {}
        for header in both():
            for stream in header.streams:
                assert len(db[header.uid].table(stream)) == len(header.table(stream))


def test_each_loss_is_named(client, url, folder, tmp_path):
    """Documents of ours that a TiledWriter got: all that does not come back is in `lost`."""
    frames, _ = datum_run(folder, 4)
    with daskbroker.connect(tmp_path / "given") as db, open_tiled(f"tiled+{url}") as catalog:
        insert_all(db, [*changing_run(), *frames])
        for header in db():
            writer = TiledWriter(client)
            for name, doc in header.documents(fill=False):
                writer(name, doc.to_dict())
        changing, images = db["changing"], db[frames[0][1]["uid"]]
        check_what_is_told(changing, list(client["changing"].documents()))
        check_what_is_told_of_frames(list(client[images.uid].documents()))
        for uid, lost in (("changing", SCALARS | KEYS), (images.uid, SCALARS | FRAMES)):
            with daskbroker.temp() as taken:
                report = take_runs(taken, catalog.search(Eq("start.uid", uid)))
                assert report.failed == {}
                assert set(report.lost) == lost
                assert taken[uid].start == db[uid].start
                found, given = (b[uid].table(fields=["x"]).compute() for b in (taken, db))
                pd.testing.assert_frame_equal(found, given)
                assert taken[uid].fields() == db[uid].fields() - {"later"}


def changing_run():
    """A stream with two descriptors, of which the second has a key more, and missing values."""
    run = RunBuilder("changing", sample="losses")
    for gain, more in ((1, {}), (2, {"later": 1.0})):
        device = {"data": {"gain": gain}, "timestamps": {"gain": 0.0}, "data_keys": {}}
        descriptor = run.descriptor({"x": 0.5, **more}, configuration={"det": device})
        for cell in (gain, math.nan, None):
            run.event(descriptor, {"x": cell, **more}, filled={})
    return run.stop()


def check_what_is_told(header, told):
    given = [(name, doc.to_dict()) for name, doc in header.documents(fill=False)]
    for kind in ("start", "stop"):
        (mine,), (other,) = ([doc for name, doc in docs if name == kind] for docs in (given, told))
        assert {key: value for key, value in other.items() if key != "_id"} == mine
    events = [[doc for name, doc in docs if name == "event"] for docs in (given, told)]
    for mine, other in zip(*events, strict=True):
        assert other["seq_num"] == mine["seq_num"]
        assert other["time"] == mine["time"]
        assert other["timestamps"]["x"] == mine["timestamps"]["x"]
        value, found = mine["data"]["x"], other["data"]["x"]
        if value is None or math.isnan(value):
            assert found is None or math.isnan(found)  # it does not tell which
        else:
            assert found == value
        # Each of these is lost.
        assert other["uid"] != mine["uid"]
        assert "filled" in mine
        assert not other.get("filled")
    first, second = (doc for name, doc in told if name == "descriptor")
    assert set(second["data_keys"]) == set(first["data_keys"]) == {"x"}
    assert second["configuration"]["det"]["data"] == {"gain": 2}


def check_what_is_told_of_frames(told):
    kinds = [name for name, _ in told]
    assert {"resource", "datum", "datum_page"}.isdisjoint(kinds)
    assert kinds.count("stream_resource") == kinds.count("stream_datum") == 1
    (datum,) = (doc for name, doc in told if name == "stream_datum")
    assert datum["indices"] == {"start": 0, "stop": 4}
    for name, doc in told:
        if name == "event":
            assert set(doc["timestamps"]) == set(doc["data"]) == {"x"}


def test_what_cannot_be_right_is_refused(both, client, url, tmp_path, folder, monkeypatch):
    """Fewer rows than the stop tells, and two streams that share a file, whose frames are lost."""
    writer = TiledWriter(client)
    documents, _ = datum_run(folder, 4)
    short = make_run(events=4)
    short[-1][1]["num_events"] = {"primary": 9}
    for name, doc in [*documents, *short]:
        writer(name, dict(doc))
    shared = RunBuilder()
    claim = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    claim["dtype_numpy"] = "<u2"
    for place, stream in enumerate(("light", "dark")):
        descriptor = shared.descriptor({"img": claim}, stream=stream)
        resource = shared.stream_resource("img", uri=f"file://localhost{folder}/a.h5")
        shared.stream_datum(resource, descriptor, (2 * place, 2 * place + 2), (1, 3))
    for name, doc in shared.stop():
        writer(name, dict(doc))
    with daskbroker.connect(tmp_path / "refused") as db:
        report = take(db, url)
        assert set(report.failed) == {short[0][1]["uid"], shared.uid}
        assert "4 rows, but the stop document declares 9" in report.failed[short[0][1]["uid"]]
        assert "same file" in report.failed[shared.uid]
        assert shared.uid not in db
        legacy = db[documents[0][1]["uid"]]
        assert legacy.table("primary")["x"].compute().tolist() == [0.0, 0.5, 1.0, 1.5]
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
    with pytest.raises(ConfigError, match="no Tiled server"):
        take(None, "http://127.0.0.1:9/")


def test_ingest_and_copy(both, url, tmp_path):
    from typer.testing import CliRunner

    from daskbroker.cli import app

    run = CliRunner().invoke
    place = str(tmp_path / "store")
    done = run(app, ["copy", f"tiled+{url}", place, "sample=Ag"])
    assert done.exit_code == 0, done.output
    assert "1 run taken" in done.output
    assert "not kept by Tiled, of 1 run: uids of events" in done.output
    assert KEY not in done.output
    done = run(app, ["ingest", f"tiled+{url}", "--db", place])
    assert "1 there already" in done.output
    done = run(app, ["copy", f"tiled+{url}", place, "--full", "x"])
    assert isinstance(done.exception, ConfigError)
