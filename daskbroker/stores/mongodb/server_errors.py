"""Errors of pymongo as errors of daskbroker, which name the store and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from ...core.errors import BadDocument, StoreError, StoreReadOnly, StoreUnavailable
from ...core.printable import without_middle
from .acknowledgement import is_unavailable

NO_PERMISSION = (13, 18)
"""Error codes of MongoDB for missing permissions and failed authentication."""
DUPLICATE_KEY = 11000
"""Error code of MongoDB for a violation of a unique index."""
NOT_OF_VIEWS = 166
"""Error code of MongoDB for a command on a view that only collections have."""
INDEX_NOT_FOUND = 27
"""Error code of MongoDB for an index to drop that is not there."""
REFUSED = (2, 9, 15, 10334, 17261, 17262, 17280)
"""Error codes of MongoDB for a document that it cannot hold."""

_is_inserting = ContextVar("daskbroker-mongodb-inserting", default=False)


@contextmanager
def inserting() -> Iterator[None]:
    """Return a context of an insert, whose errors say what has become of the document."""
    token = _is_inserting.set(True)
    try:
        yield
    finally:
        _is_inserting.reset(token)


def store_error(label: str, what: str, error: PyMongoError) -> Exception:
    """Return the error of daskbroker for one of pymongo.

    Parameters
    ----------
    label
        Name of the store, for the message.
    what
        Name of the document at hand; "" if there is none.
    error
        Error of pymongo.

    Returns
    -------
    StoreUnavailable, StoreReadOnly, BadDocument or StoreError
        If the server does not answer in time, refuses access, cannot hold the document at hand, or
        fails otherwise.
    """
    about = f" ({what})" if what else ""
    if is_unavailable(error):
        then = (
            "what was stored before is safe. A document that was being inserted may or may not be "
            "stored; inserting it again, when the server is back, is safe"
            if _is_inserting.get()
            else "what is stored is safe. Try again when the server is back"
        )
        return StoreUnavailable(
            f"{label} does not answer{about}, or not in time; {then} ({_short(error)})"
        )
    code = _code(error)
    if code in NO_PERMISSION:
        return StoreReadOnly(
            f"{label}: the server refuses access{about}; check user, password and roles "
            f"({_short(error)})"
        )
    if what and code in REFUSED:
        return BadDocument(f"{what}: MongoDB cannot hold it: {_short(error)}")
    return StoreError(f"{label}{about}: {_short(error)}")


def _code(error: PyMongoError) -> int | None:
    """Return the server's number of an error; None if it is not from the server."""
    if not isinstance(error, OperationFailure):
        return None
    failed = _failed_write(error)
    return int(failed["code"]) if failed else error.code


def _failed_write(error: PyMongoError) -> Mapping[str, Any]:
    """Return the server's answer to the first write of a bulk that failed, else an empty one.

    Code and text of the error of a bulk say only that some of its writes failed.
    """
    found = error.details.get("writeErrors") if isinstance(error, BulkWriteError) else ()
    return found[0] if found else {}


def _short(error: PyMongoError) -> str:
    text = (
        str(_failed_write(error).get("errmsg") or error)
        .split(", Timeout:")[0]
        .split(", full error:")[0]
    )
    return without_middle(text, 280)
