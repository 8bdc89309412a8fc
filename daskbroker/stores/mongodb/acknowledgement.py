"""When a write counts as done, how long one waits for that, and which errors say "not now".

An insert has returned when a majority of the members has the document in its log
(``w=majority, j=true``): no failover takes it away. A standalone server is a majority of one.
What the uri says (``w``, ``journal``, ``wtimeoutMS``, ``timeoutMS``, …) goes before these
defaults, as does ``daskbroker.mongo-journaled``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pymongo
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

__all__ = ["client_options", "insert_seconds", "is_unavailable", "read_concern", "write_concern"]

WAIT_MILLISECONDS = 10_000
LONGER = ("wtimeoutms", "sockettimeoutms")
"""Options of a uri for how long a write may take."""
UNAVAILABLE = frozenset(
    {
        6, 7, 89, 9001,  # another member cannot be reached
        50, 262,  # out of time
        64,  # too few members have confirmed a write
        91, 189, 10058, 10107, 11600, 11602, 13435, 13436,  # no primary, or shutting down
        43, 133, 134, 202, 237,  # a cursor that died with its server; no member to read from
    }
)  # fmt: skip
"""Codes of MongoDB that say "not now"."""


def client_options(uri: str) -> dict[str, Any]:
    """Options of a client that the uri does not give: how long it looks for a server."""
    given = _options(uri)
    wanted = ("serverSelectionTimeoutMS", "connectTimeoutMS")
    return {name: WAIT_MILLISECONDS for name in wanted if name.lower() not in given}


def insert_seconds(uri: str) -> float:
    """How long an insert may take in all: ``timeoutMS``, or what the uri gives for parts of it.

    Not less than the time that the uri gives for finding a server.
    """
    given = _options(uri)
    if "timeoutms" in given:
        return given["timeoutms"] / 1000
    parts = [given[name] for name in LONGER if name in given] or [WAIT_MILLISECONDS]
    return max(*parts, given.get("serverselectiontimeoutms", 0)) / 1000


def _options(uri: str) -> dict[str, int]:
    """Those options of a uri that are whole numbers, by their names in lower case."""
    pairs = parse_qsl(uri.rpartition("@")[2].partition("?")[2].replace(";", "&"))
    return {name.lower(): int(value) for name, value in pairs if value.isdecimal()}


def write_concern(
    given: pymongo.WriteConcern, *, journaled: bool, sure: bool
) -> pymongo.WriteConcern:
    """The uri's write concern, with ours for what it leaves open.

    Parameters
    ----------
    given
        As the client has it by its uri.
    journaled
        Whether the members' logs are waited for.
    sure
        False: the primary has it, nobody waits for more.
    """
    if not given.acknowledged:
        return given
    ours: dict[str, Any] = {"w": "majority" if sure else 1, "j": journaled and sure}
    if sure:
        ours["wtimeout"] = WAIT_MILLISECONDS
    return pymongo.WriteConcern(**{**ours, **given.document})


def read_concern(given: ReadConcern, concern: pymongo.WriteConcern) -> ReadConcern:
    """That of reads which show only what stays, where such is what writes wait for."""
    if given.level is None and concern.document.get("w") == "majority":
        return ReadConcern("majority")
    return given


def is_unavailable(error: PyMongoError) -> bool:
    """Whether an error says that the servers do not answer now, or not in time."""
    if isinstance(error, ConnectionFailure) or error.timeout:
        return True
    if any(map(error.has_error_label, ("RetryableWriteError", "TransientTransactionError"))):
        return True
    if isinstance(error, BulkWriteError):
        found = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        return any(one.get("code") in UNAVAILABLE for one in found)
    return isinstance(error, OperationFailure) and error.code in UNAVAILABLE
