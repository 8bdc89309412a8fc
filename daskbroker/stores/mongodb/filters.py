"""Translation of a search to a filter for MongoDB.

The filter finds at least what the search requests. If it is exact, the server can count. Conditions
that MongoDB interprets differently from :mod:`daskbroker.core.query` (the order of keys in whole
mappings, most regular expressions) are left out and decided afterwards. So are conditions on text
that another program may have stored as a date or as another type that documents show as text.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson

from ...core.operators import is_operators
from ...core.query import Query
from ...core.search import Search
from .bson_documents import SIDE_FIELD

_PATH = re.compile(r"[^$.\0\d][^.\0]*(\.[^$.\0\d][^.\0]*)*")
_PLAIN_PATTERN = re.compile(r"(?!.*\(\?)[A-Za-z0-9_ ^$.*+?()|/:,=-]*", re.ASCII)
_SHOWN_AS_TEXT = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00|-?\d+ ms after 1970|[0-9a-f]{24}|/.*/[imsx]*|MinKey|MaxKey",
    re.DOTALL,
)
"""What documents show for BSON's dates, ObjectIds, patterns and bounds."""
_TYPES_AS_TEXT = (
    "date", "timestamp", "objectId", "regex", "javascript", "javascriptWithScope", "minKey",
    "maxKey",
)  # fmt: skip
_ORDERED = ("$gt", "$gte", "$lt", "$lte")
_COMPARISONS = ("$eq", "$ne", *_ORDERED)


@dataclass(frozen=True)
class Filter:
    """A filter for ``find``, and whether it finds exactly what was requested.

    Attributes
    ----------
    query
        Filter as MongoDB has it.
    exact
        Whether no document that it finds has to be looked at again.
    """

    query: dict[str, Any]
    exact: bool


def start_filter(search: Search, *, packed: bool) -> Filter:
    """Return the filter on start documents for a search, without its texts and stop queries.

    Parameters
    ----------
    search
        Search to translate.
    packed
        Whether there may be documents whose plain form is incomplete. The filter then finds all
        of these, too, and is not exact.
    """
    found = query_filter(search.queries)
    by_stop = search.stop or search.is_open
    query, exact = found.query, found.exact and not search.texts and not by_stop
    if packed and query:
        query, exact = {"$or": [query, {f"{SIDE_FIELD}.packed": {"$exists": True}}]}, False
    times = {"$gte": search.since, "$lte": search.until}
    asked = {sign: end for sign, end in times.items() if end is not None}
    if asked:
        query = {"$and": [{"time": asked}, query]} if query else {"time": asked}
    return Filter(query, exact)


def query_filter(queries: Sequence[Query]) -> Filter:
    """Return the filter for the conjunction of some queries."""
    return _all_of([_document(query.source) for query in queries])


def _all_of(parts: Sequence[Filter]) -> Filter:
    """Return the conjunction of some filters, of which those without a query exclude nothing."""
    wanted = [part.query for part in parts if part.query]
    exact = all(part.exact for part in parts)
    if len(wanted) > 1:
        return Filter({"$and": wanted}, exact)
    return Filter(wanted[0] if wanted else {}, exact)


def _document(source: Mapping[str, Any]) -> Filter:
    """Return the filter for a query; conditions that MongoDB decides otherwise are left out."""
    return _all_of(
        [
            _logical(key, value) if key.startswith("$") else _field(key, value)
            for key, value in source.items()
        ]
    )


def _logical(key: str, sources: Sequence[Mapping[str, Any]]) -> Filter:
    parts = [_document(source) for source in sources]
    if key == "$and":
        return _all_of(parts)
    exact = all(part.exact for part in parts)
    # A branch without any condition for MongoDB would let every document through. $nor excludes
    # what its branches find, so branches that find too much would exclude too much.
    usable = all(part.query for part in parts) and (exact or key == "$or")
    return Filter({key: [part.query for part in parts]} if usable else {}, exact and usable)


def _field(path: str, value: Any) -> Filter:
    if not _PATH.fullmatch(path):
        return Filter({}, exact=False)
    operators = value if is_operators(value) else {"$eq": value}
    usable = {
        operator: operand
        for operator, operand in operators.items()
        if operator != "$options" and _same_in_mongo(operator, operand, operators)
    }
    if any(_is_of_text(operator, operand) for operator, operand in usable.items()):
        return Filter({"$or": [{path: usable}, {path: {"$type": list(_TYPES_AS_TEXT)}}]}, False)
    return Filter({path: usable} if usable else {}, len(usable) == len(operators))


def _is_of_text(operator: str, operand: Any) -> bool:
    """Return whether an operator finds ranges of text, which may be of another type in BSON."""
    if operator == "$not":
        return any(_is_of_text(name, one) for name, one in operand.items())
    return operator in _ORDERED and isinstance(operand, str)


def _same_in_mongo(operator: str, operand: Any, beside: Mapping[str, Any]) -> bool:
    """Return whether MongoDB decides an operator exactly as :mod:`daskbroker.core.query` does."""
    if operator in _COMPARISONS:
        return _same_value(operand)
    if operator in ("$in", "$nin", "$all"):
        return all(_same_value(item) for item in operand)
    if operator == "$not":
        return all(_same_in_mongo(name, one, operand) for name, one in operand.items())
    if operator == "$regex":
        return "$options" not in beside and bool(_PLAIN_PATTERN.fullmatch(operand))
    return operator == "$exists" or (operator == "$size" and operand < 2**31)


def _same_value(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str) and _SHOWN_AS_TEXT.fullmatch(value):
        return False
    if isinstance(value, list):
        return all(_same_value(item) and item is not None for item in value)
    if isinstance(value, (dict, bytes, uuid.UUID)):
        return False
    try:
        bson.encode({"": value})
    except (OverflowError, UnicodeError):
        return False
    return True
