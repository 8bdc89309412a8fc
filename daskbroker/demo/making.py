"""Insert the runs of the demo into a store, each once."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..broker import DataBroker
from ..connect import connect
from .composed import FLY_UID, FRAMES_UID, fly_scan, frames_run
from .frame_file import write_frames
from .recorded import insert_new, recorded_runs, retaken

FILE = "frames.h5"


def insert_recorded(db: DataBroker) -> int:
    """Insert the recorded runs: scans in a furnace, one more scan, a grid scan.

    Returns
    -------
    int
        Number of runs that were not stored before.
    """
    names = ("furnace", "scan", "grid")
    return sum(insert_new(db, run) for name in names for run in recorded_runs(name))


def insert_fly_scan(db: DataBroker) -> float | None:
    """Insert the fly scan unless it is stored.

    Returns
    -------
    float or None
        Seconds that the inserts took; None if it was stored before.
    """
    if FLY_UID in db and db[FLY_UID].stop is not None:
        return None
    documents = fly_scan()
    began = time.perf_counter()
    insert_new(db, documents)
    return time.perf_counter() - began


def insert_frames(db: DataBroker) -> tuple[Path, bool]:
    """Write the file of frames and insert its run, unless they exist.

    The file is in a temporary folder, which an earlier demo may have made.

    Returns
    -------
    tuple
        Path of the file, and whether the run was not stored before.
    """
    file = _stored_file(db) or Path(tempfile.mkdtemp(prefix="daskbroker-demo-")) / FILE
    if not file.exists():
        write_frames(file)
    uri = f"file://localhost{file.as_uri().removeprefix('file://')}"
    return file, insert_new(db, frames_run(uri))


def _stored_file(db: DataBroker) -> Path | None:
    """Return the path of the file that an earlier demo wrote; None if there was none."""
    if FRAMES_UID not in db:
        return None
    for name, doc in db[FRAMES_UID].documents(fill=False):
        if name == "stream_resource":
            return Path(unquote(urlsplit(doc["uri"]).path))
    return None


def take_live(place: str) -> None:
    """Insert a run in real time, within two seconds; continues a run of a demo that was killed."""
    documents = next(recorded_runs("live"))
    uid = documents[0][1]["uid"]
    with connect(place) as db:
        begin = db[uid].start["time"] if uid in db else time.time()
        for name, doc in retaken(documents, begin):
            db.insert(name, doc)
