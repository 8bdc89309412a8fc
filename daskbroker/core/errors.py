"""What can go wrong, by name.

Every error daskbroker raises on purpose is a :class:`DaskbrokerError`. Each is also the
built-in error that a user of databroker expects at that place (``KeyError`` for an unknown
run, ``IndexError`` for an offset too far back, ``ValueError`` for a bad document), so code
written for databroker goes on working.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .printable import printable


class DaskbrokerError(Exception):
    """Base of all errors that daskbroker raises on purpose."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes included. Names of documents may
        # be in it.
        return printable(Exception.__str__(self))


class BadDocument(DaskbrokerError, ValueError):
    """A document that cannot be taken in; the message names document and field."""


class DuplicateUID(BadDocument):
    """A different document is already stored under this uid."""


class UnknownReference(BadDocument, LookupError):
    """A document refers to another (run, descriptor, resource) that is not stored."""


class BadRecording(DaskbrokerError, ValueError):
    """A file of recorded documents that is truncated, damaged or of no known shape."""


class BadQuery(DaskbrokerError, ValueError):
    """A query that is malformed, uses an operator outside the whitelist, or takes too long."""


class RunNotFound(DaskbrokerError, KeyError):
    """No run of this uid, uid prefix or scan_id."""


class AmbiguousUID(DaskbrokerError, ValueError):
    """A uid prefix that several runs share; the message names them."""


class OffsetOutOfRange(DaskbrokerError, IndexError):
    """``db[-n]`` with fewer than ``n`` runs."""


class SourceNotFound(DaskbrokerError, KeyError):
    """The broker has no event source of this name."""


class StreamNotFound(DaskbrokerError, KeyError):
    """The run has no stream of this name."""


class FieldNotFound(DaskbrokerError, KeyError):
    """No data key, column or metadata matches a requested field."""


class StoreError(DaskbrokerError):
    """The store could not be read or written."""


class StoreNotFound(StoreError, FileNotFoundError):
    """Nothing is stored at this place."""


class StoreExists(StoreError, FileExistsError):
    """Something is there already, where a new store was to be made."""


class StoreReadOnly(StoreError, PermissionError):
    """The store can be read but not written."""


class StoreFull(StoreError, OSError):
    """No space left where the store lives; nothing of the refused document was kept."""


class StoreUnavailable(StoreError, ConnectionError):
    """The server of the store does not answer. What was stored before is safe; try again."""


class StoreDamaged(StoreError):
    """A file or document of the store is missing, damaged or not what it should be."""


class StoreVersion(StoreError):
    """The store was written in a format newer than this daskbroker knows."""


class ClaimWarning(DaskbrokerError, UserWarning):
    """A detector file holds other cells than its descriptor declares, or cannot be seen."""


class BadRunWarning(DaskbrokerError, UserWarning):
    """A run is left out of a list, a search or a table, as a document of it cannot be read.

    The message names the run (or, where it has no uid, where the store has it), the document and
    the field. :attr:`daskbroker.Results.bad` keeps what was left out; ``db[uid]`` of such a run
    raises :class:`StoreDamaged`. It is a warning; as an error where warnings are turned into such.
    """


class SearchWarning(DaskbrokerError, UserWarning):
    """A search that may mean something else: it found nothing, or a word of it is a key, too."""


class ExportWarning(DaskbrokerError, UserWarning):
    """Something of a run is not in a file that was exported, as the format cannot hold it."""


class FilledValuesWarning(DaskbrokerError, UserWarning):
    """Values are stored in an event whose ``filled`` names the reference that they came from.

    An event that a broker filled is stored with its reference again, if nobody changed it and the
    reference is stored too. Of a plain dict nobody can tell whether its values are still those of
    the file, so they are stored as given. One warning a run.
    """


class CopyMismatch(DaskbrokerError):
    """What a copied run holds is not what the original gave; says of which kind of document."""


class FillError(DaskbrokerError, RuntimeError):
    """External data could not be filled; names run, stream, key, spec and path."""


class FrameMissing(FillError):
    """A frame is not on disk: its file is not there, or ends before it.

    ``missing="nan"``, ``missing="drop"`` and ``fill_value=`` go on without it.
    """


class HandlerNotFound(FillError, KeyError):
    """No handler is known for a spec."""


class HandlerExists(DaskbrokerError, ValueError):
    """Another handler is registered for this spec already."""


class BadField(FieldNotFound, BadQuery):
    """A field that is no data key, and no regular expression that can be used."""


class ConfigError(DaskbrokerError, ValueError):
    """A broker configuration that is missing or makes no sense."""


def file_error(error: OSError, where: str) -> StoreError:
    """What stands for an error of the file system; ``where`` names what could not be written.

    An error that names no file gets the path by :func:`naming`.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(
            f"no space left for {where}; nothing of this document was kept, what was stored before "
            f"is safe: {error}"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreReadOnly(f"{where} cannot be written: {error}")
    return StoreError(f"{where}: {error}")


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give an error of the file system this path, where it has none: calls with a handle do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def this_worker() -> Any | None:
    """The Dask worker whose task this is, if it is one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:  # nobody has imported it, so there is no worker
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def seen_from() -> str:
    """For messages about files: which worker looked; nothing outside of a task."""
    worker = this_worker()
    if worker is None:
        return ""
    return f" (as seen from worker {worker.address} on host {socket.gethostname()})"
