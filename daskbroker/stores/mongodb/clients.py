"""Clients of a store's databases: what their uris must name, which there are, how they are closed.

pymongo's clients belong to one process: a forked child neither uses nor closes those of its parent.
An interrupt may leave a lock of their pools held, so they are set aside then.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import pymongo
from pymongo.errors import ConfigurationError, InvalidURI

from ...core.errors import ConfigError, closed_error
from ...core.forking import in_each_process, leave_to_parent
from ...core.redaction import label_of
from .acknowledgement import client_options

SESSION_LEVELS = (None, "local", "majority")
"""Read concerns that MongoDB has for causally consistent sessions."""


class Clients:
    """The clients of a store in this process, each made when it is first needed.

    Parameters
    ----------
    label
        Address of the store without its password, for messages.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._clients: dict[str, pymongo.MongoClient[dict[str, Any]]] = {}
        # By their ids, as all clients of one server are equal.
        self._left: weakref.WeakValueDictionary[int, pymongo.MongoClient[dict[str, Any]]]
        self._left = weakref.WeakValueDictionary()
        in_each_process(self._begin)
        self.closed = False
        weakref.finalize(self, _close_all, self._clients, self._left)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        # In a forked child the parent's pymongo clients must be neither used nor closed.
        leave_to_parent([*self._clients.values(), *self._left.values()])
        self._clients.clear()
        self._left.clear()

    def __len__(self) -> int:
        return len(self._clients)

    def client(self, uri: str) -> pymongo.MongoClient[dict[str, Any]]:
        """Return the client of a uri.

        Raises
        ------
        StoreError
            If the store has been closed.
        ConfigError
            If the uri is not valid.
        """
        if self.closed:
            raise closed_error(f"the store at {self._label}")
        with self._lock:
            if uri not in self._clients:
                options: dict[str, Any] = {"appname": "daskbroker", "tz_aware": True}
                options |= client_options(uri)
                try:
                    client = pymongo.MongoClient(uri, **options)
                except (InvalidURI, ConfigurationError, ValueError) as error:
                    raise ConfigError(f"{label_of(uri)}: {error}") from None
                level = client.read_concern.level
                if level not in SESSION_LEVELS:
                    client.close()
                    raise ConfigError(
                        f"{label_of(uri)}: MongoDB has no readConcernLevel={level} in sessions, "
                        "which daskbroker needs; leave it out: plans are made from what a majority "
                        "has"
                    )
                self._clients[uri] = client
            return self._clients[uri]

    def leave(self) -> None:
        """Set the clients aside, so that new ones are made.

        Needed after an interrupt, which may leave a lock of pymongo's pool held for ever. Other
        threads may still be using these clients, so they are not closed. Once nobody uses one any
        more, its threads end with it: a session with many interrupts does not collect them.
        """
        with self._lock:
            while self._clients:
                client = self._clients.popitem()[1]
                self._left[id(client)] = client

    def close(self) -> None:
        """Close the clients. Any later use raises StoreError."""
        with self._lock:
            self.closed = True
            _close_all(self._clients, self._left)


def _close_all(
    clients: dict[str, pymongo.MongoClient[dict[str, Any]]],
    left: weakref.WeakValueDictionary[int, pymongo.MongoClient[dict[str, Any]]],
) -> None:
    """Close clients, and those that were set aside after an interrupt in a thread of their own."""
    while clients:
        clients.popitem()[1].close()
    if left:  # closing these may wait for ever if an interrupt has left a lock held
        threading.Thread(target=_close_left, args=(list(left.values()),), daemon=True).start()


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
