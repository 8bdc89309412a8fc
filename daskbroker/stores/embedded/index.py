"""The index of an embedded store over start and stop documents.

Table ``leaf`` has one row for each scalar that a query can reach (through arrays, as in MongoDB),
table ``word`` one for each word. They narrow a search to the runs that may match. A run of which
something is left out (very long texts, very many values) is marked, and always looked at. Text
is stored with the prefix ``s``, booleans as ``b0`` and ``b1``, so that types never mix.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...core.documents import is_unicode
from ...core.full_text import document_words
from ...core.query import Condition, Query
from ...core.search import Search

__all__ = ["Narrowed", "index_document", "narrow"]

LONGEST_TEXT = 200
"""Maximum length of a text or word that is indexed, in characters."""
MOST_LEAVES = 2000
"""Maximum number of scalars indexed of a document."""
MOST_WORDS = 5000
"""Maximum number of words indexed of a document."""
MOST_PARAMETERS = 500
"""Maximum number of values of a condition that are parameters of their own."""
OVERFLOW = ""
"""Path or word that marks a run of which not everything is indexed."""


def index_document(
    connection: sqlite3.Connection, name: str, number: int, doc: Mapping[str, Any]
) -> None:
    """Add a start or stop document to the index.

    Parameters
    ----------
    connection
        Connection in a transaction.
    name
        ``"start"`` or ``"stop"``.
    number
        Key of the header in the store.
    doc
        The document.
    """
    leaves: set[tuple[str, Any]] = set()
    whole = True
    for path, value in _leaves(doc, ""):
        stored = _stored(value) if path else None
        # What is left out is marked below, and such runs are found by every search of the path.
        if stored is None or len(leaves) >= MOST_LEAVES:
            whole = False
        else:
            leaves.add((path, stored))
    if not whole:
        leaves.add((OVERFLOW, 0))
    connection.executemany(
        "INSERT OR IGNORE INTO leaf VALUES (?, ?, ?, ?)",
        [(name, path, value, number) for path, value in leaves],
    )
    found = document_words(doc)
    words = {word for word in found if len(word) <= LONGEST_TEXT}
    # Longer or more words are not indexed; the mark lets the run be read instead.
    if len(words) != len(found) or len(words) > MOST_WORDS:
        words = {*sorted(words)[:MOST_WORDS], OVERFLOW}
    connection.executemany(
        "INSERT OR IGNORE INTO word VALUES (?, ?)", [(word, number) for word in words]
    )


def _leaves(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, value)`` of each scalar that a query reaches; OVERFLOW for an empty key."""
    if not isinstance(value, dict):
        if value is not None:
            yield path, value
        return
    for key, item in value.items():
        if "." in key:  # no query reaches it: a dot in a query always leads into a mapping
            continue
        if not key:
            yield OVERFLOW, None
            continue
        below = f"{path}.{key}" if path else key
        # A query also reaches the items of a list, but not lists in lists.
        cells = item if isinstance(item, list) else [item]
        for cell in cells:
            if not isinstance(cell, list):
                yield from _leaves(cell, below)


def _stored(value: object) -> Any:
    """Return a scalar as the index holds it, or None if it cannot hold it."""
    # Letters before the value keep booleans, text and numbers apart in one column.
    if isinstance(value, bool):
        return f"b{int(value)}"
    if isinstance(value, str):
        return "s" + value if len(value) <= LONGEST_TEXT and is_unicode(value) else None
    # SQLite's integers have 64 bits.
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


@dataclass(frozen=True)
class Narrowed:
    """A WHERE clause on table ``header`` that finds all runs a search may match.

    Attributes
    ----------
    where, parameters
        The clause, and its parameters.
    exact
        Whether it finds only runs that match.
    """

    where: str
    parameters: list[Any]
    exact: bool


def narrow(connection: sqlite3.Connection, search: Search) -> Narrowed:
    """Return the narrowest clause that the index can give for a search."""
    clauses: list[str] = []
    parameters: list[Any] = []
    exact = True
    for sign, end in ((">=", search.since), ("<=", search.until)):
        # The time has a column of its own.
        if end is not None:
            clauses.append(f"time {sign} ?")
            parameters.append(end)
    for part, queries in (("start", search.queries), ("stop", search.stop)):
        exact = _add_queries(connection, part, queries, clauses, parameters) and exact
    # Without conditions that the index can use, the run must have a stop all the same.
    if search.stop:
        clauses.append("stop IS NOT NULL")
    if search.is_open:
        clauses.append("stop IS NULL")
    for text in search.texts:
        # A substring may be anywhere in a word, for which there is no index.
        if text.words is None:
            exact = False
            continue
        exact = exact and not _has_overflow(connection, "word", "word = ?", [OVERFLOW])
        for word in text.words:
            clauses.append("id IN (SELECT header FROM word WHERE word IN (?, ''))")
            parameters.append(word)
    return Narrowed(" AND ".join(clauses) or "1", parameters, exact)


def _add_queries(
    connection: sqlite3.Connection,
    name: str,
    queries: tuple[Query, ...],
    clauses: list[str],
    parameters: list[Any],
) -> bool:
    exact = True
    for query in queries:
        exact = exact and query.exact
        for condition in query.conditions:
            clause = _clause(condition)
            # The clause is left out, so the runs have to be matched afterwards.
            if clause is None:
                exact = False
                continue
            text, values = clause
            clauses.append(
                f"id IN (SELECT header FROM leaf WHERE part = ? AND path = ? AND {text} "
                "UNION ALL SELECT header FROM leaf WHERE part = ? AND path = '')"
            )
            parameters.extend([name, condition.path, *values, name])
    # Runs that are not indexed as a whole would be counted without having been matched.
    if queries and exact:
        exact = not _has_overflow(connection, "leaf", "part = ? AND path = ?", [name, OVERFLOW])
    return exact


def _has_overflow(
    connection: sqlite3.Connection, table: str, where: str, parameters: list[Any]
) -> bool:
    row = connection.execute(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1", parameters).fetchone()
    return row is not None


_SIGNS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def _clause(condition: Condition) -> tuple[str, list[Any]] | None:
    """Return SQL on column ``value`` for a condition, with parameters; None if not possible."""
    operand = condition.operand
    if condition.operator in ("$eq", "$in"):
        wanted = operand if condition.operator == "$in" else [operand]
        values = [_stored(value) for value in wanted]
        # What is not indexed cannot be looked up.
        if any(value is None for value in values):
            return None
        if len(values) <= MOST_PARAMETERS:
            return f"value IN ({','.join('?' * len(values))})", values
        # SQLite limits the parameters of a statement, and may round numbers in JSON.
        if not all(map(_is_exact_in_json, values)):
            return None
        return "value IN (SELECT value FROM json_each(?))", [json.dumps(values)]
    value = _stored(operand)
    if value is None:
        return None
    sign = _SIGNS[condition.operator]
    if isinstance(value, str):  # only among texts ("s…"), or only among booleans ("b…")
        return f"value {sign} ? AND value >= ? AND value < ?", [value, value[0], _next(value[0])]
    return f"value {sign} ? AND value < ''", [value]  # numbers sort before all text


def _is_exact_in_json(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and "\0" not in value)


def _next(letter: str) -> str:
    return chr(ord(letter) + 1)
