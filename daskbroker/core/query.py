"""Mongo-style filters on documents: one whitelist of operators that every store shares.

A query is compiled once, evaluated in Python by :meth:`Query.matches`; a store may use
:attr:`Query.conditions` with an index to look at fewer documents. Dotted keys reach into
mappings and, as in MongoDB, through arrays. Differences from MongoDB: the order of keys does
not matter when whole mappings are compared, and ``True`` never equals ``1``. Operators that
run code (``$where``, ``$expr``, ``$function``) are refused, as is everything not listed.
"""

from __future__ import annotations

import datetime
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from .documents import equal, normalize
from .errors import BadDocument, BadQuery

__all__ = [
    "OPERATORS",
    "Condition",
    "Query",
    "compile_query",
    "full_matches",
    "search_pattern",
]

LOGICAL = ("$and", "$or", "$nor")
OPERATORS = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$type", "$regex",
    "$options", "$size", "$all", "$elemMatch", "$mod", "$not", *LOGICAL,
)  # fmt: skip
"""All that a query may use."""

INDEXABLE = ("$eq", "$in", "$gt", "$gte", "$lt", "$lte")
DEEPEST = 32
MOST = 1000
LONGEST_PATTERN = 1000
PATTERN_SECONDS = 1.0

Test = Callable[[list[Any]], bool]
"""Of the values found under a path: does the operator hold?"""


@dataclass(frozen=True, slots=True)
class Condition:
    """One AND-ed condition on scalars, for an index to use."""

    path: str
    operator: str
    operand: Any


class Query:
    """A compiled filter; see :func:`compile_query`.

    Attributes
    ----------
    source
        The normalized query.
    conditions
        Conditions that all hold for a document that matches; there may be others.
    exact
        The conditions are the whole query.
    """

    def __init__(self, source: Mapping[str, Any] | None = None, where: str = "query") -> None:
        self.source: dict[str, Any] = _normalized(source or {}, where)
        compiler = _Compiler(where)
        self._test = compiler.document(self.source, 0)
        self.conditions, self.exact = _conditions(self.source)

    def matches(self, doc: Mapping[str, Any]) -> bool:
        """Whether a document matches.

        Raises
        ------
        BadQuery
            If a regular expression takes too long.
        """
        return self._test(doc)

    def to_mongo(self) -> dict[str, Any]:
        """The filter for MongoDB: it finds at least what matches here."""
        return _to_mongo(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Query, (self.source,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and equal(self.source, other.source)

    def __hash__(self) -> int:
        return hash(repr(self.source))

    def __bool__(self) -> bool:
        return bool(self.source)

    def __repr__(self) -> str:
        return f"Query({self.source!r})"


def compile_query(query: Mapping[str, Any] | None, where: str = "query") -> Query:
    """Check and compile a filter.

    Parameters
    ----------
    query
        Such as ``{"plan_name": "scan", "sample.temperature": {"$gt": 20}}``.
    where
        Name of the query for messages.

    Raises
    ------
    BadQuery
        For an operator outside the whitelist, an operand that makes no sense, an invalid
        regular expression, or a query that is too deep or long.
    """
    return Query(query, where)


# -- normalizing -----------------------------------------------------------------------------


def _normalized(query: Any, where: str) -> dict[str, Any]:
    if not isinstance(query, Mapping):
        raise BadQuery(f"{where}: a query is a mapping, not {type(query).__name__}")
    try:
        result: dict[str, Any] = normalize(_simple(query, where, 0), where)
    except BadDocument as error:
        raise BadQuery(str(error)) from None
    return result


_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


def _simple(value: Any, where: str, depth: int) -> Any:
    """Patterns as ``$regex``, instants as POSIX seconds; the rest is for ``normalize``."""
    if depth > DEEPEST:
        raise BadQuery(f"{where}: nested deeper than {DEEPEST} levels")
    if isinstance(value, re.Pattern):
        if not isinstance(value.pattern, str):
            raise BadQuery(f"{where}: a pattern must be of text, not bytes")
        options = "".join(letter for letter, flag in _FLAGS.items() if value.flags & flag)
        return {"$regex": value.pattern, **({"$options": options} if options else {})}
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise BadQuery(f"{where}: the datetime {value} has no zone; give one, or use since=")
        return value.timestamp()
    if isinstance(value, Mapping):
        return {k: _simple(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_simple(v, where, depth + 1) for v in value]
    return value


# -- compiling -------------------------------------------------------------------------------


class _Compiler:
    """Turns a normalized query into a function; counts what it has compiled."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0

    def _fail(self, message: str) -> BadQuery:
        return BadQuery(f"{self.where}: {message}")

    def document(self, query: Any, depth: int) -> Callable[[Any], bool]:
        """A function of a document."""
        if depth > DEEPEST:
            raise self._fail(f"nested deeper than {DEEPEST} levels")
        if not isinstance(query, dict):
            raise self._fail(f"a query is a mapping, not {query!r}")
        tests = [self._entry(key, value, depth) for key, value in query.items()]
        if len(tests) == 1:
            return tests[0]
        return lambda doc: all(test(doc) for test in tests)

    def _entry(self, key: str, value: Any, depth: int) -> Callable[[Any], bool]:
        self.count += 1
        if self.count > MOST:
            raise self._fail(f"more than {MOST} conditions")
        if key in LOGICAL:
            return self._logical(key, value, depth)
        if key.startswith("$"):
            raise self._fail(f"{key!r} is not allowed here; operators are {', '.join(OPERATORS)}")
        steps = tuple(key.split("."))
        test = self.value(value, depth)
        return lambda doc: test(list(reach(doc, steps)))

    def _logical(self, key: str, value: Any, depth: int) -> Callable[[Any], bool]:
        if not isinstance(value, list) or not value:
            raise self._fail(f"{key} needs a list of queries, not {value!r}")
        tests = [self.document(part, depth + 1) for part in value]
        if key == "$and":
            return lambda doc: all(test(doc) for test in tests)
        if key == "$or":
            return lambda doc: any(test(doc) for test in tests)
        return lambda doc: not any(test(doc) for test in tests)

    def value(self, value: Any, depth: int) -> Test:
        """A function of the values found under a path."""
        if not _is_operators(value):
            return _equals(value)
        if depth > DEEPEST:
            raise self._fail(f"nested deeper than {DEEPEST} levels")
        tests = []
        for operator, operand in value.items():
            self.count += 1
            if operator not in OPERATORS or operator in LOGICAL:
                raise self._fail(
                    f"the operator {operator!r} is not allowed; those allowed are "
                    f"{', '.join(OPERATORS)}"
                )
            if operator == "$options":
                if "$regex" not in value:
                    raise self._fail("$options goes with $regex")
                continue
            tests.append(self._operator(operator, operand, value, depth))
        return lambda found: all(test(found) for test in tests)

    def _operator(self, name: str, operand: Any, beside: Mapping[str, Any], depth: int) -> Test:
        if name == "$eq":
            return _equals(operand)
        if name == "$ne":
            return _negated(_equals(operand))
        if name in ("$gt", "$gte", "$lt", "$lte"):
            return self._ordered(name, operand)
        if name in ("$in", "$nin", "$all"):
            return self._membership(name, operand, depth)
        if name == "$not":
            if not _is_operators(operand):
                raise self._fail(f"$not needs operators, such as {{'$gt': 1}}, not {operand!r}")
            return _negated(self.value(operand, depth + 1))
        if name == "$regex":
            pattern = search_pattern(operand, beside.get("$options", ""), self.where)
            return _any_cell(lambda cell: isinstance(cell, str) and pattern(cell))
        return getattr(self, "_" + name[1:].lower())(operand, depth)  # type: ignore[no-any-return]

    def _ordered(self, name: str, operand: Any) -> Test:
        kind = _order_class(operand)
        if kind is None:
            raise self._fail(f"{name} compares numbers, text or booleans, not {operand!r}")
        compare = {
            "$gt": lambda a: a > operand,
            "$gte": lambda a: a >= operand,
            "$lt": lambda a: a < operand,
            "$lte": lambda a: a <= operand,
        }[name]
        if isinstance(operand, float) and math.isnan(operand):
            same = _equals(operand)
            return same if name in ("$gte", "$lte") else lambda found: False
        return _any_cell(lambda cell: _order_class(cell) == kind and bool(compare(cell)))

    def _membership(self, name: str, operand: Any, depth: int) -> Test:
        if not isinstance(operand, list):
            raise self._fail(f"{name} needs a list, not {operand!r}")
        self.count += len(operand)
        if self.count > MOST * 100:
            raise self._fail(f"more than {MOST * 100} values")
        if any(_is_operators(item) and set(item) - {"$regex", "$options"} for item in operand):
            raise self._fail(f"{name} takes values and patterns, not operators")
        tests = [self.value(item, depth + 1) for item in operand]
        if name == "$all":
            return lambda found: bool(tests) and all(test(found) for test in tests)
        inside: Test = lambda found: any(test(found) for test in tests)  # noqa: E731
        return inside if name == "$in" else _negated(inside)

    def _exists(self, operand: Any, depth: int) -> Test:
        if not isinstance(operand, (bool, int)):
            raise self._fail(f"$exists needs true or false, not {operand!r}")
        return lambda found: bool(found) is bool(operand)

    def _size(self, operand: Any, depth: int) -> Test:
        if type(operand) is not int or operand < 0:
            raise self._fail(f"$size needs an integer of 0 or more, not {operand!r}")
        return lambda found: any(isinstance(v, list) and len(v) == operand for v in found)

    def _mod(self, operand: Any, depth: int) -> Test:
        if (
            not isinstance(operand, list)
            or len(operand) != 2
            or not all(type(part) is int for part in operand)
            or operand[0] == 0
        ):
            raise self._fail(f"$mod needs [divisor, remainder], not {operand!r}")
        divisor, remainder = operand

        def test(cell: Any) -> bool:
            if _order_class(cell) != "number" or not math.isfinite(cell):
                return False
            return int(math.fmod(int(cell), divisor)) == remainder

        return _any_cell(test)

    def _type(self, operand: Any, depth: int) -> Test:
        names = operand if isinstance(operand, list) else [operand]
        if not names or not all(isinstance(n, str) and n in _TYPES for n in names):
            raise self._fail(f"$type takes {', '.join(_TYPES)}, not {operand!r}")
        tests = [_TYPES[name] for name in names]

        def test(found: list[Any]) -> bool:
            return any(kind(cell) for value in found for cell in _cells(value) for kind in tests)

        return test

    def _elemmatch(self, operand: Any, depth: int) -> Test:
        if not isinstance(operand, dict) or not operand:
            raise self._fail(f"$elemMatch needs a query, not {operand!r}")
        if _is_operators(operand) and not set(operand) & set(LOGICAL):
            inner = self.value(operand, depth + 1)
            return lambda found: any(
                inner([item]) for value in found if isinstance(value, list) for item in value
            )
        whole = self.document(operand, depth + 1)
        return lambda found: any(
            whole(item)
            for value in found
            if isinstance(value, list)
            for item in value
            if isinstance(item, dict)
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


def reach(value: Any, steps: tuple[str, ...]) -> Iterator[Any]:
    """The values under a dotted path; through arrays as MongoDB does."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        if step in value:
            yield from reach(value[step], rest)
    elif isinstance(value, list):
        if step.isascii() and step.isdigit() and int(step) < len(value):
            yield from reach(value[int(step)], rest)
        for item in value:
            if isinstance(item, dict):
                yield from reach(item, steps)


def _cells(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, list):
        yield from value


def _any_cell(test: Callable[[Any], bool]) -> Test:
    return lambda found: any(test(cell) for value in found for cell in _cells(value))


def _negated(test: Test) -> Test:
    return lambda found: not test(found)


def _equals(operand: Any) -> Test:
    if operand is None:
        return lambda found: not found or any(c is None for v in found for c in _cells(v))
    return _any_cell(lambda cell: equal(cell, operand))


def _is_operators(value: Any) -> bool:
    return isinstance(value, dict) and any(key.startswith("$") for key in value)


def _order_class(value: Any) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else None


def search_pattern(pattern: Any, options: Any, where: str) -> Callable[[str], bool]:
    """A function that looks for a pattern in text, and gives up on one that takes too long.

    Raises
    ------
    BadQuery
        For an invalid or overlong pattern; by the function, after a second of one call.
    """
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        raise BadQuery(f"{where}: a pattern is text of at most {LONGEST_PATTERN} characters")
    if not isinstance(options, str) or not set(options) <= _FLAGS.keys():
        raise BadQuery(f"{where}: $options takes the letters imsx, not {options!r}")
    compiled = _compiled(pattern, options, where)

    def found(text: str) -> bool:
        began = time.monotonic()
        try:
            return compiled.search(text, timeout=PATTERN_SECONDS) is not None
        except TimeoutError:
            raise _too_slow(pattern, time.monotonic() - began, "one text", where) from None

    return found


def full_matches(pattern: str | re.Pattern[str], texts: Sequence[str], where: str) -> list[str]:
    """Those of some texts that a pattern matches wholly, found in a second or not at all.

    Raises
    ------
    BadQuery
        For an invalid or overlong pattern, and for one that takes too long.
    """
    options = ""
    if isinstance(pattern, re.Pattern):
        options = "".join(letter for letter, flag in _FLAGS.items() if pattern.flags & flag)
        options += "a" if pattern.flags & re.ASCII else ""
        pattern = pattern.pattern
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        raise BadQuery(f"{where}: a pattern is text of at most {LONGEST_PATTERN} characters")
    compiled = _compiled(pattern, options, where)
    began = time.monotonic()
    found = []
    for text in texts:
        left = PATTERN_SECONDS - (time.monotonic() - began)
        try:
            if compiled.fullmatch(text, timeout=max(left, 1e-6)) is not None:
                found.append(text)
        except TimeoutError:
            elapsed = time.monotonic() - began
            raise _too_slow(pattern, elapsed, f"{len(texts):,} names", where) from None
    return found


def _compiled(pattern: str, options: str, where: str) -> Any:
    flags = 0
    for letter in options:
        flags |= getattr(regex, letter.upper())
    try:
        return regex.compile(pattern, flags)
    except (regex.error, OverflowError, RecursionError) as error:
        raise BadQuery(f"{where}: {pattern!r} is no regular expression: {error}") from None


def _too_slow(pattern: str, elapsed: float, what: str, where: str) -> BadQuery:
    return BadQuery(
        f"{where}: the pattern {pattern!r} took longer than {elapsed:.1f} s on {what}; simplify it"
    )


# -- for stores ------------------------------------------------------------------------------


def _conditions(source: Mapping[str, Any]) -> tuple[tuple[Condition, ...], bool]:
    found: list[Condition] = []
    exact = True
    for key, value in source.items():
        if key == "$and":
            for part in value:
                inner, inner_exact = _conditions(part)
                found.extend(inner)
                exact = exact and inner_exact
        elif key.startswith("$"):
            exact = False
        else:
            operators = value if _is_operators(value) else {"$eq": value}
            for operator, operand in operators.items():
                if _indexable(key, operator, operand):
                    found.append(Condition(key, operator, operand))
                else:
                    exact = False
    return tuple(found), exact


def _indexable(path: str, operator: str, operand: Any) -> bool:
    if operator not in INDEXABLE or any(step.isdigit() for step in path.split(".")):
        return False
    values = operand if operator == "$in" else [operand]
    return all(_order_class(v) and not (isinstance(v, float) and math.isnan(v)) for v in values)


def _to_mongo(source: Any) -> Any:
    if isinstance(source, dict):
        out = {key: _to_mongo(value) for key, value in source.items()}
        whole = [k for k, v in out.items() if isinstance(v, dict) and not _is_operators(v)]
        for key in whole:  # MongoDB compares the order of keys too; we decide it afterwards
            if not key.startswith("$"):
                out[key] = {"$exists": True}
        return out
    return [_to_mongo(item) for item in source] if isinstance(source, list) else source
