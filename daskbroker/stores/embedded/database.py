"""The SQLite file of an embedded store: connections, transactions, format, errors.

One :class:`Database` serves a store in this process, shared by its sources and readers. It has one
connection that writes, and a few that read. SQLite's write-ahead log lets these read while this
or another process writes. Committed transactions survive the death of the process at any moment;
:mod:`.log_sync` makes them survive a loss of power.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

from ...core.chunks import place_identity
from ...core.durable_files import DurableFolders, make_folder
from ...core.errors import (
    StoreDamaged,
    StoreError,
    StoreNotFound,
    closed_error,
    read_only_error,
    seen_from,
)
from ...core.forking import Origin, ProcessLock, in_each_process
from ...core.interrupts import interruptible
from ...core.settings import setting
from .creation import PAGE_BYTES, check_or_create
from .fork_gate import gate
from .log_sync import LogSync
from .open_files import close_below
from .opened_folder import OpenedFolder
from .sqlite_errors import SqliteErrors
from .write_ahead import BUSY_SECONDS, LOG_ENDS, bound_log, log_ahead, log_of, rewind_log

FILE_NAME = "daskbroker.sqlite"
CHUNK_FOLDER = "chunks"
IDLE_READERS = 8
"""Maximum number of reading connections that are kept while not in use."""
TEXT = partial(str, encoding="utf8", errors="backslashreplace")
"""Decoder of text; a damaged one differs from what is expected, and is no error of the query."""

_open: weakref.WeakValueDictionary[tuple[str, bool, str | None], Database]
_open = weakref.WeakValueDictionary()
_open_lock = ProcessLock()


class Database:
    """The SQLite file of one store; use :meth:`of` to share one per process.

    Parameters
    ----------
    root
        Folder of the store.
    create
        Whether to make the folder and the file if there is none.
    read_only
        Whether to never write; this works even if the folder cannot be written.
    link
        Path with symbolic links by which the folder was given. If it leads elsewhere later, the
        store counts as moved.

    Raises
    ------
    StoreNotFound
        If there is no store, and none may be made.
    StoreVersion
        If a newer daskbroker has written the store.
    StoreDamaged
        If the file is damaged or not of daskbroker.
    StoreReadOnly, StoreFull
        If the store cannot be written, or there is no room.
    """

    def __init__(
        self,
        root: Path,
        *,
        create: bool = True,
        read_only: bool = False,
        link: str | None = None,
    ) -> None:
        self.root = root
        self.read_only = read_only
        self.path = root / FILE_NAME
        self._writer: sqlite3.Connection | None = None
        self._log_bytes = 0
        self._readers: list[sqlite3.Connection] = []
        self._connections: set[sqlite3.Connection] = set()
        # A broker that nobody closes leaves no open connections to the interpreter.
        weakref.finalize(self, _close_all, self._connections, Origin()).atexit = False
        self._errors = SqliteErrors(self.path, read_only=read_only)
        self.folders = DurableFolders(root)
        self.log = LogSync(self._log, setting("sync-interval"))
        in_each_process(self._begin)
        gate.add(self)
        self.small_bytes = 0
        """Bytes of small chunks that this process has put into SQLite since it opened the file."""
        self._closed = False
        self._frozen: tuple[int, ...] | None = None
        self._find_or_make(create=create and not read_only)
        log = tuple(FILE_NAME + end for end in LOG_ENDS)
        with self.errors():
            self._opened_folder = OpenedFolder(link or str(root), (FILE_NAME, CHUNK_FOLDER), log)
            inode = self.path.stat().st_ino
        self.store_id = self.meta("store_id")
        self.identity = place_identity(self.store_id, str(root), str(inode))
        """Identity of the store at this place; that of a copy or of a replacement differs."""

    def _find_or_make(self, *, create: bool) -> None:
        """Check the file and its format; make them if there are none, and they may be made."""
        with self.errors():
            there = self.path.exists()
        if not there:
            if not create:
                raise StoreNotFound(f"there is no daskbroker store at {self.root}{seen_from()}")
            with self.errors():
                make_folder(self.root)
        with gate.inside(), self.errors():
            connection = self._connect(write=not self.read_only, sure=False)
            try:
                check_or_create(connection, self.path, read_only=self.read_only)
            finally:
                self._connections.discard(connection)
                connection.close()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # connections are closed before a fork
        self.begun = 0
        """Number of transactions that have begun, with the one that is open."""
        self.rollbacks = 0
        """Number of transactions that have failed, or may have; counted before the next begins."""

    @classmethod
    def of(
        cls,
        root: Path,
        *,
        create: bool = True,
        read_only: bool = False,
        link: str | None = None,
    ) -> Database:
        """Return this process's database of a folder; see the class for the parameters.

        A database opened by a link is separate from that of the folder itself, because the folder
        stays in its place when the link is changed. If the link does not lead to the folder, as
        may happen when a pickle is read in another process, the link is ignored.
        """
        root = root.expanduser().resolve()
        if link is not None and os.path.realpath(link) != str(root):
            link = None
        with _open_lock.lock():
            found = _open.get((str(root), read_only, link))
            if found is None or not found._is_usable:
                found = cls(root, create=create, read_only=read_only, link=link)
                _open[str(root), read_only, link] = found
            return found

    @classmethod
    def reading(cls, root: str, *, read_only: bool) -> Database:
        """Return the database of an existing folder, by whichever link it is open here."""
        with _open_lock.lock():
            usable = (one for one in _at(root, read_only=read_only) if one._is_usable)
            return next(usable, None) or cls.of(Path(root), create=False, read_only=read_only)

    @staticmethod
    def is_other(root: str, *, read_only: bool, identity: str) -> bool:
        """Return whether this process knows that another store is at a place by now."""
        with _open_lock.lock():
            known = _at(root, read_only=read_only)
        return any(one.identity != identity or not one.is_in_place for one in known)

    @property
    def _is_usable(self) -> bool:
        return not self._closed and self.is_in_place

    @property
    def is_in_place(self) -> bool:
        """Whether the files that were opened are still those at their paths."""
        try:
            self._opened_folder.check()
        except StoreError:
            return False
        return True

    def check_in_place(self) -> None:
        """Raise StoreError if the store was moved, deleted or replaced since it was opened."""
        self._opened_folder.check()

    # -- format ------------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        """Return a value of the table ``meta``; raise StoreDamaged if it is missing."""
        with self.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise StoreDamaged(f"{self.path} lacks its {key}")
        return str(row[0])

    def stored_bytes(self) -> int:
        """Return the sum of the sizes of all files of the store in bytes."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):  # temporary files and the log come and go
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    # -- connections -------------------------------------------------------------------------

    def _connect(self, *, write: bool, sure: bool = True) -> sqlite3.Connection:
        """Open the file; do not change it unless it is ``sure`` to be daskbroker's."""
        uri = self.path.absolute().as_uri()
        mode = "?mode=ro" if not write else "?mode=rw" if sure else "?mode=rwc"
        if self.read_only and not os.access(self.root, os.W_OK) and not self._log.exists():
            # Else SQLite would make its log, which it cannot in such a folder.
            mode += "&immutable=1"
            self._frozen = self._file_state()
        connection = sqlite3.connect(
            uri + mode, uri=True, isolation_level=None, timeout=BUSY_SECONDS,
            check_same_thread=False, cached_statements=256,
        )  # fmt: skip
        connection.text_factory = TEXT
        try:
            if write and sure:
                log_ahead(connection)
                self._opened_folder.hold_log(connection)
            elif write:  # takes effect only while the file is still empty
                connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA cache_size=-32000")
        except BaseException:
            if sure:
                self._disconnect(connection)
            connection.close()
            raise
        self._connections.add(connection)
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        self._opened_folder.release_log(connection)
        self._connections.discard(connection)
        connection.close()

    @property
    def _log(self) -> Path:
        return log_of(self.path)

    def _file_state(self) -> tuple[int, ...]:
        state = self.path.stat()
        return state.st_ino, state.st_mtime_ns, state.st_size

    def _thaw(self) -> None:
        """Drop connections that assume an immutable file, if somebody has written to it."""
        if self._log.exists() or self._frozen != self._file_state():
            self._frozen = None
            while self._readers:
                self._disconnect(self._readers.pop())

    @interruptible
    def read(self) -> Generator[sqlite3.Connection, None, None]:
        """Give a connection to read with; each statement sees the state at its time."""
        with gate.inside(), self.errors():
            self._check_open()
            if self._frozen is not None:
                self._thaw()
            self._opened_folder.check()
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._new_reader()
            try:
                yield connection
            except BaseException:
                # The connection of an interrupted statement would show its state forever.
                self._disconnect(connection)
                raise
            if len(self._readers) < IDLE_READERS and not self._closed:
                self._readers.append(connection)
            else:
                self._disconnect(connection)

    def _new_reader(self) -> sqlite3.Connection:
        connection = self._connect(write=False)
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # opens the log
            self._opened_folder.hold_log(connection)
            self._opened_folder.check()
        except BaseException:
            self._disconnect(connection)
            raise
        return connection

    @interruptible
    def snapshot(self) -> Generator[sqlite3.Connection, None, None]:
        """Give a connection to read with, whose statements all see the same state."""
        with self.read() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")

    @interruptible
    def write(self, *, durable: bool = False) -> Generator[sqlite3.Connection, None, None]:
        """Give a connection in a transaction, which is stored wholly when the block ends or not.

        It then survives a loss of power if ``durable`` is true or ``daskbroker.sync-interval`` is
        0; otherwise it does so one interval later.
        """
        self.check_writable()
        self.log.wait_if_behind()
        with gate.inside(), self._lock, self.errors():
            self._check_open()
            connection = self._writer or self._new_writer()
            begun = self.begun = self.begun + 1
            if connection.in_transaction:  # left by a block that was interrupted at its end
                self.rollbacks += 1
                connection.execute("ROLLBACK")
            self.log.check(connection)
            # The same as _transaction, whose context would take a twentieth of an insert.
            try:
                connection.execute("BEGIN IMMEDIATE")
                self._opened_folder.check()
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                self.rollbacks += 1
                # After an interrupt, a later block may have begun its own transaction.
                if connection.in_transaction and self.begun == begun:
                    connection.execute("ROLLBACK")
                name = getattr(error, "sqlite_errorname", "")
                if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                    # If opening the file to write fails once, SQLite opens it to read only,
                    # so a new connection is needed.
                    self._drop_writer()
                raise
            number = self.log.note()
        if durable or not self.log.interval:
            self.log.promise(number)  # outside the lock, so that other threads can write

    def _new_writer(self) -> sqlite3.Connection:
        self._opened_folder.check()
        try:
            self._writer = self._connect(write=True)
            self._log_bytes = bound_log(self._writer, self.root)
            self.log.open()
        except BaseException:
            # Else the next insert would write without the handle, and without having looked
            # whether a sync has failed in another process.
            self._drop_writer()
            raise
        return self._writer

    def bound_log(self) -> None:
        """Keep the log short enough to be copied if others have filled the disk meanwhile."""
        with gate.inside(), self._lock, self.errors():
            if self._writer is not None:
                self._log_bytes = bound_log(self._writer, self.root, self._log_bytes)

    def make_room(self) -> bool:
        """Make room in the log after a StoreFull; return whether the insert may be repeated.

        Nothing is copied while a sync of the log has failed, as its bytes may not be those that
        are on disk.
        """
        with gate.inside(), self._lock:
            writer = self._writer
            if writer is None or writer.in_transaction or self.log.is_in_trouble:
                return False
            try:
                self._opened_folder.check()
                self._log_bytes = bound_log(writer, self.root, self._log_bytes)
                return rewind_log(writer)
            except (sqlite3.Error, StoreError):  # the caller raises its StoreFull
                return False

    def _drop_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._disconnect(writer)
        self.log.close()

    def check_writable(self) -> None:
        """Raise StoreReadOnly if the store was opened to read only."""
        if self.read_only:
            raise read_only_error(f"the store at {self.root}")

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error(f"the store at {self.root}")

    def errors(self) -> AbstractContextManager[None]:
        """Return a context that turns errors of SQLite and the file system into daskbroker's."""
        return self._errors

    def close(self) -> None:
        """Bring everything to disk and close all connections; later reads raise StoreError."""
        try:
            try:
                self.bring_to_disk()
            except StoreError:
                # The second attempt writes the log again, which is not possible after closing.
                self.bring_to_disk()
        finally:
            with self.errors():
                try:
                    self.log.end()
                finally:
                    with gate.inside(), self._lock:
                        self._closed = True
                        self.disconnect()
                    close_below(self.root)

    def bring_to_disk(self) -> None:
        """Return once everything that this process has stored survives a loss of power.

        Raises
        ------
        StoreError
            If the log cannot be synced.
        """
        with gate.inside(), self._lock, self.errors():
            if self._writer is not None:
                self.log.mend(self._writer)
        self.log.sync_all()

    def disconnect(self) -> None:
        """Close all connections that are not in use; new ones are made when needed."""
        while self._readers:
            self._disconnect(self._readers.pop())
        self._drop_writer()


def _close_all(connections: set[sqlite3.Connection], origin: Origin) -> None:
    if origin.is_here():  # in a forked child they are the parent's
        while connections:
            connections.pop().close()


@atexit.register
def _at_exit() -> None:
    """Close idle connections of brokers that are still open, once all is synced."""
    for database in list(_open.values()):
        with suppress(StoreError):  # it is logged by `log_sync`, which tries again
            database.log.sync_all()
        if database._lock.acquire(blocking=False):  # else a thread is writing
            try:
                database.disconnect()
            finally:
                database._lock.release()


def _at(root: str, *, read_only: bool) -> list[Database]:
    """Return the open databases of a folder, the one that was opened by no link first."""
    found = [(key[2] or "", one) for key, one in _open.items() if key[:2] == (root, read_only)]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]
