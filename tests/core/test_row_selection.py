"""Rows that are selected from an encoded table are as if they had been encoded alone."""

from __future__ import annotations

import random

import numpy as np

from daskbroker.core.layouts import EVENT, RESOURCE, decode_rows, encode_rows
from daskbroker.core.row_selection import take_rows
from daskbroker.testing import difference

CELLS = {
    "ints and floats": (1, 2.5, 3, 4.0),
    "with None": (1, 2.5, None),
    "None": (None, "text"),
    "numbers": (1.5, 2.5),
    "lists": ([1, 2], [2.5, None], []),
    "anything": (1, 2**60, "text", {"a": 1}, None, [1.5]),
}


def test_columns_that_have_notes_of_their_rows():
    """Keys that some rows lack, None, and integers beside floats; any rows in any order."""
    choose = random.Random(5)
    for count in (1, 7, 8, 9, 40):
        rows = [
            {
                "uid": f"e{number}",
                "descriptor": "d",
                "seq_num": number + 1,
                "time": number + 0.5,
                "data": data,
                "timestamps": dict.fromkeys(data, 1.0),
                "filled": {},
            }
            for number in range(count)
            for data in [
                {k: choose.choice(cells) for k, cells in CELLS.items() if choose.random() < 0.7}
            ]
        ]
        table = encode_rows(EVENT, rows, {"descriptor": "d"})
        for _ in range(10):
            positions = np.array(choose.choices(range(count), k=choose.randrange(count + 1)), int)
            found = decode_rows(EVENT, take_rows(table, positions), "d")
            expected = [rows[position] for position in positions]
            assert difference(expected, [dict(doc) for doc in found]) is None
        one = take_rows(table.select(["uid"]), np.arange(count)[::2])
        assert one.column("uid").to_pylist() == [row["uid"] for row in rows[::2]]


def test_references_of_which_some_lack_a_key():
    rows = [
        {"uid": f"r{n}", "run_start": "r", "spec": "s", "resource_path": "p", "resource_kwargs": {}}
        for n in range(9)
    ]
    for number, root in enumerate((None, "/a", None)):
        rows[3 * number]["root"] = root
    table = encode_rows(RESOURCE, rows, {"run": "r"})
    found = decode_rows(RESOURCE, take_rows(table, np.array([6, 1, 0])), "")
    assert difference([rows[6], rows[1], rows[0]], [dict(doc) for doc in found]) is None
