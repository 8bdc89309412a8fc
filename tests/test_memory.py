"""Going through a long run takes a few chunks of memory, whatever its length."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROWS, PAGE = 150_000, 5_000

STREAM = """
import sys
import numpy as np
import dask
import daskbroker
from daskbroker.testing import RunBuilder

use, rows, page = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def insert(db, uid, rows):
    run = RunBuilder(uid)
    keys = [f"k{n}" for n in range(8)]
    descriptor = run.descriptor(dict.fromkeys(keys, 0.5))
    for pair in run.documents:
        db.insert(*pair)
    for first in range(0, rows, page):
        numbers = np.arange(first, first + page)
        db.insert("event_page", {
            "descriptor": descriptor, "uid": [f"e{n}" for n in numbers],
            "seq_num": numbers + 1, "time": 1e9 + numbers,
            "data": {key: np.random.default_rng(first).random(page) for key in keys},
            "timestamps": dict.fromkeys(keys, 1e9 + numbers), "filled": {},
        })


def go_through(header):
    peak = resident()
    if use == "documents":
        for number, _ in enumerate(header.documents()):
            if number % 2000 == 0:
                peak = max(peak, resident())
    else:
        header.table()["k0"].sum().compute()
    return max(peak, resident())


dask.config.set({"scheduler": "synchronous", "daskbroker.partition-size": "2 MB"})
with daskbroker.temp() as db:
    insert(db, "short", 4 * page)
    before = go_through(db["short"])
    insert(db, "long-run", rows)
    print("inserting", resident() - before)
    print("going through", go_through(db["long-run"]) - before)
"""


@pytest.mark.parametrize("use", ["documents", "table"])
def test_memory_is_bounded(use):
    """As dicts the long run has some 300 MB, in columns 20."""
    command = [sys.executable, "-c", STREAM, use, str(ROWS), str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert float(grown["inserting"]) < 80
    assert float(grown["going through"]) < 100
