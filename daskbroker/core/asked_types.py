"""Types of the values that a query requests, and of those that documents have.

Nothing equals a value of another type, in memory as in MongoDB: ``{"scan_id": "1"}`` does not find
the run that has the number 1.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .operators import is_operators, order_class

SINGLE = ("$eq", "$gt", "$gte", "$lt", "$lte", "$regex")
SEVERAL = ("$in", "$all")
UNTYPED = frozenset({"$exists", "$type", "$not", "$nor", "$ne", "$nin", "$size", "$elemMatch"})
"""Operators that a value of any type, or none, may match."""
NAMES = {"bool": "a boolean", "number": "a number", "text": "text"}


def asked_values(asked: Any) -> list[Any]:
    """Return the values that a condition compares with; empty if it can match any type."""
    if not is_operators(asked):
        return [asked]
    if UNTYPED & asked.keys():
        return []
    several = [value for name in SEVERAL for value in asked.get(name, ())]
    return several + [asked[name] for name in SINGLE if name in asked]


def type_name(value: Any) -> str:
    """Return the type of a JSON-like value in words."""
    name = order_class(value)
    if name is not None:
        return NAMES[name]
    names = {dict: "a mapping", bytes: "bytes", uuid.UUID: "a UUID", type(None): "None"}
    found = (name for kind, name in names.items() if isinstance(value, kind))
    return next(found, "a list" if isinstance(value, list) else type(value).__name__)


def types_of(value: Any) -> Iterator[str]:
    """Yield the types with which a query compares a stored value: of lists those of the items."""
    if isinstance(value, list):
        for item in value:
            yield from types_of(item)
    else:
        yield type_name(value)


def in_other_type(values: Iterable[Any], types: Iterable[str]) -> Any:
    """Return the first value that can be converted to one of some types, converted; else None."""
    for value in values:
        if "text" in types and not isinstance(value, (str, Mapping, type(None))):
            return str(value)
        if "a number" in types and isinstance(value, str):
            for convert in (int, float):
                try:
                    return convert(value)
                except ValueError:
                    continue
    return None
