"""Side by side with databroker 1.2.5, in its own environment.

These run where ``DASKBROKER_PEER_PYTHON`` is a Python that has databroker and suitcase-mongo
(``python -m benchmarks.peers`` says which versions, and makes one).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest

import daskbroker
from benchmarks.peers.environment import ENVIRONMENT, peer_python
from benchmarks.peers.process import Peer
from daskbroker.testing import (
    assert_documents_equal,
    baseline_run,
    external_run,
    make_run,
    ragged_run,
)
from daskbroker.testing.base import insert_all

ROOT = Path(__file__).resolve().parent.parent

needs_peer = pytest.mark.skipif(
    ENVIRONMENT not in os.environ, reason=f"{ENVIRONMENT} names no Python that has databroker"
)

RUNS = {
    "plain": make_run(20, keys=("x3", "n", "y")),
    "streams": make_run(7, streams=("primary", "monitor")),
    "references": external_run(4),
    "baseline": baseline_run(30),
    "ragged": ragged_run(),
    "open": make_run(5, stop=False),
}


@pytest.fixture(scope="module")
def peer():
    with Peer(peer_python()) as process:
        yield process


def recorded(folder, documents):
    path = folder / "documents.jsonl"
    path.write_text("".join(f"{json.dumps(pair)}\n" for pair in documents))
    return str(path)


def check_peer_reads(peer, uri, documents):
    """databroker gives back the documents, and tables with the values of ours."""
    run = documents[0][1]["uid"]
    content = peer.ask("content", uri=uri, run=run).value
    received = [(name, doc) for name, doc in content["documents"] if doc]  # it has an empty stop
    assert_documents_equal(_as_databroker(documents), received)
    with daskbroker.connect(uri, mode="r") as db:
        for stream, columns in content["tables"].items():
            table = db[run].table(stream, fill=False).compute().reset_index()
            for name, values in columns.items():
                ours = [getattr(v, "tolist", lambda v=v: v)() for v in table[name]]
                assert ours == values, f"column {name} of {stream}"


def _as_databroker(documents):
    """What databroker makes of documents: it fills ``filled`` in by itself."""
    external = {
        doc["uid"]: [key for key, spec in doc["data_keys"].items() if "external" in spec]
        for name, doc in documents
        if name == "descriptor"
    }
    for name, doc in documents:
        if name == "event":
            yield name, {**doc, "filled": dict.fromkeys(external[doc["descriptor"]], False)}
        else:
            yield name, doc


@needs_peer
@pytest.mark.parametrize("kind", RUNS)
def test_databroker_reads_what_is_sealed_with_the_journal_kept(peer, mongo_database, kind):
    keep = dask.config.set({"daskbroker.mongo-keep-journal": True})
    with keep, daskbroker.connect(mongo_database) as db:
        insert_all(db, RUNS[kind])
        db.seal(keep_journal=True)
    check_peer_reads(peer, mongo_database, RUNS[kind])


@needs_peer
@pytest.mark.parametrize("kind", RUNS)
def test_databroker_reads_what_is_journalled(peer, mongo_database, kind):
    with daskbroker.connect(mongo_database) as db:
        for name, doc in RUNS[kind]:
            if name != "stop":
                db.insert(name, doc)
    check_peer_reads(peer, mongo_database, [pair for pair in RUNS[kind] if pair[0] != "stop"])


@needs_peer
@pytest.mark.parametrize("kind", RUNS)
def test_what_suitcase_wrote_opens_unsealed_and_sealed(peer, mongo_database, tmp_path, kind):
    file = recorded(tmp_path, RUNS[kind])
    peer.ask("write", file=file, uri=mongo_database)
    with daskbroker.connect(mongo_database) as db:
        assert_documents_equal(RUNS[kind], db[-1].documents(fill=False))
        db.seal(keep_journal=True)
        assert_documents_equal(RUNS[kind], db[-1].documents(fill=False))
    check_peer_reads(peer, mongo_database, RUNS[kind])
    with daskbroker.connect(mongo_database) as db:
        db.seal()
        assert_documents_equal(RUNS[kind], db[-1].documents(fill=False))


@needs_peer
def test_the_benchmarks_compare_with_it(tmp_path):
    path = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--repeat", "1"]
    command += ["--only", "long", "short", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(path.read_text())
    assert numbers["peer"]["databroker"] == "1.2.5"
    names = [result["case"] for result in numbers["results"]]
    for case in ("table: databroker", "table: daskbroker, sealed", "by prefix: daskbroker"):
        assert case in names
        assert case in done.stdout
