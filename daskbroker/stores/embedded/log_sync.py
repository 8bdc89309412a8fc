"""Syncing SQLite's write-ahead log: at once if durability was promised, else at intervals.

With ``synchronous=NORMAL``, SQLite syncs its log only before a checkpoint. All commits lie in one
file, the log, in order, so syncing that file makes all earlier commits durable, by whichever
thread or process they were made. It is synced here, outside of any transaction and lock:

- by the thread that must keep a promise (for a stop document). Threads that wait at the same time
  share one sync; processes that wait share the disk's work in the kernel.
- otherwise by a thread of the store, which exists while something is not synced.

The log is the only file that is opened beside SQLite. Closing any handle of the database itself,
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
from _thread import start_new_thread
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from ...core.durable_files import sync_folder
from ...core.errors import StoreError
from ...core.forking import in_each_process
from ...core.interrupts import interruptible

BEGIN_AFTER = 0.8
"""Fraction of an interval after which a sync begins, so that it ends within the interval."""

MOST_INTERVALS = 10
"""Number of intervals without a completed sync after which inserts wait for one."""

PATIENCE_SECONDS = 60.0
"""Maximum seconds that an insert waits for a sync."""

COPIED_BYTES = 2**20
"""Bytes of the log that are written again at a time."""
MARK = "daskbroker.unsynced"
"""Name of a file beside the log, which is there while it is not known to be on disk wholly."""

fdatasync = getattr(os, "fdatasync", os.fsync)
logger = logging.getLogger(__name__)
_logs: weakref.WeakSet[LogSync] = weakref.WeakSet()


class LogSync:
    """The log of one store in this process, and how much of it is on disk.

    After a failed sync, it is not known which bytes are on disk: the system reports the error once
    and may drop the bytes, so the next sync would succeed without them. The log is therefore
    written again in place, byte by byte, before anything is added. If the process dies before
    that, a mark beside the log makes the next writing process do it.

    Parameters
    ----------
    path
        Path of the log.
    interval
        Seconds after which an insert is durable; if 0, it is once the insert has returned.
    """

    def __init__(self, path: Path, interval: float) -> None:
        self._path = path
        self._mark = path.with_name(MARK)
        self.interval = interval
        in_each_process(self._begin)
        _logs.add(self)

    def _begin(self) -> None:
        # Locks are taken by `with self._lock`, not by the Condition: an interrupt may leave a
        # Condition locked, but not a lock.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._turn = threading.RLock()  # of the thread that syncs
        self._own = threading.local()
        self._end = threading.Event()
        self._written = 0
        self._synced = -1  # below 0, as the log's earlier content may not be on disk
        self._since: float | None = None
        self._thread: object | None = None  # stands for the thread that syncs in the background
        self._running: object | None = None  # the same, once that thread has begun
        self._trouble: StoreError | None = None
        self._told = False
        self._is_named = False
        self._handle = -1  # it is closed before a fork, with the connections
        for handle in getattr(self, "_opened", []):  # in a child: the parent was syncing with it
            os.close(handle)
        self._opened: list[int] = []

    # -- with the writing connection ---------------------------------------------------------

    def open(self) -> None:
        """Open a handle of the log before the first commit.

        The system reports to a handle the errors that occurred since it was opened. The caller
        has a connection, so that the log exists, and stays.
        """
        # It is kept open: after a fork or a close it is opened again.
        if self._handle < 0:
            self._is_named = False
            with suppress(FileNotFoundError):
                self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            # A sync failed in another process, perhaps one that has ended since.
            if self._mark.exists():
                self._trouble, self._told = self._trouble or self._error("before"), True

    def close(self) -> None:
        """Close the handle of the log."""
        with self._lock:
            handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    __del__ = close

    @property
    def is_in_trouble(self) -> bool:
        """Whether a sync has failed and the log has not been written again since."""
        return self._trouble is not None

    # -- inserting ---------------------------------------------------------------------------

    def wait_if_behind(self) -> None:
        """Wait, before a transaction, if syncing has not kept up with writing.

        Raises
        ------
        StoreError
            If no sync is completed within :data:`PATIENCE_SECONDS`.
        """
        oldest = self._since
        # Everything is on disk, or every insert syncs by itself.
        if oldest is None or not self.interval:
            return
        if time.monotonic() - oldest < MOST_INTERVALS * self.interval:
            return
        # It has died, or could not begin for lack of memory.
        if self._running is None or self._running is not self._thread:
            self.sync()
            return
        with self._lock:
            ticket = self._synced + 1
            if not self._changed.wait_for(
                lambda: self._synced >= ticket or self._trouble is not None, PATIENCE_SECONDS
            ):
                raise StoreError(
                    f"the log {self._path} has not been synced for {PATIENCE_SECONDS:.0f} s: "
                    "check the disk. Nothing of this document was stored"
                )

    def check(self, connection: sqlite3.Connection) -> None:
        """Check, before a transaction of the writing connection, that no sync has failed.

        A failure is raised once; the next call writes the log again.

        Raises
        ------
        StoreError
            If a sync has failed and no caller was told, or the log cannot be written again.
        """
        # The usual case, before each transaction.
        if self._trouble is None:
            return
        # The error is raised once; the insert after it writes the log again.
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
        """Note a commit, which is to be synced; return its number for :meth:`sync`."""
        self._written += 1
        # A sync resets `_since` before it reads `_written` again, so a commit that it misses finds
        # None.
        if self._since is None:
            self._arm()
        return self._written

    def promise(self, number: int) -> None:
        """Return once a commit is durable; within :meth:`once`, return at once."""
        # Within a batch only the last promise counts, as a sync covers all before it.
        if getattr(self._own, "depth", 0):
            self._own.number = number
        else:
            self.sync(number)

    @interruptible
    def once(self) -> Generator[None, None, None]:
        """Return a context at whose end all promises of this thread in it are kept by one sync."""
        own = self._own
        own.depth = getattr(own, "depth", 0) + 1
        sound = False
        try:
            yield
            sound = True
        finally:
            own.depth -= 1
            number = getattr(own, "number", None)
            # The outermost of nested batches syncs, if anything was promised.
            if own.depth == 0 and number is not None:
                own.number = None
                try:
                    self.sync(number)
                except StoreError:
                    if sound:
                        raise
                    self._told = False  # the block has its own error; the next insert tells

    # -- syncing -----------------------------------------------------------------------------

    def sync(self, number: int | None = None) -> None:
        """Return once a commit, or every commit if None, is on disk.

        Raises
        ------
        StoreError
            If the log cannot be synced.
        """
        wanted = self._written if number is None else number
        with self._turn:
            # It is less if the sync of another thread has not covered this commit.
            while self._synced < wanted:
                if self._trouble is not None:
                    self._told = True
                    raise self._trouble
                self._sync_now()

    def sync_all(self) -> None:
        """Sync the log if this process has written commits that are not on disk."""
        if self._written > max(0, self._synced):
            self.sync()

    def end(self) -> None:
        """End the syncing thread, as nothing more will be written."""
        self._end.set()

    def _sync_now(self) -> None:
        """Sync all commits so far; the caller holds the turn to sync."""
        begun, reached = time.monotonic(), self._written
        trouble: StoreError | None = None
        try:
            self._bring_to_disk()
        except (OSError, MemoryError) as error:
            trouble = self._error(str(error) or type(error).__name__)
            trouble.__cause__ = error
            # The mark tells other processes; without it at least this one knows.
            with suppress(OSError):
                self._mark.touch()
        with self._lock:
            self._since = None
            if trouble is None:
                self._synced = max(self._synced, reached)
            else:
                self._trouble, self._told = trouble, False
            # Commits that came during the sync are not counted.
            if self._written != reached:
                self._since = begun
            self._changed.notify_all()

    def _bring_to_disk(self) -> None:
        # A duplicate stays the log, even if the handle is closed and its number given to another
        # file meanwhile. It is opened and noted by one call, closed and forgotten by another, as
        # an interrupt in between would leave it open.
        try:
            with self._lock:
                if self._handle >= 0:
                    self._opened.extend(map(os.dup, [self._handle]))
                else:
                    try:
                        flags = os.O_RDONLY | os.O_CLOEXEC
                        self._opened.extend(map(os.open, [self._path], [flags]))
                    except FileNotFoundError:
                        return  # SQLite has copied the log into the database and removed it
            fdatasync(self._opened[-1])
            # A new log's name must be on disk, too, which takes one sync of the folder.
            if not self._is_named:
                with suppress(FileNotFoundError):  # the store has been removed
                    sync_folder(self._path.parent)
                self._is_named = True
        finally:
            while self._opened:
                list(map(os.close, map(self._opened.pop, [-1])))

    def _write_again(self) -> None:
        """Write the bytes of the log again in place, so that the sync covers all of them.

        Raises
        ------
        StoreError
            If they cannot be written or synced.
        """
        try:
            with self._path.open("rb+", buffering=0) as log:
                position = 0
                while piece := os.pread(log.fileno(), COPIED_BYTES, position):
                    position += os.pwrite(log.fileno(), piece, position)
                fdatasync(log.fileno())
            sync_folder(self._path.parent)
            self._mark.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(str(error)) from error
        with self._lock:
            self._trouble = None
            self._synced = self._written
            self._since = None
        logger.warning(
            "the log %s, which could not be synced before, was written again and is synced now",
            self._path,
        )

    def _error(self, reason: str) -> StoreError:
        return StoreError(
            f"the log {self._path} could not be synced ({reason}): documents inserted since the "
            "last sync may be lost if the power fails. Insert them again: that is safe, and the "
            "log is written again first"
        )

    # -- the thread --------------------------------------------------------------------------

    def _arm(self) -> None:
        with self._lock:
            # The thread comes first: an interrupt in between lets the next commit arm again.
            if self._thread is None and self.interval:
                thread = object()
                # A Thread would wait until it has begun: for ever, if an interrupt or a lack of
                # memory comes at that moment.
                try:
                    start_new_thread(self._run, (thread,))
                    self._thread = thread
                except RuntimeError:  # too many threads, or the interpreter is shutting down
                    pass
            self._since = self._since or time.monotonic()
            if self._thread is not None or not self.interval:
                return
        self.sync()  # no thread could be started, so this one syncs

    def _run(self, thread: object) -> None:
        """Sync commits that no other thread syncs; end after an interval without any."""
        self._running = thread
        try:
            while self._wait_for_commits(thread):
                with self._turn:
                    # Otherwise another thread has synced, and commits are younger.
                    if self._is_due():
                        self._sync_now()
        except BaseException:
            # The next insert that is behind syncs by itself, and the one after it begins another.
            self._running = self._thread = None
            raise

    def _wait_for_commits(self, thread: object) -> bool:
        """Wait until a sync is due; return False if the thread is to end."""
        since = self._since
        delay = BEGIN_AFTER * self.interval
        wait = delay if since is None else max(0.0, since + delay - time.monotonic())
        ended = self._end.wait(wait)
        with self._lock:
            # An interrupt came before it was noted, so another one is there.
            if self._thread is not thread:
                return False
            idle = since is None and self._since is None
            # A failed sync is not repeated: the next insert writes the log again first.
            if ended or idle or self._trouble is not None:
                self._thread = None
        return self._thread is thread

    def _is_due(self) -> bool:
        since = self._since
        return since is not None and since + BEGIN_AFTER * self.interval <= time.monotonic()


def _at_exit() -> None:
    for log in list(_logs):
        try:
            log.sync_all()
        # An exception at exit would be printed without saying that data may be lost.
        except StoreError as error:
            logger.error("%s", error)


atexit.register(_at_exit)
