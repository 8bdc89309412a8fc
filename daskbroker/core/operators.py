"""Operators of a query, each compiled to a test of the values that are found under a path.

Dotted keys reach into mappings and, as in MongoDB, through arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from .documents import equal
from .errors import BadQuery
from .patterns import search_pattern
from .printable import shown

LOGICAL = ("$and", "$or", "$nor")
OPERATORS = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$type", "$regex",
    "$options", "$size", "$all", "$elemMatch", "$mod", "$not", *LOGICAL,
)  # fmt: skip
"""All operators that a query may use."""

MAX_QUERY_DEPTH = 32
"""Maximum number of levels of a query."""
MAX_CONDITIONS = 1000
"""Maximum number of conditions of a query; a hundred times as many values in their lists."""

HASHED = ("number", "text")
"""Classes of values that are looked up in a set of texts and integers."""

LONGEST_INDEX = 18
"""Maximum digits of an index; Python refuses to read thousands of them."""
ABSENT = object()
"""Found under a path that does not lead to a value."""


class _Whole(list[Any]):
    """List in a list: a condition is on the list, not on its items."""


Test = Callable[[list[Any]], bool]
"""Function of the values found under a path; returns whether the operator holds."""


class Compiler:
    """Compiler of a normalized query to a function.

    Parameters
    ----------
    where
        Name of the query for messages.

    Attributes
    ----------
    count, values
        Number of conditions, and of values in their lists, compiled so far.

    Raises
    ------
    BadQuery
        By :meth:`document` and :meth:`value`, if the query is not valid, too deep or too long.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = self.values = 0

    def _fail(self, message: str) -> BadQuery:
        return BadQuery(f"{self.where}: {message}")

    def document(self, query: Any, depth: int) -> Callable[[Any], bool]:
        """Compile a query to a function of a document."""
        if depth > MAX_QUERY_DEPTH:
            raise self._fail(f"nested deeper than {MAX_QUERY_DEPTH} levels")
        if not isinstance(query, dict):
            raise self._fail(f"a query is a mapping, not {shown(query)}")
        tests = [self._entry(key, value, depth) for key, value in query.items()]
        # Most queries have one condition; a call less for each document.
        if len(tests) == 1:
            return tests[0]
        return lambda doc: all(test(doc) for test in tests)

    def _entry(self, key: str, value: object, depth: int) -> Callable[[Any], bool]:
        # Counted while compiling, so that a query of any nesting is bounded as a whole.
        self.count += 1
        if self.count > MAX_CONDITIONS:
            raise self._fail(f"more than {MAX_CONDITIONS} conditions")
        if key in LOGICAL:
            return self._logical(key, value, depth)
        if key.startswith("$"):
            raise self._fail(
                f"{shown(key)} is not allowed here; operators are {', '.join(OPERATORS)}"
            )
        steps = tuple(key.split("."))
        test = self.value(value, depth)
        return lambda doc: test(list(reach(doc, steps)))

    def _logical(self, key: str, value: object, depth: int) -> Callable[[Any], bool]:
        if not isinstance(value, list) or not value:
            raise self._fail(f"{key} needs a list of queries, not {shown(value)}")
        tests = [self.document(part, depth + 1) for part in value]
        if key == "$and":
            return lambda doc: all(test(doc) for test in tests)
        if key == "$or":
            return lambda doc: any(test(doc) for test in tests)
        return lambda doc: not any(test(doc) for test in tests)

    def value(self, value: Any, depth: int) -> Test:
        """Compile the condition on a key to a function of the values found there."""
        if not is_operators(value):
            return _equals(value)
        if depth > MAX_QUERY_DEPTH:
            raise self._fail(f"nested deeper than {MAX_QUERY_DEPTH} levels")
        tests = []
        for operator, operand in value.items():
            self.count += 1
            if operator not in OPERATORS or operator in LOGICAL:
                raise self._fail(
                    f"the operator {shown(operator)} is not allowed; those allowed are "
                    f"{', '.join(OPERATORS)}"
                )
            # It was read together with $regex, which stands beside it.
            if operator == "$options":
                if "$regex" not in value:
                    raise self._fail("$options goes with $regex")
                continue
            tests.append(self._operator(operator, operand, value, depth))
        return lambda found: all(test(found) for test in tests)

    def _operator(self, name: str, operand: object, beside: Mapping[str, Any], depth: int) -> Test:
        if name == "$eq":
            return _equals(operand)
        if name == "$ne":
            return _negated(_equals(operand))
        if name in ("$gt", "$gte", "$lt", "$lte"):
            return self._ordered(name, operand)
        if name in ("$in", "$nin", "$all"):
            return self._membership(name, operand, depth)
        if name == "$not":
            if not is_operators(operand):
                raise self._fail(
                    f"$not needs operators, such as {{'$gt': 1}}, not {shown(operand)}"
                )
            return _negated(self.value(operand, depth + 1))
        if name == "$regex":
            pattern = search_pattern(operand, beside.get("$options", ""), self.where)
            return _any_cell(lambda cell: isinstance(cell, str) and pattern(cell))
        if name == "$elemMatch":
            return self._elem_match(operand, depth)
        others = {
            "$exists": self._exists, "$size": self._size, "$mod": self._mod, "$type": self._type,
        }  # fmt: skip
        return others[name](operand)

    def _ordered(self, name: str, operand: object) -> Test:
        kind = order_class(operand)
        if kind is None:
            raise self._fail(f"{name} compares numbers, text or booleans, not {shown(operand)}")
        compare = {
            "$gt": lambda a: a > operand,
            "$gte": lambda a: a >= operand,
            "$lt": lambda a: a < operand,
            "$lte": lambda a: a <= operand,
        }[name]
        # NaN equals NaN in MongoDB, and is neither above nor below any number.
        if isinstance(operand, float) and math.isnan(operand):
            same = _equals(operand)
            return same if name in ("$gte", "$lte") else lambda found: False
        return _any_cell(lambda cell: order_class(cell) == kind and bool(compare(cell)))

    def _membership(self, name: str, operand: object, depth: int) -> Test:
        if not isinstance(operand, list):
            raise self._fail(f"{name} needs a list, not {shown(operand)}")
        self.values += len(operand)
        if self.values > MAX_CONDITIONS * 100:
            raise self._fail(f"more than {MAX_CONDITIONS * 100} values")
        # MongoDB refuses these, too.
        if any(is_operators(item) and set(item) - {"$regex", "$options"} for item in operand):
            raise self._fail(f"{name} takes values and patterns, not operators")
        # There may be thousands, such as uids and scan_ids. NaN and booleans equal otherwise.
        if name != "$all" and all(type(item) in (str, int) for item in operand):
            known = frozenset(operand)
            one_of = _any_cell(lambda cell: order_class(cell) in HASHED and cell in known)
            return one_of if name == "$in" else _negated(one_of)
        tests = [self.value(item, depth + 1) for item in operand]
        # $all of an empty list finds nothing, as in MongoDB.
        if name == "$all":
            return lambda found: bool(tests) and all(test(found) for test in tests)
        inside: Test = lambda found: any(test(found) for test in tests)  # noqa: E731
        return inside if name == "$in" else _negated(inside)

    def _exists(self, operand: object) -> Test:
        if not isinstance(operand, (bool, int)):
            raise self._fail(f"$exists needs true or false, not {shown(operand)}")
        return lambda found: any(value is not ABSENT for value in found) is bool(operand)

    def _size(self, operand: object) -> Test:
        if type(operand) is not int or operand < 0:
            raise self._fail(f"$size needs an integer of 0 or more, not {shown(operand)}")
        return lambda found: any(isinstance(v, list) and len(v) == operand for v in found)

    def _mod(self, operand: object) -> Test:
        if (
            not isinstance(operand, list)
            or len(operand) != 2
            or not all(type(part) is int for part in operand)
            or operand[0] == 0
        ):
            raise self._fail(f"$mod needs [divisor, remainder], not {shown(operand)}")
        divisor, remainder = operand

        def test(cell: Any) -> bool:
            # Like MongoDB: numbers that have no remainder do not match; a bool is no number here.
            if order_class(cell) != "number" or not math.isfinite(cell):
                return False
            whole = int(cell)
            rest = abs(whole) % abs(divisor)
            return (rest if whole >= 0 else -rest) == remainder

        return _any_cell(test)

    def _type(self, operand: Any) -> Test:
        names = operand if isinstance(operand, list) else [operand]
        if not names or not all(isinstance(n, str) and n in _TYPES for n in names):
            raise self._fail(f"$type takes {', '.join(_TYPES)}, not {shown(operand)}")
        tests = [_TYPES[name] for name in names]

        def test(values: list[Any]) -> bool:
            return any(kind(cell) for value in values for cell in _cells(value) for kind in tests)

        return test

    def _elem_match(self, operand: object, depth: int) -> Test:
        if not isinstance(operand, dict) or not operand:
            raise self._fail(f"$elemMatch needs a query, not {shown(operand)}")
        # Operators are tested on the items themselves, a query on items that are mappings.
        if is_operators(operand) and not set(operand) & set(LOGICAL):
            inner = self.value(operand, depth + 1)
            return lambda found: any(
                inner([_whole(item)])
                for value in found
                if isinstance(value, list)
                for item in value
            )
        matches = self.document(operand, depth + 1)
        return lambda found: any(
            matches(dict(zip(map(str, count()), item)) if isinstance(item, list) else item)
            for value in found
            if isinstance(value, list)
            for item in value
            if isinstance(item, (dict, list))
        )


_TYPES: dict[str, Callable[[Any], bool]] = {
    "number": lambda v: type(v) in (int, float),
    "int": lambda v: type(v) is int,
    "double": lambda v: type(v) is float,
    "string": lambda v: isinstance(v, str),
    "bool": lambda v: type(v) is bool,
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "null": lambda v: v is None,
}


def index_of(step: str, values: Sequence[Any]) -> int | None:
    """Return the index that a step of a dotted path means in a list; None if it means none."""
    # isdigit alone is also true of signs such as "²", which int refuses; "01" is no index.
    if len(step) > LONGEST_INDEX or not (step.isascii() and step.isdigit()):
        return None
    index = int(step)
    return index if str(index) == step and index < len(values) else None


def reach(value: Any, steps: tuple[str, ...]) -> Iterator[Any]:
    """Yield the values under a dotted path, which goes through arrays as in MongoDB.

    `ABSENT` stands for each place where the path ends early: not for a list without mappings.
    """
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        if step in value:
            yield from reach(value[step], rest)
        else:
            yield ABSENT
    elif isinstance(value, list):
        index = index_of(step, value)
        # As in MongoDB, a number in a path may be an index of a list, and also a key of its
        # items.
        if index is not None:
            yield from _reach_item(value[index], rest)
        # A path also goes through each mapping in a list, but not through lists in lists.
        for item in value:
            if isinstance(item, dict):
                yield from reach(item, steps)
    else:
        yield ABSENT


def _reach_item(item: Any, steps: tuple[str, ...]) -> Iterator[Any]:
    """Yield the values under the rest of a path whose last step was the index of this item."""
    if not steps:
        yield _whole(item)
    elif isinstance(item, (dict, list)):
        yield from reach(item, steps)


def _whole(item: Any) -> Any:
    return _Whole(item) if isinstance(item, list) else item


def _cells(value: object) -> Iterator[Any]:
    yield value
    # A list matches by itself, or by any of its items.
    if isinstance(value, list) and type(value) is not _Whole:
        yield from value


def _any_cell(test: Callable[[Any], bool]) -> Test:
    return lambda found: any(test(cell) for value in found for cell in _cells(value))


def _negated(test: Test) -> Test:
    return lambda found: not test(found)


def _equals(operand: object) -> Test:
    # None also finds documents without the key.
    if operand is None:
        return _any_cell(lambda cell: cell is None or cell is ABSENT)
    return _any_cell(lambda cell: equal(cell, operand))


def is_operators(value: object) -> bool:
    """Return whether the condition on a key consists of operators, and is not a value."""
    return isinstance(value, dict) and any(key.startswith("$") for key in value)


def order_class(value: Any) -> str | None:
    """Return the class within which a value is ordered, or None if it has no order."""
    # Before numbers, as a bool is an int to isinstance, but is ordered apart in MongoDB.
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else None
