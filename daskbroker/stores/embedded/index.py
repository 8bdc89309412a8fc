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
from dataclasses import dataclass
from typing import Any

from ...core.documents import is_unicode, unpack_document
from ...core.errors import StoreDamaged
from ...core.full_text import document_words
from ...core.query import Condition
from ...core.search import Search
from .format import STOPPED

LONGEST_TEXT = 200
"""Maximum length of a text or word that is indexed, in characters."""
MOST_LEAVES = 2000
"""Maximum number of scalars indexed of a document."""
MOST_WORDS = 5000
"""Maximum number of words indexed of a document."""
MOST_PARAMETERS = 500
"""Maximum number of values of a condition that are parameters of their own."""
MOST_WAITING = 32
"""Maximum number of start documents, and of stop documents, that wait to be indexed."""
MOST_LOOKED_AT = 256
"""Maximum number of marked runs that are looked at before a search, so that the clause is exact."""
MOST_BYTES_LOOKED_AT = 4 * 2**20
"""Maximum bytes of their start documents."""
MARK = ""
"""Path, or word, that marks a run of which not everything is indexed."""
LEFT_OUT, WAITING = 0, 1
"""Values of the path :data:`MARK`: something of the document is left out, or it waits."""

STOP = (
    f"coalesce(stop, (SELECT {STOPPED} FROM run "
    f"WHERE run.uid = header.uid AND stopped >= {STOPPED}))"
)
"""SQL for the stop of a row of ``header``, which is a number if the stop is lost."""

_WAITING = {
    part: f"SELECT header FROM leaf WHERE part = '{part}' AND path = '' AND value = {WAITING}"
    for part in ("start", "stop")
}
_MARKED = {
    **{part: f"SELECT header FROM leaf WHERE part = '{part}' AND path = ''" for part in _WAITING},
    "word": " UNION ALL ".join(["SELECT header FROM word WHERE word = ''", *_WAITING.values()]),
}
"""Queries for the runs to look at in searches by start, by stop and by words."""


def index_later(connection: sqlite3.Connection, name: str, number: int) -> None:
    """Mark a stored start or stop document as one to be indexed; index all that wait if many do.

    Parameters
    ----------
    connection
        Connection in a transaction.
    name
        ``"start"`` or ``"stop"``.
    number
        Key of the header in the store.
    """
    _add_leaves(connection, [(name, MARK, WAITING, number)])
    count = f"SELECT count(*) FROM ({_WAITING[name]})"
    if connection.execute(count).fetchone()[0] >= MOST_WAITING:
        _index_waiting(connection, name)


def _index_waiting(connection: sqlite3.Connection, name: str) -> None:
    """Index all start documents, or all stop documents, that wait."""
    waiting = _WAITING[name]
    rows = connection.execute(f"SELECT id, {name} FROM header WHERE id IN ({waiting})").fetchall()
    connection.execute(waiting.replace("SELECT header", "DELETE", 1))
    leaves: list[tuple[str, str, Any, int]] = []
    words: list[tuple[str, int]] = []
    for number, body in rows:
        some_leaves, some_words = _indexed(body)
        leaves += [(name, path, value, number) for path, value in some_leaves]
        words += [(word, number) for word in some_words]
    _add_leaves(connection, leaves)
    connection.executemany("INSERT OR IGNORE INTO word VALUES (?, ?)", words)


def _add_leaves(connection: sqlite3.Connection, leaves: list[tuple[str, str, Any, int]]) -> None:
    connection.executemany("INSERT OR IGNORE INTO leaf VALUES (?, ?, ?, ?)", leaves)


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
    for sign, end in ((">=", search.since), ("<=", search.until)):
        # The time has a column of its own.
        if end is not None:
            clauses.append(f"time {sign} ?")
            parameters.append(end)
    # Without conditions that the index can use, the run must have a stop all the same.
    if search.stop:
        clauses.append(f"{STOP} IS NOT NULL")
    if search.is_open:
        clauses.append(f"{STOP} IS NULL")
    lookups, exact = _lookups(search)
    looked_at = _look_at_marked(connection, lookups, search) if exact else None
    for lookup in lookups:
        # Runs that are marked later must not be found, as nobody has looked at them.
        if looked_at is not None:
            others, values = "SELECT value FROM json_each(?)", [looked_at]
        else:
            others, values = _MARKED[lookup.part], []
        clauses.append(f"id IN ({lookup.query} UNION ALL {others})")
        parameters += [*lookup.parameters, *values]
    return Narrowed(" AND ".join(clauses) or "1", parameters, exact=looked_at is not None)


@dataclass(frozen=True)
class _Lookup:
    """A query for the runs that the index has for one condition; ``part`` is a key of _MARKED."""

    part: str
    query: str
    parameters: list[Any]


def _lookups(search: Search) -> tuple[list[_Lookup], bool]:
    """Return the conditions that the index can look up, and whether these are all."""
    lookups: list[_Lookup] = []
    exact = True
    for part, queries in (("start", search.queries), ("stop", search.stop)):
        for query in queries:
            exact = exact and query.exact
            for condition in query.conditions:
                clause = _clause(condition)
                # The clause is left out, so the runs have to be matched afterwards.
                if clause is None:
                    exact = False
                    continue
                text, values = clause
                select = f"SELECT header FROM leaf WHERE part = ? AND path = ? AND {text}"
                lookups.append(_Lookup(part, select, [part, condition.path, *values]))
    for words in (wanted.words for wanted in search.texts):
        # A substring may be anywhere in a word, for which there is no index.
        exact = exact and words is not None
        select = "SELECT header FROM word WHERE word = ?"
        lookups += [_Lookup("word", select, [word]) for word in words or ()]
    return lookups, exact


def _look_at_marked(
    connection: sqlite3.Connection, lookups: list[_Lookup], search: Search
) -> str | None:
    """Return the keys of the marked runs that match, as JSON; None if too many are marked."""
    if not lookups:
        return "[]"
    marked = " UNION ALL ".join(_MARKED[part] for part in {lookup.part for lookup in lookups})
    count, size = connection.execute(
        "SELECT count(*), total(length(start)) FROM "
        f"(SELECT start FROM header WHERE id IN ({marked}) LIMIT {MOST_LOOKED_AT + 1})"
    ).fetchone()
    if count > MOST_LOOKED_AT or size > MOST_BYTES_LOOKED_AT:
        return None
    rows = connection.execute(f"SELECT id, start, {STOP} FROM header WHERE id IN ({marked})")
    return json.dumps([number for number, *bodies in rows if _may_match(search, *bodies)])


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
    if condition.path == MARK:  # its rows are marks
        return None
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
