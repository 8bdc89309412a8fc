"""Insertion of starts, stops and descriptors into a MongoDB store, each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.errors import WriteError

from ..already_stored import is_repeated
from .bson_documents import check_size, from_bson, is_packed, sparse_bson, to_bson
from .database import Database
from .server_errors import REFUSED


def insert_single(
    database: Database, name: str, collection: str, doc: Mapping[str, Any], same: Mapping[str, Any]
) -> None:
    """Insert a validated start, stop or descriptor unless the same one is stored.

    Parameters
    ----------
    database
        Databases of the store.
    name, doc
        Name and content of the document.
    collection
        Name of the collection.
    same
        Filter for documents that the new one must equal.

    Raises
    ------
    BadDocument
        If MongoDB cannot hold the document, not even packed.
    DuplicateUID
        If a different document is found by ``same``.
    """
    label = f"{name} {doc['uid']!r}"
    encoded = check_size(to_bson(doc), label)
    # Searches of the plain form must know that there are documents which it does not show.
    is_searched = name in ("start", "stop")
    with database.errors(label):
        if is_searched and is_packed(encoded):
            database.note_packed()
        try:
            there = database.insert_once(collection, encoded, same)
        except WriteError as error:
            # The server refuses the plain form, such as one that is nested too deeply.
            if error.code not in REFUSED:
                raise
            if is_searched:
                database.note_packed()
            sparse = check_size(sparse_bson(doc), label)
            there = database.insert_once(collection, sparse, same)
    is_repeated(name, doc, None if there is None else from_bson(there))
