"""The index of an embedded store over start and stop documents.

Table ``leaf`` has one row for each scalar that a query can reach (through arrays, as in MongoDB),
table ``word`` one for each word. They narrow a search to the runs that may match. Text is stored
with the prefix ``s``, booleans as ``b0`` and ``b1``, so that types never mix.

A document has some twenty values and words, which change as many pages of the database. Documents
therefore wait until there are some, which are indexed in one transaction. A run whose document
waits is marked, and always looked at. So is a run of which something is left out (very long
texts, very many values).
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...core.documents import is_unicode, unpack_document
from ...core.errors import StoreDamaged
from ...core.full_text import document_words
from ...core.query import Condition, Query
from ...core.search import Search

__all__ = ["Narrowed", "index_later", "narrow"]

LONGEST_TEXT = 200
"""Maximum length of a text or word that is indexed, in characters."""
MOST_LEAVES = 2000
"""Maximum number of scalars indexed of a document."""
MOST_WORDS = 5000
"""Maximum number of words indexed of a document."""
MOST_PARAMETERS = 500
"""Maximum number of values of a condition that are parameters of their own."""
MOST_WAITING = 64
"""Maximum number of start documents, and of stop documents, that wait to be indexed."""
MOST_LOOKED_AT = 256
"""Maximum number of marked runs that are looked at before a search, so that the clause is exact."""
MARK = ""
"""Path, or word, that marks a run of which not everything is indexed."""
LEFT_OUT, WAITING = 0, 1
"""Values of the path :data:`MARK`: something of the document is left out, or it waits."""

_MARKED_LEAF = "SELECT header FROM leaf WHERE part = ? AND path = ''"
_MARKED_WORD = "SELECT header FROM word WHERE word = ''"
_ADD_LEAF = "INSERT OR IGNORE INTO leaf VALUES (?, ?, ?, ?)"
_ADD_WORD = "INSERT OR IGNORE INTO word VALUES (?, ?)"


def index_later(connection: sqlite3.Connection, name: str, number: int) -> None:
    """Mark a stored start or stop document as one to be indexed, or index all that wait.

    Parameters
    ----------
    connection
        Connection in a transaction.
    name
        ``"start"`` or ``"stop"``.
    number
        Key of the header in the store.
    """
    connection.execute(_ADD_LEAF, (name, MARK, WAITING, number))
    # Words have marks of their own, as a search for words may have no condition on a path.
    connection.execute(_ADD_WORD, (MARK, number))
    count = f"SELECT count(*) FROM ({_MARKED_LEAF} AND value = ?)"
    if connection.execute(count, (name, WAITING)).fetchone()[0] >= MOST_WAITING:
        _index_waiting(connection)


def _index_waiting(connection: sqlite3.Connection) -> None:
    """Index the start and stop documents of all runs of which one waits."""
    waiting = f"{_MARKED_LEAF} AND value = {WAITING}"
    rows = connection.execute(
        f"SELECT id, start, stop FROM header WHERE id IN ({waiting} UNION {waiting})",
        ("start", "stop"),
    ).fetchall()
    connection.execute(f"DELETE FROM leaf WHERE path = '' AND value = {WAITING} AND part = 'start'")
    connection.execute(f"DELETE FROM leaf WHERE path = '' AND value = {WAITING} AND part = 'stop'")
    connection.executemany(
        "DELETE FROM word WHERE word = '' AND header = ?", [(number,) for number, *_ in rows]
    )
    leaves: list[tuple[str, str, Any, int]] = []
    words: list[tuple[str, int]] = []
    for number, *bodies in rows:
        for name, body in zip(("start", "stop"), bodies, strict=True):
            if body is not None:
                some_leaves, some_words = _indexed(body)
                leaves += [(name, path, value, number) for path, value in some_leaves]
                words += [(word, number) for word in some_words]
    connection.executemany(_ADD_LEAF, leaves)
    connection.executemany(_ADD_WORD, words)


def _indexed(body: bytes) -> tuple[set[tuple[str, Any]], set[str]]:
    """Return the leaves and words of a document, with marks where something is left out."""
    try:
        doc = unpack_document(body)
    except StoreDamaged:  # as long as it is, each search finds it and names it
        return {(MARK, LEFT_OUT)}, {MARK}
    leaves: set[tuple[str, Any]] = set()
    whole = True
    for path, value in _leaves(doc, ""):
        stored = _stored(value) if path else None
        if stored is None or len(leaves) >= MOST_LEAVES:
            whole = False
        else:
            leaves.add((path, stored))
    if not whole:
        leaves.add((MARK, LEFT_OUT))
    found = document_words(doc)
    words = {word for word in found if len(word) <= LONGEST_TEXT}
    if len(words) != len(found) or len(words) > MOST_WORDS:
        words = {*sorted(words)[:MOST_WORDS], MARK}
    return leaves, words


def _leaves(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, value)`` of each scalar that a query reaches; MARK for an empty key."""
    if not isinstance(value, dict):
        if value is not None:
            yield path, value
        return
    for key, item in value.items():
        if "." in key:  # no query reaches it: a dot in a query always leads into a mapping
            continue
        if not key:
            yield MARK, None
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
        exact = _add_queries(part, queries, clauses, parameters) and exact
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
        for word in text.words:
            clauses.append("id IN (SELECT header FROM word WHERE word IN (?, ''))")
            parameters.append(word)
    narrowed = Narrowed(" AND ".join(clauses) or "1", parameters, exact)
    return _without_marked(connection, search, narrowed) if exact else narrowed


def _add_queries(
    name: str, queries: tuple[Query, ...], clauses: list[str], parameters: list[Any]
) -> bool:
    """Add clauses; return whether they find what matches, and marked runs, and nothing else."""
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
                f"UNION ALL {_MARKED_LEAF})"
            )
            parameters.extend([name, condition.path, *values, name])
    return exact


def _without_marked(connection: sqlite3.Connection, search: Search, narrowed: Narrowed) -> Narrowed:
    """Leave marked runs that do not match out of a clause, if there are few."""
    parts = [part for part, asked in (("start", search.queries), ("stop", search.stop)) if asked]
    queries = [_MARKED_LEAF] * len(parts) + [_MARKED_WORD] * bool(search.texts)
    if not queries:  # the index is not used
        return narrowed
    marked = " UNION ".join(queries)
    rows = connection.execute(
        f"SELECT id, start, stop FROM header WHERE id IN ({marked}) LIMIT ?",
        [*parts, MOST_LOOKED_AT + 1],
    ).fetchall()
    if not rows:
        return narrowed
    if len(rows) > MOST_LOOKED_AT:
        return replace(narrowed, exact=False)
    matching = [number for number, *bodies in rows if _may_match(search, *bodies)]
    # Runs that are marked later are not found, as nobody has looked at them.
    clause = f"(id IN (SELECT value FROM json_each(?)) OR id NOT IN ({marked}))"
    return Narrowed(
        f"{narrowed.where} AND {clause}",
        [*narrowed.parameters, json.dumps(matching), *parts],
        exact=True,
    )


def _may_match(search: Search, start: bytes, stop: bytes | None) -> bool:
    """Return whether a run matches; True if it is damaged, as it is named where it is read."""
    try:
        return search.matches(
            unpack_document(start), None if stop is None else unpack_document(stop)
        )
    except StoreDamaged:
        return True


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
