"""Read a run while it is being written: a table up to the last insert, and then its documents."""

from __future__ import annotations

import threading
import time

import daskbroker
from daskbroker.testing import make_run


def take(db: daskbroker.DataBroker) -> None:
    """Insert documents in place of a RunEngine, which could be in another process."""
    for name, doc in make_run(events=5):
        db.insert(name, doc)
        time.sleep(0.05)


with daskbroker.temp() as db:
    runs = db.watch(interval=0.05)
    taking = threading.Thread(target=take, args=(db,))
    taking.start()
    header = next(runs)  # the run has just begun
    for name, doc in header.follow("primary", interval=0.05):
        if name == "event":
            print(f"event {doc.seq_num}: x is {doc.data['x']}, of {len(header.table())} so far")
    print(f"the run has ended with {header.stop.exit_status!r}")
    print(header.table().compute())
    taking.join()
