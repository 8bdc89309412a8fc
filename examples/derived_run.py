"""Add a column to a table and store the result as a new run that names its origin."""

from __future__ import annotations

import daskbroker
from daskbroker.testing import make_run

with daskbroker.temp() as db:
    for name, doc in make_run(events=5):
        db.insert(name, doc)
    header = db[-1]
    table = header.table()
    table["ratio"] = table["y"] / (1 + table["x"])
    for name, doc in daskbroker.table_to_stream(table, header=header):
        db.insert(name, doc)
    print(db[-1].start["derived_from"])
    print(db[-1].table(fields=["x", "ratio"]).compute())
