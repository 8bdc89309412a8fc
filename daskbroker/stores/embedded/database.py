"""The SQLite file of an embedded store: connections, transactions, format, errors.

One :class:`Database` serves a store in this process, shared by its sources and readers. It has one
connection that writes, and a few that read. SQLite's write-ahead log lets these read while this
or another process writes. Committed transactions survive the death of the process at any moment;
:mod:`.log_sync` makes them survive a loss of power.
"""

from __future__ import annotations

import atexit
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...core.chunks import place_identity
from ...core.durable_files import DurableFolders, make_folder, sync_folder
from ...core.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    file_error,
    seen_from,
)
from ...core.forking import Origin, ProcessLock, in_each_process
from ...core.formats import check_format
from ...core.interrupts import interruptible
from ...core.settings import setting
from .fork_gate import gate
from .format import APPLICATION_ID, FORMAT_VERSION, create_tables
from .log_sync import LogSync
from .open_files import close_below
from .opened_folder import OpenedFolder

__all__ = ["FILE_NAME", "Database"]

FILE_NAME = "daskbroker.sqlite"
CHUNK_FOLDER = "chunks"
LOG_ENDS = ("-wal", "-shm")
"""Suffixes of the files of SQLite's write-ahead log."""
BUSY_SECONDS = 60.0
"""Maximum seconds to wait for another process that writes."""
IDLE_READERS = 8
"""Maximum number of reading connections that are kept while not in use."""
PAGE_BYTES = 2048
"""Size in bytes of the database's pages in new stores.

A commit logs whole pages, and each document is a commit. A short run of 13 documents logs 304 KB
with SQLite's default of 4096, 179 KB with 2048, and 117 KB with 1024. Inserting pages of 1,000
events takes 15 % longer with 1024, and equally long with the other two."""
LOG_BYTES = 16 * 2**20
"""Size in bytes of the log at which SQLite copies it into the database."""


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
        self._readers: list[sqlite3.Connection] = []
        self._connections: set[sqlite3.Connection] = set()
        # A broker that nobody closes leaves no open connections to the interpreter.
        weakref.finalize(self, _close_all, self._connections, Origin()).atexit = False
        self._errors = _Errors(self)
        self.folders = DurableFolders(root)
        self.log = LogSync(self._log, setting("sync-interval"))
        in_each_process(self._begin)
        gate.add(self)
        self.small_bytes = 0
        """Bytes of small chunks that this process has put into SQLite since it opened the file."""
        self._closed = False
        self._frozen: tuple[int, ...] | None = None
        with self.errors():
            there = self.path.exists()
        if not there:
            if read_only or not create:
                raise StoreNotFound(f"there is no daskbroker store at {root}{seen_from()}")
            with self.errors():
                make_folder(root)
        with gate.passed(), self.errors():
            self._check_or_create()
        log = tuple(FILE_NAME + end for end in LOG_ENDS)
        with self.errors():
            self._opened_folder = OpenedFolder(link or str(root), (FILE_NAME, CHUNK_FOLDER), log)
            inode = self.path.stat().st_ino
        self.store_id = self.meta("store_id")
        self.identity = place_identity(self.store_id, str(root), str(inode))
        """Identity of the store at this place; that of a copy or of a replacement differs."""

    def _begin(self) -> None:
        self._lock = threading.RLock()  # connections are closed before a fork
        self._begun = 0

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
        with _open_lock.held():
            found = _open.get((str(root), read_only, link))
            if found is None or not found._is_usable:
                found = cls(root, create=create, read_only=read_only, link=link)
                _open[str(root), read_only, link] = found
            return found

    @classmethod
    def reading(cls, root: str, *, read_only: bool) -> Database:
        """Return the database of an existing folder, by whichever link it is open here."""
        with _open_lock.held():
            usable = (one for one in _at(root, read_only=read_only) if one._is_usable)
            return next(usable, None) or cls.of(Path(root), create=False, read_only=read_only)

    @staticmethod
    def is_other(root: str, *, read_only: bool, identity: str) -> bool:
        """Return whether this process knows that another store is at a place by now."""
        with _open_lock.held():
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

    def _check_or_create(self) -> None:
        connection = self._connect(write=not self.read_only, sure=False)
        try:
            with _transaction(connection, "BEGIN"):
                made = self._is_made(connection)
            if not self.read_only:
                _log_ahead(connection)
            if made:
                return
            if self.read_only:
                raise StoreNotFound(f"the store at {self.root} is empty")
            self._sync_names()
            with _transaction(connection, "BEGIN IMMEDIATE"):
                if not self._is_made(connection):  # another process may have been first
                    create_tables(connection)
        finally:
            self._connections.discard(connection)
            connection.close()

    def _sync_names(self) -> None:
        """Sync the names of the file and of the folder, before the store counts as made.

        This is done even if another process has made them, as it may have died before it synced.
        """
        sync_folder(self.root)
        with suppress(PermissionError):  # a folder made by others, which we may not read
            sync_folder(self.root.parent)

    def _is_made(self, connection: sqlite3.Connection) -> bool:
        """Return whether the file has daskbroker's tables; called within one transaction.

        Raises
        ------
        StoreDamaged
            If its tables are not daskbroker's.
        StoreVersion
            If their format is newer than the known one.
        """
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and owner != APPLICATION_ID:
            raise StoreDamaged(f"{self.path} is an SQLite file, but not one of daskbroker")
        if tables:
            check_format(f"the store at {self.root}", version, FORMAT_VERSION)
        return bool(tables)

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
        try:
            if write and sure:
                _log_ahead(connection)
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
        return self.path.with_name(FILE_NAME + "-wal")

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
        entered = gate.enter()
        try:
            with self.errors():
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
                    # The connection of an interrupted statement would show its state for ever.
                    self._disconnect(connection)
                    raise
                if len(self._readers) < IDLE_READERS and not self._closed:
                    self._readers.append(connection)
                else:
                    self._disconnect(connection)
        finally:
            if entered:
                gate.leave()

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
        entered = gate.enter()
        try:
            with self._lock, self.errors():
                self._check_open()
                if self._writer is None:
                    self._opened_folder.check()
                    self._writer = self._connect(write=True)
                    self.log.open()
                connection = self._writer
                begun = self._begun = self._begun + 1
                if connection.in_transaction:  # left by a block that was interrupted at its end
                    connection.execute("ROLLBACK")
                self.log.check(connection)
                # The same as _transaction, whose context would take a twentieth of an insert.
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    self._opened_folder.check()
                    yield connection
                    connection.execute("COMMIT")
                except BaseException as error:
                    # After an interrupt, a later block may have begun its own transaction.
                    if connection.in_transaction and self._begun == begun:
                        connection.execute("ROLLBACK")
                    name = getattr(error, "sqlite_errorname", "")
                    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                        # If opening the file to write fails once, SQLite opens it to read only,
                        # so a new connection is needed.
                        self._drop_writer()
                    raise
                number = self.log.note()
        finally:
            if entered:
                gate.leave()
        if durable or not self.log.interval:
            self.log.promise(number)  # outside the lock, so that other threads can write

    def _drop_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._disconnect(writer)
        self.log.close()

    def check_writable(self) -> None:
        """Raise StoreReadOnly if the store was opened to read only."""
        if self.read_only:
            raise StoreReadOnly(f"the store at {self.root} was opened to read only")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store at {self.root} has been closed")

    def errors(self) -> AbstractContextManager[None]:
        """Return a context that turns errors of SQLite and the file system into daskbroker's."""
        return self._errors

    def _told(self, error: BaseException) -> StoreError | None:
        """Return the StoreError for an error of SQLite or the file system; None for any other."""
        if isinstance(error, sqlite3.Error):
            return self._translated(error)
        if isinstance(error, StoreError) or not isinstance(error, OSError):
            return None
        return file_error(error, f"the store at {self.root}")

    def _full(self) -> StoreFull:
        return StoreFull(
            f"no space left for the store at {self.root}; nothing of this document was kept, "
            "what was stored before is safe"
        )

    def _translated(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "") or ""
        text = str(error)
        if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and self._no_room()):
            return self._full()
        if name.startswith("SQLITE_CANTOPEN") and self.read_only and self._log.exists():
            return StoreReadOnly(
                f"the store at {self.root} was not closed by its last writer, and this user may "
                f"not write there: it must be opened once by a user who may: {text}"
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_PERM")) or (
            name.startswith("SQLITE_CANTOPEN") and not os.access(self.root, os.W_OK)
        ):
            return StoreReadOnly(
                f"the store at {self.root} cannot be written; mode='r' opens it to read: {text}"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "decode to UTF-8" in text:
            return StoreDamaged(f"{self.path} is damaged or no SQLite file: {text}")
        if name.startswith("SQLITE_BUSY"):
            return StoreError(
                f"the store at {self.root} was locked by another process for "
                f"{BUSY_SECONDS:.0f} s; try again: {text}"
            )
        return StoreError(f"the store at {self.root}: {self.path}: {text} ({name})")

    def _no_room(self) -> bool:
        try:
            state = os.statvfs(self.root)
        except OSError:
            return False
        if state.f_bavail * state.f_frsize < 1 << 16:
            return True
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return limit != resource.RLIM_INFINITY

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
                    with gate.passed(), self._lock:
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
        with gate.passed(), self._lock, self.errors():
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


class _Errors:
    """Context of :meth:`Database.errors`; as a generator it would take a tenth of a look-up."""

    def __init__(self, database: Database) -> None:
        self._database = weakref.ref(database)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        database = self._database() if error is not None else None
        if database is not None and error is not None:
            told = database._told(error)
            if told is not None:
                raise told from error


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        connection.execute(begin)
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Set up write-ahead logging, which lets others read while this connection writes.

    The mode is kept in the file itself; the other settings are the connection's.
    """
    _keep_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA wal_autocheckpoint={LOG_BYTES // page_bytes}")


def _keep_log(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log.

    The first time, this changes the file. SQLite's own timeout does not apply to that while
    others open the file, so it is retried here for :data:`BUSY_SECONDS`.
    """
    patience = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
        time.sleep(random.uniform(0.001, 0.02))
