"""Translate Tiled's queries into searches of a broker, so that the store answers them.

A run's metadata are ``{"start": …, "stop": …}``, and keys begin with one of the two; any other key
is looked up in the start document. As in Tiled's own catalogues, a run that lacks the key of a
query does not match it, not even ``NotEq`` or ``NotIn``. Unlike there, a query also matches if the
value is an item of a list under the key, as everywhere in daskbroker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tiled import queries as tiled_queries
from tiled.queries import QueryValueError
from tiled.structures.core import StructureFamily
from tiled.utils import UnsupportedQueryType

from ..core.errors import BadQuery
from ..core.full_text import TextQuery
from ..core.query import Query
from ..core.search import EVERY_RUN, Search, compile_search

RUN_SPEC = "BlueskyRun"
NO_RUN = Search(queries=(Query({"uid": {"$in": []}}),))
COMPARISONS = {"lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}
LAST_CHARACTER = "\U0010ffff"


def search_of(query: Any) -> Search:
    """Return the search of a broker that answers a query of Tiled.

    Raises
    ------
    QueryValueError
        If a value is not valid; the server answers with status 400 and the message.
    UnsupportedQueryType
        If this kind of query has no counterpart.
    """
    translate = _CONVERT.get(type(query))
    if translate is None:
        known = ", ".join(kind.__name__ for kind in _CONVERT)
        raise UnsupportedQueryType(
            f"{type(query).__name__} (of a catalogue that daskbroker serves; it takes {known})"
        )
    try:
        return translate(query)
    except BadQuery as error:
        raise QueryValueError(str(error)) from error


def _on_document(key: str, condition: object) -> Search:
    """Return a search with a condition on a key of the start or the stop document."""
    document, _, rest = key.partition(".")
    if document == "stop" and rest:
        return Search(stop=(Query({rest: condition}, "stop"),))
    path = rest if document == "start" and rest else key
    return Search(queries=(Query({path: condition}),))


def _comparison(query: Any) -> Search:
    operator = COMPARISONS[getattr(query.operator, "value", query.operator)]
    return _on_document(query.key, {operator: query.value})


def _contains(query: Any) -> Search:
    """Match a list that has the value, or a text that contains it."""
    if isinstance(query.value, str):
        return _on_document(query.key, {"$regex": re.escape(query.value)})
    return _on_document(query.key, {"$eq": query.value})


def _not_in(query: Any) -> Search:
    if not query.value:
        return EVERY_RUN
    return _on_document(query.key, {"$exists": True, "$nin": list(query.value)})


def _regex(query: Any) -> Search:
    options = {} if query.case_sensitive else {"$options": "i"}
    return _on_document(query.key, {"$regex": query.pattern, **options})


def _like(query: Any) -> Search:
    """Match an SQL pattern; a plain prefix, as of uids, becomes a range of texts.

    Stores look up a range faster than a regular expression.
    """
    beginning = query.pattern.removesuffix("%")
    if query.pattern.endswith("%") and not set(beginning) & {"%", "_"}:
        return _on_document(query.key, {"$gte": beginning, "$lt": beginning + LAST_CHARACTER})
    # "." does not match the end of a line, and the signs of SQL do.
    signs = {"%": "(?:.|\n)*", "_": "(?:.|\n)"}
    pattern = "".join(signs.get(sign, re.escape(sign)) for sign in query.pattern)
    return _on_document(query.key, {"$regex": rf"\A{pattern}\Z"})


def _key_present(query: Any) -> Search:
    exists = bool(getattr(query, "exists", True))
    if query.key == "start":
        return EVERY_RUN if exists else NO_RUN
    if query.key == "stop":
        if exists:
            return Search(stop=(Query({"run_start": {"$exists": True}}, "stop"),))
        raise QueryValueError(
            "runs without a stop document cannot be searched for; ask for those that have one, "
            "KeyPresent('stop'), or for stop.exit_status"
        )
    return _on_document(query.key, {"$exists": exists})


def _specs(query: Any) -> Search:
    fits = set(query.include) <= {RUN_SPEC} and RUN_SPEC not in query.exclude
    return EVERY_RUN if fits else NO_RUN


_CONVERT: dict[type, Callable[[Any], Search]] = {
    tiled_queries.Eq: lambda query: _on_document(query.key, {"$eq": query.value}),
    tiled_queries.NotEq: lambda query: _on_document(
        query.key, {"$exists": True, "$ne": query.value}
    ),
    tiled_queries.Comparison: _comparison,
    tiled_queries.Contains: _contains,
    tiled_queries.In: lambda query: _on_document(query.key, {"$in": list(query.value)}),
    tiled_queries.NotIn: _not_in,
    tiled_queries.Regex: _regex,
    tiled_queries.Like: _like,
    tiled_queries.KeyPresent: _key_present,
    tiled_queries.FullText: lambda query: Search(texts=(TextQuery(query.text),)),
    tiled_queries.KeysFilter: lambda query: compile_search(
        query={"uid": {"$in": list(query.keys)}}
    ),
    tiled_queries.SpecsQuery: _specs,
    tiled_queries.StructureFamilyQuery: lambda query: (
        EVERY_RUN if query.value == StructureFamily.container else NO_RUN
    ),
}
