"""Runs that a bluesky RunEngine took of simulated devices, as they were recorded.

``ci/record_demo.py`` records them; they are the same whether or not bluesky is installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..broker import DataBroker
from ..core.documents import plain
from ..work.recordings import read_recording

__all__ = ["RECORDED", "Documents", "insert_new", "recorded_runs", "retaken"]

Documents = list[tuple[str, dict[str, Any]]]

RECORDED = Path(__file__).parent / "recordings"


def recorded_runs(name: str) -> Iterator[Documents]:
    """Each run of a recording."""
    run: Documents = []
    for item in read_recording(RECORDED / f"{name}.jsonl.gz"):
        run.append((item.name, plain(item.doc)))
        if item.name == "stop":
            yield run
            run = []


def insert_new(db: DataBroker, documents: Documents) -> bool:
    """Insert a run unless it is there as a whole; whether it was not."""
    uid = documents[0][1]["uid"]
    if uid in db and db[uid].stop is not None:
        return False
    for name, doc in documents:  # what an earlier demo has inserted, before it was killed, stays
        db.insert(name, doc)
    return True


def retaken(documents: Documents, begin: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of a run at the pace at which they were taken, as if it began at a time."""
    shift = begin - documents[0][1]["time"]
    for name, doc in documents:
        moved = {**doc, "time": doc["time"] + shift}
        if "timestamps" in doc:
            moved["timestamps"] = {key: at + shift for key, at in doc["timestamps"].items()}
        time.sleep(max(0.0, moved["time"] - time.time()))
        yield name, moved
