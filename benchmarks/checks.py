"""Checks of what cases return: functions that raise an error if it is not as expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["close_to", "equals", "finds", "has_count", "holds"]


def equals(expected: Any) -> Callable[[Any], None]:
    """Return a check that numbers or texts, or arrays of them, are equal to the expected ones."""

    def check(found: Any) -> None:
        if not np.array_equal(found, expected):
            raise AssertionError(f"expected {expected!r}, got {found!r}")

    return check


def close_to(expected: Any) -> Callable[[Any], None]:
    """Return a check that numbers differ from the expected ones by rounding only."""

    def check(found: Any) -> None:
        np.testing.assert_allclose(found, expected)

    return check


def finds(uids: list[str]) -> Callable[[Any], None]:
    """Return a check that headers are those of the expected runs, in the same order."""

    def check(headers: Any) -> None:
        if [header.uid for header in headers] != uids:
            raise AssertionError("other runs were found than asked for")

    return check


def has_count(expected: int) -> Callable[[Any], None]:
    """Return a check that a number, or the length of an object, is as expected."""

    def check(found: Any) -> None:
        count = found if isinstance(found, int) else len(found)
        if count != expected:
            raise AssertionError(f"{count} came out where {expected} went in")

    return check


def holds(name: str, values: Any, columns: int | None = None) -> Callable[[Any], None]:
    """Return a check that a column of a frame has these values, and the frame this many columns."""

    def check(frame: pd.DataFrame) -> None:
        if columns is not None and len(frame.columns) != columns:
            raise AssertionError(f"the frame has {len(frame.columns)} columns, not {columns}")
        found = frame[name].to_numpy()
        if getattr(values, "ndim", 1) > 1:
            found = np.stack(list(found))
        if not np.array_equal(found, np.asarray(values, dtype=found.dtype)):
            raise AssertionError(f"column {name!r} holds other values than were stored")

    return check
