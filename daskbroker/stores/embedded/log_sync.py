"""Bringing SQLite's write-ahead log to disk: at once where that was promised, else by and by.

SQLite with ``synchronous=NORMAL`` syncs its log before a checkpoint only. Whatever is committed
lies in one file, the log, in order: to sync that file makes all that was committed before durable,
by whichever thread or process. So it is synced here, outside of any transaction and lock:

- by whoever has promised it (a stop document). Threads that wait at the same time share one sync;
  processes that do share the disk's work in the kernel.
- else by a thread, of which a store has one while something is not synced, and none while idle.

The log is the only file that is opened beside SQLite. To close any handle of the database itself,
or of its ``-shm`` file, would drop the locks that SQLite has on it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...core.durable_files import sync_folder
from ...core.errors import StoreError
from ...core.forking import in_each_process

__all__ = ["LogSync"]

BEGIN_AFTER = 0.8
"""The part of an interval after which a sync begins, so that it ends within the interval."""

MOST_INTERVALS = 10
"""Inserts wait where something has not been synced for so long."""

PATIENCE_SECONDS = 60.0
"""So long they wait at most."""

PIECE = 2**20
MARK = "daskbroker.unsynced"
"""A file beside the log, while nobody knows whether all bytes of the log are on disk."""

fdatasync = getattr(os, "fdatasync", os.fsync)
logger = logging.getLogger(__name__)
_logs: weakref.WeakSet[LogSync] = weakref.WeakSet()


class LogSync:
    """The log of one store in this process, and how much of it is on disk.

    After a sync that failed, nobody knows which bytes are on disk: the system has told it once
    and may have given them up, so the next sync would succeed without them. The log is then
    written again in place, byte by byte, before anything is added; if the process dies before
    that, the next one to write does it, as a mark beside the log tells.

    Parameters
    ----------
    path
        Of the log.
    interval
        Seconds after which an insert is durable; 0: when it has returned.
    """

    def __init__(self, path: Path, interval: float) -> None:
        self._path = path
        self._mark = path.with_name(MARK)
        self.interval = interval
        in_each_process(self._begin)
        _logs.add(self)

    def _begin(self) -> None:
        # Held by `with self._lock`, which no interrupt leaves locked, as it may a Condition.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._own = threading.local()
        self._end = threading.Event()
        self._written = 0
        self._synced = -1  # whether what lies in the log from before is on disk is not known
        self._since: float | None = None
        self._syncing_since: float | None = None
        self._syncing = 0  # the thread that does
        self._thread: threading.Thread | None = None
        self._trouble: StoreError | None = None
        self._told = False
        self._is_named = False
        self._handle = -1  # it is closed before a fork, with the connections
        duplicate, self._duplicate = getattr(self, "_duplicate", -1), -1
        if duplicate >= 0:  # a thread of the parent syncs by it
            os.close(duplicate)

    # -- with the writing connection ---------------------------------------------------------

    def open(self) -> None:
        """Have a handle of the log before the first commit: the system tells it of errors since.

        The caller has a connection, so that the log is there, and stays.
        """
        if self._handle < 0:
            self._is_named = False
            with suppress(FileNotFoundError):
                self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            if self._mark.exists():
                self._trouble, self._told = self._trouble or self._error("before"), True

    def close(self) -> None:
        """Let go of the log."""
        with self._lock:
            handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    __del__ = close

    @property
    def is_in_trouble(self) -> bool:
        """Whether a sync has failed, and the log was not written again since."""
        return self._trouble is not None

    # -- inserting ---------------------------------------------------------------------------

    def wait_if_behind(self) -> None:
        """Before a transaction: wait if syncing has not kept up with writing.

        Raises
        ------
        StoreError
            If the disk does not answer.
        """
        oldest = self._syncing_since or self._since
        if oldest is None or not self.interval:
            return
        if time.monotonic() - oldest < MOST_INTERVALS * self.interval:
            return
        with self._lock:
            ticket = self._synced + 1
            if not self._changed.wait_for(
                lambda: self._synced >= ticket or self._trouble is not None, PATIENCE_SECONDS
            ):
                raise StoreError(
                    f"the log {self._path} has not been synced for {PATIENCE_SECONDS:.0f} s: does "
                    "the disk answer? Nothing of this document was stored"
                )

    def check(self, connection: sqlite3.Connection) -> None:
        """Before a transaction of the connection that writes: what was synced is on disk.

        Raises
        ------
        StoreError
            If a sync has failed since the last call.
        """
        if self._trouble is None:
            return
        if not self._told:
            self._told = True
            raise self._trouble
        self.mend(connection)

    def mend(self, connection: sqlite3.Connection) -> None:
        """Write the log again if a sync of it has failed.

        Raises
        ------
        StoreError
            If that fails too.
        """
        if self._trouble is None:
            return
        connection.execute("BEGIN IMMEDIATE")  # nobody adds to the log meanwhile
        try:
            self._write_again()
        finally:
            connection.execute("ROLLBACK")

    def note(self) -> int:
        """After a commit: something is to be synced; its number, for :meth:`sync`."""
        self._written += 1
        if self._since is None:  # set before a sync looks at what is written
            self._arm()
        return self._written

    def promise(self, number: int) -> None:
        """Return when a commit is durable; in a block of :meth:`once`, that does at its end."""
        if getattr(self._own, "depth", 0):
            self._own.number = number
        else:
            self.sync(number)

    @contextmanager
    def once(self) -> Iterator[None]:
        """A block of this thread; what is promised in it is durable at its end, by one sync."""
        own = self._own
        own.depth = getattr(own, "depth", 0) + 1
        sound = False
        try:
            yield
            sound = True
        finally:
            own.depth -= 1
            number = getattr(own, "number", None)
            if own.depth == 0 and number is not None:
                own.number = None
                try:
                    self.sync(number)
                except StoreError:
                    if sound:
                        raise
                    self._told = (
                        False  # the block has an error of its own, so the next insert tells
                    )

    # -- syncing -----------------------------------------------------------------------------

    def sync(self, number: int | None = None) -> None:
        """Return when a commit, or all there are, is on disk.

        Raises
        ------
        StoreError
            If it cannot be told to be.
        """
        wanted = self._written if number is None else number
        while True:
            try:
                with self._lock:
                    self._changed.wait_for(lambda: not self._syncing)
                    if self._synced >= wanted:
                        return
                    if self._trouble is not None:
                        self._told = True
                        raise self._trouble
                    self._syncing = threading.get_ident()
                self._sync_now()
            finally:
                self._let_others()

    def sync_all(self) -> None:
        """Bring to disk what this process has written, if that is not done."""
        if self._written > max(0, self._synced):
            self.sync()

    def end(self) -> None:
        """Nothing more will be written."""
        self._end.set()

    def _sync_now(self) -> None:
        """Sync what has been committed so far; called by one thread at a time."""
        self._syncing_since, self._since = self._since, None
        reached = self._written
        trouble: StoreError | None = None
        try:
            self._bring_to_disk()
        except OSError as error:
            trouble = self._error(str(error))
            trouble.__cause__ = error
            with suppress(OSError):
                self._mark.touch()
        with self._lock:
            if trouble is None:
                self._synced = max(self._synced, reached)
            else:
                self._trouble, self._told = trouble, False
            self._syncing_since = None
        self._let_others()

    def _let_others(self) -> None:
        """Another thread may sync; after an interrupt (Ctrl-C) too, when nothing is sure."""
        if self._syncing != threading.get_ident():
            return
        with self._lock:
            self._since = self._since or self._syncing_since
            self._syncing, self._syncing_since = 0, None
            self._changed.notify_all()

    def _bring_to_disk(self) -> None:
        with self._lock:  # a handle that is closed and opened again meanwhile is another file
            if self._handle >= 0:
                self._duplicate = os.dup(self._handle)
            else:
                try:
                    self._duplicate = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    return  # SQLite has brought it into the database and removed it
        try:
            fdatasync(self._duplicate)
            if not self._is_named:
                with suppress(FileNotFoundError):  # the store has been removed
                    sync_folder(self._path.parent)
                self._is_named = True
        finally:
            handle, self._duplicate = self._duplicate, -1
            os.close(handle)

    def _write_again(self) -> None:
        """Write the bytes of the log once more, in place, so that the next sync means them all.

        Raises
        ------
        StoreError
            If they cannot be written or synced.
        """
        try:
            with self._path.open("rb+", buffering=0) as log:
                place = 0
                while piece := os.pread(log.fileno(), PIECE, place):
                    place += os.pwrite(log.fileno(), piece, place)
                fdatasync(log.fileno())
            sync_folder(self._path.parent)
            self._mark.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(str(error)) from error
        with self._lock:
            self._trouble = None
            self._synced = self._written
            self._since = None
        logger.warning("the log %s was written again and is synced now", self._path)

    def _error(self, reason: str) -> StoreError:
        return StoreError(
            f"the log {self._path} could not be synced ({reason}): what was inserted lately may "
            "not survive a loss of power. To insert again is safe, and writes the log again first"
        )

    # -- the thread --------------------------------------------------------------------------

    def _arm(self) -> None:
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
            if self._thread is not None or not self.interval:
                return
            self._thread = threading.Thread(target=self._run, name="daskbroker-sync", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # there are too many, or the program ends
                self._thread = None
            except BaseException:  # interrupted
                self._thread = self._since = None
                raise
        self.sync()

    def _run(self) -> None:
        """Sync what nobody else does, until for an interval there is nothing."""
        delay = BEGIN_AFTER * self.interval
        while True:
            since = self._since
            wait = delay if since is None else max(0.0, since + delay - time.monotonic())
            ended = self._end.wait(wait)
            with self._lock:
                idle = since is None and self._since is None
                if ended or idle or self._trouble is not None:
                    self._thread = None
                    return
                due = self._since is not None and self._since + delay <= time.monotonic()
                if not due or self._syncing:
                    continue
                self._syncing = threading.get_ident()
            self._sync_now()


def _at_exit() -> None:
    for log in list(_logs):
        try:
            log.sync_all()
        except StoreError as error:
            logger.error("%s", error)


atexit.register(_at_exit)
