"""Insertion of several documents by one command, of which the server may refuse some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from .server_errors import DUPLICATE_KEY, REFUSED

Row = Mapping[str, Any]


def insert_in_order(
    collection: Collection[dict[str, Any]],
    rows: Sequence[Row],
    encoded: Sequence[RawBSONDocument],
    not_stored: Callable[[Sequence[Row]], Sequence[Row]],
    insert_one: Callable[[Row, RawBSONDocument], None],
) -> None:
    """Insert documents in their order, except those that another process has stored meanwhile.

    Usually this is one command. The server stops at the first document that it refuses, and has
    stored those before it.

    Parameters
    ----------
    collection
        Collection to insert into.
    rows, encoded
        The documents, as given and as BSON.
    not_stored
        Function that returns those of some rows that are not stored, by one query.
    insert_one
        Function that inserts a row which the server may refuse in its plain form.

    Raises
    ------
    BulkWriteError
        If the server fails for another reason than a refused document.
    """
    rest = list(zip(rows, encoded, strict=True))
    while len(rest) > 1:
        try:
            collection.insert_many([one for _, one in rest])
            return
        except BulkWriteError as error:
            failed = error.details["writeErrors"]
            codes = {one["code"] for one in failed}
            # Other errors, and doubts about the majority, are the caller's.
            if error.details["writeConcernErrors"] or not codes <= {DUPLICATE_KEY, *REFUSED}:
                raise
        rest = rest[failed[0]["index"] :]
        # What the server cannot hold plain is seldom alone, so a command for all would not help.
        if DUPLICATE_KEY not in codes:
            break
        new = set(map(id, not_stored([row for row, _ in rest])))
        # It is refused, and not there: to insert it alone tells why.
        if id(rest[0][0]) in new:
            break
        rest = [(row, one) for row, one in rest if id(row) in new]
    for row, one in rest:
        insert_one(row, one)
