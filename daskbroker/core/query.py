"""Mongo-style filters on documents, with one whitelist of operators for all stores.

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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .documents import equal, normalize
from .errors import BadDocument, BadQuery
from .operators import MAX_QUERY_DEPTH, OPERATORS, Compiler, is_operators, order_class
from .patterns import flag_letters

__all__ = ["OPERATORS", "Condition", "Query"]

INDEXABLE = ("$eq", "$in", "$gt", "$gte", "$lt", "$lte")


@dataclass(frozen=True, slots=True)
class Condition:
    """One of several AND-ed conditions on scalars, for use with an index."""

    path: str
    operator: str
    operand: Any


class Query:
    """A filter, checked and compiled.

    Parameters
    ----------
    source
        Filter such as ``{"plan_name": "scan", "sample.temperature": {"$gt": 20}}``. None or empty
        matches every document.
    where
        Name of the query for messages.

    Attributes
    ----------
    source
        The filter, normalized.
    conditions
        Conditions that all hold for every document that matches; the query may ask for more.
    exact
        Whether the conditions are the whole query.

    Raises
    ------
    BadQuery
        If an operator is outside the whitelist, an operand or a regular expression is not valid,
        or the query is too deep or too long.
    """

    def __init__(self, source: Mapping[str, Any] | None = None, where: str = "query") -> None:
        self.source: dict[str, Any] = _normalized(source or {}, where)
        compiler = Compiler(where)
        self._test = compiler.document(self.source, 0)
        self.conditions, self.exact = _conditions(self.source)

    def matches(self, doc: Mapping[str, Any]) -> bool:
        """Return whether a document matches.

        Raises
        ------
        BadQuery
            If a regular expression takes too long.
        """
        return self._test(doc)

    @property
    def asked(self) -> dict[str, list[Any]]:
        """Dotted keys of the query, with what is asked of each; those in logical operators too."""
        found: dict[str, list[Any]] = {}
        _gather(self.source, found)
        return found

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


# -- normalizing -----------------------------------------------------------------------------


def _normalized(query: object, where: str) -> dict[str, Any]:
    if not isinstance(query, Mapping):
        raise BadQuery(f"{where}: a query is a mapping, not {type(query).__name__}")
    try:
        result: dict[str, Any] = normalize(_simple(query, where, 0), where)
    except BadDocument as error:
        raise BadQuery(str(error)) from None
    return result


def _simple(value: object, where: str, depth: int) -> Any:
    """Replace patterns by ``$regex``, datetimes by POSIX seconds; ``normalize`` does the rest."""
    if depth > MAX_QUERY_DEPTH:
        raise BadQuery(f"{where}: nested deeper than {MAX_QUERY_DEPTH} levels")
    if isinstance(value, re.Pattern):
        if not isinstance(value.pattern, str):
            raise BadQuery(f"{where}: a pattern must be of text, not bytes")
        options = flag_letters(value.flags)
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


def _gather(source: Mapping[str, Any], values: dict[str, list[Any]]) -> None:
    for key, value in source.items():
        if key.startswith("$"):
            for part in value:
                _gather(part, values)
        else:
            values.setdefault(key, []).append(value)


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
        # Conditions within $or and $nor need not hold for each match.
        elif key.startswith("$"):
            exact = False
        else:
            operators = value if is_operators(value) else {"$eq": value}
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
    return all(order_class(v) and not (isinstance(v, float) and math.isnan(v)) for v in values)
