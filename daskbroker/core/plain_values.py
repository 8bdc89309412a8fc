"""JSON-like values with arrays: copies made of lists, and equality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .field_rows import lists_of
from .frozen import ArrayList


def plain(value: Any) -> Any:
    """Return a deep copy made of plain dicts and lists; arrays become lists."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return lists_of(value) if isinstance(value, np.ndarray) else value


def as_lists(value: Any) -> Any:
    """Return a normalized value with its arrays as lists that remember them, at every level."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    if isinstance(value, list) and type(value) is not ArrayList:
        return [as_lists(item) for item in value]
    if isinstance(value, np.ndarray):
        return ArrayList(lists_of(value), value.dtype, value.shape)
    return value


def equal(a: Any, b: Any) -> bool:
    """Return whether two JSON-like values are equal; NaN equals NaN.

    Numbers compare as in Python (``1 == 1.0``), except that booleans equal only booleans.
    """
    if a is b:
        return True
    if isinstance(a, dict) and isinstance(b, Mapping):
        return len(a) == len(b) and all(k in b and equal(v, b[k]) for k, v in a.items())
    if isinstance(a, (np.ndarray, np.generic)):
        a = a.tolist()
    if isinstance(b, (np.ndarray, np.generic)):
        b = b.tolist()
    if isinstance(a, (list, tuple)):
        if not isinstance(b, (list, tuple)) or len(a) != len(b):
            return False
        return _same_plain_items(a, b) or all(map(equal, a, b))
    if isinstance(a, bool) is not isinstance(b, bool):
        return False
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


_ALIKE = frozenset({int, float, str})


def _same_plain_items(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Return whether Python itself finds all numbers and texts of two sequences equal."""
    return _ALIKE.issuperset(map(type, a)) and _ALIKE.issuperset(map(type, b)) and a == b
