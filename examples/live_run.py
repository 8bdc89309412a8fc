"""Read a run while it is still being written: a table up to the last insert."""

from __future__ import annotations

import daskbroker
from daskbroker.testing import make_run

with daskbroker.temp() as db:
    documents = make_run(events=5)
    for name, doc in documents:
        db.insert(name, doc)
        if name == "event":
            print(f"{len(db[-1].table())} events, the last x is {doc['data']['x']}")
    print(db[-1].table().compute())
