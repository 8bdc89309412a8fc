"""Conformance, values: what JSON lacks and documents may hold, bytes and UUIDs."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
import pytest

import daskbroker

from ...work.ingest import ingest
from ..base import Conformance, Put, check_run, insert_all, inserted, table_of
from ..runs import RunBuilder

TOKEN = uuid.UUID("12345678-1234-5678-1234-567812345678")
CLAIM = {"source": "synthetic", "dtype": "string", "shape": []}
ROWS = [
    {"x": 0.0, "blob": b"\0\xff", "id": TOKEN, "odd": 1},
    {"x": 1.0, "blob": b"", "id": None, "odd": [b"a", TOKEN, {"deep": b"\0"}]},
    {"x": 2.0, "blob": b"\x80" * 1000, "id": uuid.UUID(int=0), "odd": {"\0bytes": "AA=="}},
    {"x": 3.0, "blob": b"text", "id": TOKEN, "odd": {"$uuid": "no", "\0\0k": {"\0uuid": b"x"}}},
]


def run_of_bytes(*, stop: bool = True) -> list[tuple[str, Any]]:
    """Return a run with bytes and UUIDs in each of its documents."""
    run = RunBuilder(sample={"token": TOKEN, "key": b"\0\1"}, keys=[b"a", TOKEN])
    device = {"data": {"id": TOKEN}, "timestamps": {"id": 1.0}, "data_keys": {"id": CLAIM}}
    keys = {"x": 0.0, "blob": CLAIM, "id": CLAIM, "odd": CLAIM}
    descriptor = run.descriptor(keys, configuration={"camera": device}, note=b"\xfe")
    for row in ROWS:
        run.event(descriptor, row, note={"seen": TOKEN, "raw": b"\0"})
    run.event_page(descriptor, ROWS)
    resource = run.resource(resource_kwargs={"key": b"\0\xff", "id": TOKEN})
    run.datum(resource, key=b"\0", id=TOKEN)
    return list(run.stop(reason_code=b"\0", token=TOKEN) if stop else run.documents)


class ValueConformance(Conformance):
    """Bytes and UUIDs come back as they went in, in whatever document, and are shown as JSON."""

    def test_bytes_and_uuids_are_given_back(self, put_checked: Put) -> None:
        documents = run_of_bytes()
        header = put_checked(documents)
        received = [doc for name, doc in header.documents(fill=False) if name == "event"]
        cells = {type(doc["data"]["blob"]) for doc in received}
        assert cells == {bytes}
        assert type(header.start["sample"]["token"]) is uuid.UUID

    def test_tables_and_datasets_hold_them(self, put: Put) -> None:
        header = put(run_of_bytes())
        frame = table_of(header)
        assert frame["blob"].tolist() == [row["blob"] for row in ROWS] * 2
        assert frame["id"].tolist() == [row["id"] for row in ROWS] * 2
        assert frame["x"].tolist() == [0.0, 1.0, 2.0, 3.0] * 2
        loaded = header.dataset(fill=False)["blob"].values
        assert loaded.tolist() == frame["blob"].tolist()

    def test_the_same_again_changes_nothing(self, put: Put, broker: Any) -> None:
        documents = run_of_bytes()
        header = put(documents)
        insert_all(broker, inserted(header, documents))
        check_run(header, inserted(header, documents))

    def test_copies_hold_them(self, broker: Any) -> None:
        documents = run_of_bytes()
        insert_all(broker, documents)
        with daskbroker.temp() as other:
            report = daskbroker.copy(broker, other)
            assert not report.failed
            check_run(other[documents[0][1]["uid"]], documents)

    def test_runs_are_found_by_them(self, broker: Any) -> None:
        insert_all(broker, run_of_bytes())
        assert len(broker(**{"sample.token": TOKEN})) == 1
        assert len(broker(**{"sample.key": b"\0\1"})) == 1
        assert len(broker(keys=b"a")) == 1
        assert len(broker(**{"sample.key": b"\0\2"})) == 0
        assert len(broker(full=str(TOKEN))) == 1

    def test_they_have_a_form_in_json(self, broker: Any, tmp_path: Any) -> None:
        """Bytes and UUIDs have the form of MongoDB's Extended JSON."""
        documents = run_of_bytes()
        insert_all(broker, documents)
        (path,) = broker[documents[0][1]["uid"]].export(tmp_path, "jsonl")
        lines = path.read_text().splitlines()
        start = json.loads(lines[0])[1]
        assert start["sample"] == {
            "token": {"$uuid": str(TOKEN)},
            "key": {"$binary": {"base64": "AAE=", "subType": "00"}},
        }

    def test_they_are_ingested_from_json(self, broker: Any, tmp_path: Any) -> None:
        """A mapping that only looks like the form of a UUID stays a mapping."""
        documents = run_of_bytes()
        insert_all(broker, documents)
        (path,) = broker[documents[0][1]["uid"]].export(tmp_path, "jsonl")
        with daskbroker.temp() as other:
            report = ingest(other, [path])
            assert not report.refusals
            check_run(other[documents[0][1]["uid"]], documents)

    @pytest.mark.parametrize(
        "kind", [bytearray, memoryview, np.bytes_], ids=lambda kind: kind.__name__
    )
    def test_what_is_like_bytes_becomes_bytes(self, broker: Any, kind: Any) -> None:
        run = RunBuilder(key=kind(b"a\0b"))
        insert_all(broker, run.stop())
        stored = broker[-1].start["key"]
        assert (type(stored), stored) == (bytes, b"a\0b")
