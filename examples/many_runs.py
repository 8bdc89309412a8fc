"""One lazy table over many runs, grouped by run."""

from __future__ import annotations

import daskbroker
from daskbroker.testing import make_run

with daskbroker.temp() as db:
    for number in range(20):
        for name, doc in make_run(events=10, plan_name=("count", "scan")[number % 2]):
            db.insert(name, doc)
    table = db(plan_name="scan").table("primary")
    print(f"{table.npartitions} partition of {len(table)} rows")
    print(table.groupby("run")["y"].mean().compute())
