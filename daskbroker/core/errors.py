"""Errors and warnings of daskbroker.

Every error that daskbroker raises on purpose is a :class:`DaskbrokerError`. Each is also the
built-in error that a user of databroker expects in its place (``KeyError`` for an unknown
run, ``IndexError`` for an offset too far back, ``ValueError`` for a bad document), so code
written for databroker keeps working.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .printable import message_text


class DaskbrokerError(Exception):
    """Base of all errors that daskbroker raises on purpose."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes included. The text is escaped and
        # bounded, as it may hold names from documents.
        return message_text(Exception.__str__(self))


class BadDocument(DaskbrokerError, ValueError):
    """A document cannot be stored; the message names document and field."""


class DuplicateUID(BadDocument):
    """A different document is already stored under this uid."""


class UnknownReference(BadDocument, LookupError):
    """A document refers to another (run, descriptor, resource) that is not stored."""


class BadRecording(DaskbrokerError, ValueError):
    """A file of recorded documents is truncated, damaged or of no known form."""


class BadQuery(DaskbrokerError, ValueError):
    """A query is malformed, uses an operator outside the whitelist, or takes too long."""


class RunNotFound(DaskbrokerError, KeyError):
    """No run has this uid, uid prefix or scan_id."""


class AmbiguousUID(DaskbrokerError, ValueError):
    """Several runs share this uid prefix; the message names them."""


class OffsetOutOfRange(DaskbrokerError, IndexError):
    """``db[-n]`` requests a run, but there are fewer than ``n`` runs."""


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
    """The place of a new store is already in use."""


class StoreReadOnly(StoreError, PermissionError):
    """A store, spool, backup or export cannot be written, by this user or at all."""


class StoreFull(StoreError, OSError):
    """No room is left for a store, spool, backup or export; the message names which.

    Nothing of what was refused is kept, and what was there before is unchanged.
    """


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached now. What was stored before is safe; try again later.

    Its server does not answer, or this process has too many open files or too little memory.
    """


class StoreDamaged(StoreError):
    """A file or document of the store is missing, damaged or not valid."""


class StoreVersion(StoreError):
    """The store was written in a format newer than this daskbroker knows."""


class ClaimWarning(DaskbrokerError, UserWarning):
    """A detector file and the documents of its run do not agree, or the file cannot be read.

    The cells of the file have another shape or dtype than the descriptor declares, or the file has
    frames that belong to no event. The message names run, stream, key and path, and the setting or
    argument to change. Opening a table or Dataset gives one warning for each data key. What is
    noticed only when a file is read is told once in each process that reads it; distributed shows
    what a worker tells in every Client of its scheduler, so there may be one for each worker, and
    with workers that are threads of this process two.
    """


class BadRunWarning(DaskbrokerError, UserWarning):
    """A run is left out of a list, search or table, because one of its documents is unreadable.

    The message names the run (or, if it has no uid, its place in the store), the document and
    the field. :attr:`daskbroker.Results.bad` lists what was left out; ``db[uid]`` of such a run
    raises :class:`StoreDamaged`. The warning itself is raised only if warnings are turned into
    errors.
    """


class SearchWarning(DaskbrokerError, UserWarning):
    """A search may not mean what it says; the message proposes what to write instead.

    The search has found no run, and one of its keys or values may be the reason, or one of its
    reserved words is also a key of start documents. Each message is given once for each broker.
    """


class ExportWarning(DaskbrokerError, UserWarning):
    """Frames are left out of an exported file, because its format cannot link or describe them."""


class MissingTimeWarning(DaskbrokerError, UserWarning):
    """Rows of a table, or steps of a Dataset, that becomes a run have no time (NaT).

    Their events have the time of the start document. Such rows are made by ``reindex``, by joins,
    and of events whose times are outside the years 1 to 9999. There is one warning for each stream.
    """


class FilledValuesWarning(DaskbrokerError, UserWarning):
    """Values of detector files are stored in events, in place of references to the files.

    This concerns events whose ``filled`` names the references that the values were read from. An
    event that a broker has filled is stored with its references again, if it was not changed and
    the references are stored too. For a plain dict it cannot be known whether its values are still
    those of the file, so they are stored as given. There is one warning for each run.
    """


class CopyMismatch(DaskbrokerError):
    """A copied run differs from the original; the message names the kind of document."""


class FillError(DaskbrokerError, RuntimeError):
    """External data could not be filled; the message names run, stream, key, spec and path."""


class FrameMissing(FillError):
    """A frame is not on disk: its file does not exist, or ends before the frame.

    ``missing="nan"``, ``missing="drop"`` and ``fill_value=`` continue without it.
    """


class HandlerNotFound(FillError, KeyError):
    """No handler is known for a spec."""


class HandlerExists(DaskbrokerError, ValueError):
    """Another handler is already registered for this spec."""


class BadField(FieldNotFound, BadQuery):
    """A field is neither a data key nor a usable regular expression."""


class BadArgument(DaskbrokerError, TypeError, ValueError):
    """An argument has a type or value that the function does not take; the message names it."""


class ConfigError(DaskbrokerError, ValueError):
    """A broker configuration is missing or not valid."""


MAKE_ROOM = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "free some of this user's quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
}
"""What to do about each error of the file system that means that there is no room."""
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
FILE_AS_FOLDER = (errno.EEXIST, errno.ENOTDIR)
"""Errors of making a folder where a file is."""
TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
"""Errors of opening a file that say nothing about the file."""


def no_room(where: str, number: int = errno.ENOSPC) -> StoreFull:
    """Return the error for something that cannot be written, as there is no room for it.

    Parameters
    ----------
    where
        Name of what could not be written.
    number
        Key of :data:`MAKE_ROOM`.
    """
    return StoreFull(
        f"no space left for {where}: nothing of this was kept, and what was there before is "
        f"unchanged; {MAKE_ROOM[number]}, and try again"
    )


def file_error(error: OSError, where: str) -> StoreError:
    """Return daskbroker's error for an error of the file system.

    Parameters
    ----------
    error
        The error; if it names no file, see :func:`naming`.
    where
        Name of what could not be written, for the message.

    Returns
    -------
    StoreError
        A StoreFull or StoreReadOnly if the error means that, else a plain StoreError.
    """
    if error.errno in MAKE_ROOM:
        return StoreFull(f"{no_room(where, error.errno).args[0]}: {error}")
    if error.errno in FORBIDDEN:
        how = "the disk is mounted" if error.errno == errno.EROFS else "its permissions are set"
        return StoreReadOnly(f"{where} cannot be written; change how {how}: {error}")
    if error.errno == errno.EIO:
        return StoreError(f"{where} cannot be read or written; check the disk: {error}")
    if error.errno in FILE_AS_FOLDER:
        at = f", at or above {error.filename!r}" if error.filename else ""
        return StoreError(
            f"{where}: there is a file in place of a folder{at}; give the path of another folder"
        )
    return StoreError(f"{where}: {error}")


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error means that memory could not be allocated."""
    # Arrow gives no number for a file that cannot be mapped; other libraries quote the text.
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or (isinstance(error, OSError) and os.strerror(errno.ENOMEM) in str(error))
    )


def is_of_process(error: BaseException | None) -> bool:
    """Return whether an error means too little memory or too many open files, not a bad file.

    The errors that it was raised from are looked at, too.
    """
    while error is not None:
        if lacks_memory(error) or getattr(error, "errno", None) in TOO_MANY_FILES:
            return True
        error = error.__cause__
    return False


def process_error(error: BaseException, path: str | os.PathLike[str]) -> StoreUnavailable:
    """Return the error for a file that cannot be opened or read, if :func:`is_of_process`."""
    return StoreUnavailable(
        f"{path} cannot be read{seen_from()}: {error or type(error).__name__}; it is not "
        "damaged: this process has too little memory, or too many open files (ulimit -n)"
    )


def closed_error(what: str) -> StoreError:
    """Return the error for something that has been closed, such as ``"the store at /data"``."""
    return StoreError(f"{what} has been closed; open it again with daskbroker.connect")


def read_only_error(what: str) -> StoreReadOnly:
    """Return the error for something that was opened to read only."""
    return StoreReadOnly(f"{what} was opened to read only")


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a path to an OSError of the block that names no file, as calls with a handle do."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def this_worker() -> Any | None:
    """Return the Dask worker whose task calls this, or None outside of a task."""
    # Nobody has imported it, or another thread has only begun to: there is no worker.
    get_worker = getattr(sys.modules.get("distributed"), "get_worker", None)
    if get_worker is None:
        return None
    try:
        return get_worker()
    except ValueError:
        return None


def seen_from() -> str:
    """Return which worker looked for a file, for messages; empty text outside of a task."""
    worker = this_worker()
    if worker is None:
        return ""
    return f" (as seen from worker {worker.address} on host {socket.gethostname()})"
