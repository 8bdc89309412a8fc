"""Subscribe a store to a RunEngine, and look at the scan: table, picture of a peak, metadata."""

from __future__ import annotations

from bluesky import RunEngine
from bluesky.plans import scan
from ophyd.sim import det, motor

import daskbroker

with daskbroker.temp() as db:
    RE = RunEngine({})
    RE.subscribe(db.insert)
    RE(scan([det], motor, -2, 2, 21), sample="Ag-3")

    header = db(sample="Ag-3")[0]
    print(header)
    frame = header.table(fields=["motor", "det", "start:sample"]).compute()
    print(frame.loc[[frame["det"].idxmax()]])
    print("hinted:", header.descriptors["primary"][0]["hints"]["det"])
