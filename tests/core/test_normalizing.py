"""What callers give becomes plain: structured arrays, tables, and how deep a value may be."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

from daskbroker.core.errors import BadDocument
from daskbroker.core.normalizing import MAX_DOCUMENT_DEPTH, normalize
from daskbroker.testing import difference

FIELDS = np.dtype([("n", ">i4"), ("x", "<f8", (2,))], align=True)
ROWS = np.array([(1, [0.5, 1.0]), (2, [1.5, 2.0])], FIELDS)
LISTS = [[1, [0.5, 1.0]], [2, [1.5, 2.0]]]
PACKED = np.dtype([("n", "<i4"), ("x", "<f8", (2,))])


SHAPES = ["two", "none", "two dimensions", "one alone"]


class Colour(enum.Enum):
    RED = "red"


class Table:
    """As ophyd-async has them: columns by their names, of arrays or of lists."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __iter__(self) -> Any:
        return iter(self.columns.items())

    def numpy_table(self) -> np.ndarray:
        raise AssertionError("it truncates text")


def around(value: Any, levels: int, kind: str) -> Any:
    for level in range(levels):
        as_list = kind == "lists" or (kind == "both" and level % 2)
        value = [value] if as_list else {"k": value}
    return value


@pytest.mark.parametrize("kind", ["lists", "mappings", "both"])
@pytest.mark.parametrize("inner", [0.5, [], {}, np.zeros(2), (1, "a")], ids=repr)
def test_levels_are_counted_in_lists_and_mappings(kind: str, inner: Any) -> None:
    levels = MAX_DOCUMENT_DEPTH - (not isinstance(inner, float))
    deepest = around(inner, levels, kind)
    plain = around(inner.tolist() if isinstance(inner, np.ndarray) else inner, levels, kind)
    expected = around([1, "a"], levels, kind) if isinstance(inner, tuple) else plain
    assert difference(expected, normalize(deepest)) is None
    with pytest.raises(BadDocument, match=f"deeper than {MAX_DOCUMENT_DEPTH} levels"):
        normalize(around(deepest, 1, kind))


@pytest.mark.parametrize("options", [{}, {"rows": True}, {"arrays": True}], ids=str)
@pytest.mark.parametrize("value", [ROWS, ROWS[:0], ROWS.reshape(2, 1), ROWS[0]], ids=SHAPES)
def test_structured_arrays(value: Any, options: dict[str, bool]) -> None:
    found = normalize({"k": [value]}, **options)["k"][0]
    if not options:
        lists = {2: LISTS, 0: [], 1: LISTS[0]}[np.size(value) if value.shape else 1]
        assert difference([[row] for row in LISTS] if value.ndim == 2 else lists, found) is None
    else:
        assert found.dtype == PACKED
        assert found.shape == value.shape
        assert found.tobytes() == value.astype(PACKED).tobytes()


@pytest.mark.parametrize("options", [{}, {"rows": True}, {"arrays": True}], ids=str)
def test_tables(options: dict[str, bool]) -> None:
    table = Table(n=np.array([1, 2], "i2"), name=["long enough", "b\0"], colour=[Colour.RED] * 2)
    found = normalize(table, **options)
    rows = [[1, "long enough", "red"], [2, "b\0", "red"]]
    if not options:
        assert difference(rows, found) is None
    else:
        assert found.dtype.names == ("n", "name", "colour")
        assert found["n"].dtype == "i2"
        assert found.tolist() == [tuple(row) for row in rows]


@pytest.mark.parametrize("options", [{}, {"rows": True}], ids=str)
def test_tables_without_rows_or_columns(options: dict[str, bool]) -> None:
    assert len(normalize(Table(n=np.zeros(0), name=[]), **options)) == 0
    assert len(normalize(Table(), **options)) == 0


def test_a_table_of_columns_that_differ_in_length_is_refused() -> None:
    with pytest.raises(BadDocument, match=r"start\.scan: a table has columns of different len"):
        normalize({"scan": Table(n=np.zeros(2), name=["a"])}, "start")
