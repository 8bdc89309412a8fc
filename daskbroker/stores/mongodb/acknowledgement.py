"""Write and read concerns, time limits of writes, and errors that mean "not now".

An insert returns once a majority of the members has the document in its log
(``w=majority, j=true``), so that no failover can lose it. A standalone server is a majority of
one. Options of the uri (``w``, ``journal``, ``wtimeoutMS``, ``timeoutMS``, …) and
``daskbroker.mongo-journaled`` take precedence over these defaults.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pymongo
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

WAIT_MILLISECONDS = 10_000
"""Default milliseconds to wait for a server, or for the confirmation of a write."""
LONGER = ("wtimeoutms", "sockettimeoutms")
"""Options of a uri, in lower case, that limit the time of a write."""
UNAVAILABLE = frozenset(
    {
        6, 7, 89, 9001,  # another member cannot be reached
        50, 262,  # out of time
        64,  # too few members have confirmed a write
        91, 189, 10058, 10107, 11600, 11602, 13435, 13436,  # no primary, or shutting down
        43, 133, 134, 202, 237,  # a cursor that died with its server; no member to read from
    }
)  # fmt: skip
"""Error codes of MongoDB that mean "not now"."""


def client_options(uri: str) -> dict[str, Any]:
    """Return the client's limits, in milliseconds, for finding a server that the uri lacks."""
    given = _options(uri)
    wanted = ("serverSelectionTimeoutMS", "connectTimeoutMS")
    return {name: WAIT_MILLISECONDS for name in wanted if name.lower() not in given}


def insert_seconds(uri: str) -> float:
    """Return the maximum seconds that an insert may take.

    This is ``timeoutMS`` if the uri has it. Otherwise it is the longest of the uri's limits for
    parts of an insert, or :data:`WAIT_MILLISECONDS`, and not less than the uri's limit for finding
    a server.
    """
    given = _options(uri)
    if "timeoutms" in given:
        return given["timeoutms"] / 1000
    parts = [given[name] for name in LONGER if name in given] or [WAIT_MILLISECONDS]
    return max(*parts, given.get("serverselectiontimeoutms", 0)) / 1000


def _options(uri: str) -> dict[str, int]:
    """Return the options of a uri that are whole numbers, by their names in lower case."""
    pairs = parse_qsl(uri.rpartition("@")[2].partition("?")[2].replace(";", "&"))
    return {name.lower(): int(value) for name, value in pairs if value.isdecimal()}


def write_concern(
    given: pymongo.WriteConcern, *, journaled: bool, sure: bool
) -> pymongo.WriteConcern:
    """Return the write concern of the uri, completed with daskbroker's defaults.

    Parameters
    ----------
    given
        Write concern of the client, from its uri. One that is not acknowledged is returned as it
        is.
    journaled
        Whether writes wait for the logs of the members.
    sure
        Whether writes wait for a majority. If False, they wait for the primary only, and not for
        its log.
    """
    if not given.acknowledged:
        return given
    ours: dict[str, Any] = {"w": "majority" if sure else 1, "j": journaled and sure}
    if sure:
        ours["wtimeout"] = WAIT_MILLISECONDS
    return pymongo.WriteConcern(**{**ours, **given.document})


def read_concern(given: ReadConcern, concern: pymongo.WriteConcern) -> ReadConcern:
    """Return the concern of reads that show only documents that no failover can lose.

    It is ``"majority"`` if writes wait for a majority and the uri gives no other level.
    """
    if given.level is None and concern.document.get("w") == "majority":
        return ReadConcern("majority")
    return given


def is_unavailable(error: PyMongoError) -> bool:
    """Return whether an error means that the servers do not answer now, or not in time."""
    if isinstance(error, ConnectionFailure) or error.timeout:
        return True
    if any(map(error.has_error_label, ("RetryableWriteError", "TransientTransactionError"))):
        return True
    if isinstance(error, BulkWriteError):
        found = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        return any(one.get("code") in UNAVAILABLE for one in found)
    return isinstance(error, OperationFailure) and error.code in UNAVAILABLE
