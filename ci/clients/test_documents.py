"""Consumers of documents: suitcases, event-model, bluesky's callbacks, TiledWriter."""

from __future__ import annotations

import json

import event_model
import numpy as np
import pandas as pd
import suitcase.csv
import suitcase.json_metadata
import suitcase.jsonl
import suitcase.mongo_normalized
import suitcase.msgpack
import suitcase.specfile
import suitcase.tiff_series
import tifffile
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.callbacks.tiled_writer import TiledWriter
from databroker.core import discover_handlers
from tiled.client import from_uri
from tiled.server import SimpleTiledServer

from daskbroker import connect
from daskbroker.work.ingest import ingest


def documents(beamline, scan_id, fill=False):
    return list(beamline.v1[scan_id].documents(fill=fill))


def test_suitcase_csv_and_json_metadata(beamline, tmp_path):
    suitcase.csv.export(documents(beamline, 2), tmp_path, "")
    suitcase.json_metadata.export(documents(beamline, 2), tmp_path, "")
    assert len(pd.read_csv(tmp_path / "primary.csv")) == 11
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["metadata"]["start"]["scan_id"] == 2


def test_suitcase_jsonl_and_msgpack(beamline, tmp_path):
    suitcase.jsonl.export(documents(beamline, 2), tmp_path)
    suitcase.msgpack.export(documents(beamline, 2), tmp_path)
    (lines,) = tmp_path.glob("*.jsonl")
    (packed,) = tmp_path.glob("*.msgpack")
    given = list(beamline.db[2].documents(fill=False))
    for file in (lines, packed):
        with connect(tmp_path / file.suffix[1:]) as again:
            ingest(again, [file])
            assert list(again[-1].documents(fill=False)) == given


def test_suitcase_specfile(beamline, tmp_path):
    suitcase.specfile.export(documents(beamline, 2), tmp_path)
    (file,) = tmp_path.glob("*.spec")
    assert "#L motor" in file.read_text()


def test_suitcase_tiff_series(beamline, tmp_path):
    suitcase.tiff_series.export(documents(beamline, 3, fill=True), tmp_path)
    files = sorted(tmp_path.rglob("*.tiff"))
    assert [float(tifffile.imread(file).mean()) for file in files] == [2.0, 3.0]


def test_suitcase_mongo_normalized(beamline, server, request):
    import pymongo

    name = f"suitcase_{request.node.callspec.id}"
    client = pymongo.MongoClient(server)
    serializer = suitcase.mongo_normalized.Serializer(client[name], client[name])
    for name_, doc in documents(beamline, 3):
        serializer(name_, dict(doc))
    with connect(f"{server}/{name}") as again:
        assert list(again[-1].documents(fill=False)) == list(beamline.db[3].documents(fill=False))
    client.close()


def test_filler(beamline):
    with event_model.Filler(discover_handlers(), inplace=False) as filler:
        filled = [filler(name, doc) for name, doc in documents(beamline, 3)]
    images = [
        doc["data"]["img"] for name, doc in filled if name == "event" and "img" in doc["data"]
    ]
    assert np.array_equal(images, beamline.frames)


def test_run_router(beamline):
    found = []

    def factory(name, start):
        def receive(name, doc):
            found.append((name, dict(doc)))

        def of_stream(name, descriptor):
            return [receive] if descriptor["name"] == "primary" else []

        return [], [of_stream]

    router = event_model.RunRouter([factory], discover_handlers(), fill_or_fail=True)
    for name, doc in documents(beamline, 3):
        router(name, doc)
    events = [doc for name, doc in found if name == "event_page"]
    images = np.concatenate([doc["data"]["img"] for doc in events])
    assert np.array_equal(images, beamline.frames)


def test_best_effort_callback(beamline, capsys):
    callback = BestEffortCallback()
    for name, doc in documents(beamline, 2):
        callback(name, doc)
    shown = capsys.readouterr().out
    assert "generator scan" in shown or shown.count("0.8") >= 1
    assert callback.peaks["max"]["det"][0] == 0


def test_tiled_writer(beamline, tmp_path):
    server = SimpleTiledServer(tmp_path, readable_storage=[beamline.folder])
    try:
        client = from_uri(server.uri)
        writer = TiledWriter(client)
        for scan_id in (1, 2):
            for name, doc in documents(beamline, scan_id):
                writer(name, dict(doc))
        run = client[beamline.db[2].uid]
        assert run["primary"].read()["det"].values.tolist() == (
            beamline.db[2].table()["det"].compute().tolist()
        )
    finally:
        server.close()
