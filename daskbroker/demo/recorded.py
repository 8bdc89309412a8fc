"""Recorded runs, taken by a bluesky RunEngine with simulated devices.

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

Documents = list[tuple[str, dict[str, Any]]]

RECORDED = Path(__file__).parent / "recordings"


def recorded_runs(name: str) -> Iterator[Documents]:
    """Yield the documents of each run of a recording."""
    run: Documents = []
    for item in read_recording(RECORDED / f"{name}.jsonl.gz"):
        run.append((item.name, plain(item.doc)))
        if item.name == "stop":
            yield run
            run = []


def insert_new(db: DataBroker, documents: Documents) -> bool:
    """Insert a run unless it is stored completely; return whether it was inserted."""
    uid = documents[0][1]["uid"]
    if uid in db and db[uid].stop is not None:
        return False
    for name, doc in documents:  # documents of a demo that was killed are stored already
        db.insert(name, doc)
    return True


def retaken(documents: Documents, begin: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents of a run in real time, with their times moved.

    Parameters
    ----------
    documents
        Documents of the run.
    begin
        POSIX time at which the run begins; documents that are due already come at once.
    """
    shift = begin - documents[0][1]["time"]
    for name, doc in documents:
        moved = {**doc, "time": doc["time"] + shift}
        if "timestamps" in doc:
            moved["timestamps"] = {key: at + shift for key, at in doc["timestamps"].items()}
        time.sleep(max(0.0, moved["time"] - time.time()))
        yield name, moved
