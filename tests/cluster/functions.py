"""Functions for reprocessing, importable by workers and by the command line."""

from __future__ import annotations

import time


def doubled(header, factor=2):
    table = header.table()
    return table.assign(double=table["x"] * factor)


def slowly(header):
    time.sleep(0.15)
    table = header.table().compute(scheduler="synchronous")
    yield table.assign(square=table["x"] ** 2)
    yield table[["time", "x"]].tail(3)


def fails_sometimes(header):
    if header.start["number"] == 3:
        raise ZeroDivisionError("three")
    return header.table()
