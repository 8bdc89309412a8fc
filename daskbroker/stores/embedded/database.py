"""The SQLite file of an embedded store: connections, transactions, format, errors.

One :class:`Database` serves a store in this process, shared by its sources and readers.
There is one connection that writes, and a few that read. SQLite's write-ahead log lets them
read while it, or another process, writes. What is committed survives the death of the process at
any moment; :mod:`.log_sync` sees to it that it survives a loss of power.
"""

from __future__ import annotations

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
from ...core.forking import ProcessLock, in_each_process
from ...core.formats import check_format
from ...core.interrupts import interruptible
from ...core.settings import setting
from .fork_gate import gate
from .format import APPLICATION_ID, FORMAT_VERSION, create_tables
from .log_sync import LogSync
from .open_files import close_below
from .place import Place

__all__ = ["FILE_NAME", "Database", "plain_text"]

FILE_NAME = "daskbroker.sqlite"
CHUNK_FOLDER = "chunks"
LOG_ENDS = ("-wal", "-shm")
BUSY_SECONDS = 60.0
IDLE_READERS = 8
PAGE_BYTES = 2048
"""Size of the database's pages in new stores. A commit logs whole pages, and each document is a
commit: with SQLite's 4096 a short run of 13 documents logs 304 KB, with 2048 179 KB, with 1024
117 KB; but pages of 1,000 events take 15 % longer with 1024, and as long with the others."""
LOG_BYTES = 16 * 2**20
"""Size of the log at which it is copied into the database."""


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
        Make folder and file if there is none.
    read_only
        Never write; works where the folder cannot be written.
    link
        A path with symbolic links by which the folder was given: where it leads elsewhere later,
        the store counts as moved.

    Raises
    ------
    StoreNotFound, StoreVersion, StoreDamaged, StoreReadOnly, StoreFull
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
        self._connections: set[sqlite3.Connection] = set()
        self._readers: list[sqlite3.Connection] = []
        self._errors = _Errors(self)
        self.folders = DurableFolders(root)
        self.log = LogSync(self._log, setting("sync-interval"))
        in_each_process(self._begin)
        gate.add(self)
        self.small_bytes = 0
        """Size of the small chunks that were put into SQLite here since it was opened."""
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
            self._place = Place(link or str(root), (FILE_NAME, CHUNK_FOLDER), log)
            inode = self.path.stat().st_ino
        self.store_id = self.meta("store_id")
        self.identity = place_identity(self.store_id, str(root), str(inode))
        """Of what is at this place: of a copy, or of what replaces the folder, it is another."""

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
        """The database of this folder in this process; see the class for the parameters.

        One that was opened by a link is another than that of the folder itself, which stays where
        it is when the link is changed. In a process in which a link leads elsewhere already, as
        where a pickle is read, the folder is meant.
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
        """The database of a folder that exists, by whichever link this process has it open."""
        with _open_lock.held():
            usable = (one for one in _at(root, read_only) if one._is_usable)
            return next(usable, None) or cls.of(Path(root), create=False, read_only=read_only)

    @staticmethod
    def is_other(root: str, read_only: bool, identity: str) -> bool:
        """Whether this process knows that another store is at a place by now."""
        with _open_lock.held():
            known = _at(root, read_only)
        return any(one.identity != identity or not one.is_in_place for one in known)

    @property
    def _is_usable(self) -> bool:
        return not self._closed and self.is_in_place

    @property
    def is_in_place(self) -> bool:
        """Whether the files that were opened are still those at their paths."""
        try:
            self._place.check()
        except StoreError:
            return False
        return True

    def check_place(self) -> None:
        """Raise StoreError where the store was moved, deleted or replaced since it was opened."""
        self._place.check()

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
            connection.close()

    def _sync_names(self) -> None:
        """Before the store counts as made: its file and its folder keep their names.

        Also where another process has made them, as it may have died before it synced them.
        """
        sync_folder(self.root)
        with suppress(PermissionError):  # a folder that others made, and that we may not read
            sync_folder(self.root.parent)

    def _is_made(self, connection: sqlite3.Connection) -> bool:
        """Whether the file has our tables, in a format that we know; in one transaction."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and owner != APPLICATION_ID:
            raise StoreDamaged(f"{self.path} is an SQLite file, but not of daskbroker")
        if tables:
            check_format(f"the store at {self.root}", version, FORMAT_VERSION)
        return bool(tables)

    def meta(self, key: str) -> str:
        """A value of the table ``meta``."""
        with self.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise StoreDamaged(f"{self.path} lacks its {key}")
        return str(row[0])

    def stored_bytes(self) -> int:
        """Sum of the sizes of all files of the store; some may vanish meanwhile."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    # -- connections -------------------------------------------------------------------------

    def _connect(self, *, write: bool, sure: bool = True) -> sqlite3.Connection:
        """Open the file; nothing in it changes by this where it is not ``sure`` to be ours."""
        uri = self.path.absolute().as_uri()
        mode = "?mode=ro" if not write else "?mode=rw" if sure else "?mode=rwc"
        if self.read_only and not os.access(self.root, os.W_OK) and not self._log.exists():
            mode += "&immutable=1"  # SQLite wants to make its log otherwise
            self._frozen = self._file_state()
        connection = sqlite3.connect(
            uri + mode, uri=True, isolation_level=None, timeout=BUSY_SECONDS,
            check_same_thread=False, cached_statements=256,
        )  # fmt: skip
        try:
            if sure:
                self._connections.add(connection)
            if write and sure:
                _log_ahead(connection)
            elif write:  # heeded by a file that is still empty
                connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA cache_size=-32000")
        except BaseException:
            if sure:
                self._disconnect(connection)
            connection.close()
            raise
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        self._connections.discard(connection)
        connection.close()
        if not self._connections:
            self._place.forget_log()

    @property
    def _log(self) -> Path:
        return self.path.with_name(FILE_NAME + "-wal")

    def _file_state(self) -> tuple[int, ...]:
        state = self.path.stat()
        return state.st_ino, state.st_mtime_ns, state.st_size

    def _thaw(self) -> None:
        """Drop connections that take the file for immutable, if somebody has written to it."""
        if self._log.exists() or self._frozen != self._file_state():
            self._frozen = None
            while self._readers:
                self._disconnect(self._readers.pop())

    @interruptible
    def read(self) -> Generator[sqlite3.Connection, None, None]:
        """A connection to read with; what it sees changes with each statement."""
        entered = gate.enter()
        try:
            with self.errors():
                self._check_open()
                if self._frozen is not None:
                    self._thaw()
                self._place.check()
                try:
                    connection = self._readers.pop()
                except IndexError:
                    connection = self._new_reader()
                try:
                    yield connection
                except BaseException:
                    # A statement that was interrupted would show this state for ever.
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
            self._place.check()
        except BaseException:
            self._disconnect(connection)
            raise
        return connection

    @interruptible
    def snapshot(self) -> Generator[sqlite3.Connection, None, None]:
        """A connection whose statements all see the same state."""
        with self.read() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")

    @interruptible
    def write(self, *, durable: bool = False) -> Generator[sqlite3.Connection, None, None]:
        """A transaction: all of it is stored when the block ends, or nothing of it.

        It survives a loss of power then if it is to be ``durable`` or all inserts are
        (``daskbroker.sync-interval`` is 0), else an interval later.
        """
        self.check_writable()
        self.log.wait_if_behind()
        entered = gate.enter()
        try:
            with self._lock, self.errors():
                self._check_open()
                if self._writer is None:
                    self._place.check()
                    self._writer = self._connect(write=True)
                    self.log.open()
                connection = self._writer
                begun = self._begun = self._begun + 1
                if connection.in_transaction:  # of a block that was interrupted as it ended
                    connection.execute("ROLLBACK")
                self.log.check(connection)
                # As _transaction does it, whose context would cost a twentieth of an insert.
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    self._place.check()
                    yield connection
                    connection.execute("COMMIT")
                except BaseException as error:
                    if connection.in_transaction and self._begun == begun:
                        connection.execute("ROLLBACK")
                    name = getattr(error, "sqlite_errorname", "")
                    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                        # SQLite opens a file to read only where opening it to write fails once.
                        self._drop_writer()
                    raise
                number = self.log.note()
        finally:
            if entered:
                gate.leave()
        if durable or not self.log.interval:
            self.log.promise(number)  # while other threads write

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
        """Turn errors of SQLite and of the file system into daskbroker's."""
        return self._errors

    def _told(self, error: BaseException) -> StoreError | None:
        """What stands for an error of SQLite or of the file system; None for any other."""
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
                f"not write there: let somebody open it once who may: {text}"
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
                f"the store at {self.root} was kept busy by another process for "
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
        """Bring all to disk and close all connections; whoever still reads gets a StoreError."""
        try:
            try:
                self.bring_to_disk()
            except StoreError:
                self.bring_to_disk()  # writes the log again; afterwards nobody could
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
        """Return when all that was stored here survives a loss of power.

        Raises
        ------
        StoreError
            If it cannot be told to.
        """
        with gate.passed(), self._lock, self.errors():
            if self._writer is not None:
                self.log.mend(self._writer)
        self.log.sync_all()

    def disconnect(self) -> None:
        """Close all connections that are not in use; new ones are made when they are needed."""
        while self._readers:
            self._disconnect(self._readers.pop())
        self._drop_writer()


def _at(root: str, read_only: bool) -> list[Database]:
    """What is open of a folder, that which was opened by no link first."""
    found = [(key[2] or "", one) for key, one in _open.items() if key[:2] == (root, read_only)]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


class _Errors:
    """The context of :meth:`Database.errors`; a generator would take a tenth of a look-up."""

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
    """Let others read while this connection writes; the file itself remembers it."""
    _keep_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA wal_autocheckpoint={LOG_BYTES // page_bytes}")


def _keep_log(connection: sqlite3.Connection) -> None:
    """Use a write-ahead log.

    The first time that changes the file, for which SQLite does not wait while others open it.
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


def plain_text(uid: str) -> str:
    """A uid as SQLite can hold it: lone surrogates are spelled out."""
    return uid.encode("utf8", "backslashreplace").decode()
