"""Clients of a store's databases: what their uris must name, and how they are closed."""

from __future__ import annotations

import threading
from typing import Any

import pymongo

from ...core.errors import ConfigError
from ...core.redaction import label_of

__all__ = ["check_names_database", "close_all"]


def close_all(
    clients: dict[str, pymongo.MongoClient[dict[str, Any]]],
    left: list[pymongo.MongoClient[dict[str, Any]]],
) -> None:
    """Close clients, and those that were set aside after an interrupt in a thread of their own."""
    while clients:
        clients.popitem()[1].close()
    if left:  # closing these may wait for ever if an interrupt has left a lock held
        threading.Thread(target=_close_left, args=(left,), daemon=True).start()


def _close_left(left: list[pymongo.MongoClient[dict[str, Any]]]) -> None:
    while left:
        left.pop().close()


def check_names_database(uri: str) -> None:
    """Check that a uri is one of MongoDB and names a database.

    Raises
    ------
    ConfigError
        If it does not.
    """
    scheme, _, rest = uri.partition("://")
    name = rest.rpartition("@")[2].partition("/")[2].partition("?")[0]
    if scheme not in ("mongodb", "mongodb+srv") or not name:
        raise ConfigError(f"{label_of(uri)} names no database; give mongodb://host/database")
