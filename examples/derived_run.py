"""Add a column to a table and store the result as a new run that names its origin.

The new run has the metadata of its origin's start document, so the same searches find it. Search
with ``derived=False`` for raw runs only, or keep derived runs in a store of their own.
"""

from __future__ import annotations

import daskbroker
from daskbroker.testing import make_run

with daskbroker.temp() as raw, daskbroker.temp() as derived:
    for name, doc in make_run(events=5, sample="Ag"):
        raw.insert(name, doc)
    header = raw[-1]
    table = header.table()
    table["ratio"] = table["y"] / (1 + table["x"])
    for name, doc in daskbroker.table_to_stream(table, header=header):
        derived.insert(name, doc)
    print(derived[-1].start["derived_from"])
    print(derived[-1].table(fields=["x", "ratio"]).compute())
    print(raw(sample="Ag"))

    daskbroker.copy(derived(), raw)
    print(raw(sample="Ag"))
    print(raw(sample="Ag", derived=False))
