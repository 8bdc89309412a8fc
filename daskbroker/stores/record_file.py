"""One append-only file of records, shared by processes, from which a small store can be made.

:class:`RecordFile` takes care of locks, incomplete records of writers that were killed, forked
children, a file that was moved or replaced, and a format number. The meaning of the records is up
to the derived class. It needs POSIX, and a file system with locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from ..core.chunks import ChunkReader, damage_of, from_ipc
from ..core.documents import pack, unpack
from ..core.errors import (
    DaskbrokerError,
    StoreError,
    StoreNotFound,
    file_error,
    read_only_error,
    seen_from,
)
from ..core.forking import in_each_process
from ..core.formats import check_format

FORMAT = 1
FRAME = struct.Struct("<II")
"""Lengths of note and body, which a record begins with; the note and the body follow."""

Span: TypeAlias = tuple[int, int]
"""Offset and length of a body in the file."""


class RecordFile(ABC):
    """An append-only file of records. Threads, processes and forked children may share it.

    A record has a note, which is a mapping that says what it is, and a body of any bytes. Each
    process takes in the records one by one, also those of other processes; see :meth:`take`. The
    first record holds the number of the format and the id of the store.

    Parameters
    ----------
    path
        Path of the file.
    create
        Whether to make the file, and its folder, if there is none.
    read_only
        Whether to refuse to write.

    Attributes
    ----------
    path
        Path of the file, as text.
    inode
        Inode of the file that was opened; another file under the same path has other records.
    id
        Id of the store, a random text.

    Raises
    ------
    StoreNotFound
        If there is no such file.
    StoreVersion
        If a newer daskbroker has written the file.
    StoreError
        If the file was moved or replaced since it was opened, or the system fails; every method
        may raise it.
    """

    def __init__(self, path: Path, *, create: bool, read_only: bool) -> None:
        self.path, self._read_only = str(path), read_only
        if create and not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            open(path, "ab").close()
        if not path.exists():
            raise StoreNotFound(f"{path} does not exist")
        self.inode = path.stat().st_ino
        in_each_process(self._begin)
        if not read_only:
            with self.writing():
                if self._end == 0:
                    self.append({"is": "log", "format": FORMAT, "id": uuid.uuid4().hex})
        self._follow()

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that was opened."""
        try:
            return os.stat(self.path).st_ino == self.inode
        except OSError:
            return False

    def _begin(self) -> None:
        self._lock, self._end, self.id = threading.RLock(), 0, ""
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Forget all records; they are then taken in again, in this process.

        Called when the file is opened, and in a forked child at any moment of its parent.
        """

    @abstractmethod
    def take(self, note: Mapping[str, Any], span: Span) -> None:
        """Take in a record; called once for each record except the first, in order.

        Parameters
        ----------
        note
            Note of the record, as it was given to :meth:`append`.
        span
            Where the body is, for :meth:`body`.
        """

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Take in the appended records; within the context, no other thread takes in more."""
        with self._lock:
            self._follow()
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Take in the appended records; within the context, no other process writes.

        Raises
        ------
        StoreReadOnly
            If the file was opened to read only.
        StoreFull
            If there is no room for an appended record.
        """
        if self._read_only:
            raise read_only_error(str(self.path))
        try:
            with self._lock, open(self.path, "r+b", buffering=0) as self._file:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                try:
                    self._follow()
                    yield
                finally:
                    fcntl.flock(self._file, fcntl.LOCK_UN)  # forked children have it open too
        except OSError as error:
            if isinstance(error, DaskbrokerError):
                raise
            raise file_error(error, self.path) from error

    def append(self, note: Mapping[str, Any], body: bytes = b"", *, sync: bool = False) -> None:
        """Write a record, all of it or nothing; called within :meth:`writing`.

        Parameters
        ----------
        note
            What the record is: a normalized value, see :func:`~daskbroker.core.documents.pack`.
        body
            Any bytes, which should have a checksum of their own, as those that ``pack`` and
            ``to_ipc`` return.
        sync
            Whether to return only once this and all earlier records survive a loss of power.
        """
        head = pack(note)
        record = FRAME.pack(len(head), len(body)) + head + body
        # Half a record may follow, of a writer that was killed or had no room.
        self._file.truncate(self._end)
        self._file.seek(self._end)
        if self._file.write(record) < len(record):
            raise OSError(errno.ENOSPC, "not enough space for a whole record", self.path)
        if sync:
            self.sync()
        self._follow()

    def sync(self) -> None:
        """Make all records survive a loss of power; called within :meth:`writing`."""
        os.fsync(self._file)

    def body(self, span: Span) -> bytes:
        """Return the body of a record."""
        return _read_body(self.path, self.inode, span)

    def _follow(self) -> None:
        """Take in the records that were appended, by any process, since the last look."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise StoreNotFound(f"{self.path} is not there") from None
        _check_inode(self.path, self.inode, found)
        size = found.st_size
        if size <= self._end:
            return
        with open(self.path, "rb") as file, damage_of(f"{self.path}, from byte {self._end:,}"):
            while len(frame := os.pread(file.fileno(), FRAME.size, self._end)) == FRAME.size:
                head, length = FRAME.unpack(frame)
                span = (self._end + FRAME.size + head, length)
                if head == 0 or sum(span) > size:
                    return  # the record is being written, or was never finished
                note = unpack(os.pread(file.fileno(), head, span[0] - head))
                if self._end == 0:
                    check_format(f"the store at {self.path}", note["format"], FORMAT)
                    self.id = note["id"]
                else:
                    self.take(note, span)
                self._end = sum(span)


@dataclass(frozen=True)
class RecordReader(ChunkReader):
    """Reader of chunks by their spans, on any machine that sees the file.

    A chunk is a body that :func:`~daskbroker.core.chunks.to_ipc` has encoded.

    Attributes
    ----------
    path
        Path of the file.
    inode
        Inode of the file.
    """

    path: str
    inode: int

    def read_stored(self, key: Span, columns: Sequence[str] | None) -> pa.Table:
        with damage_of(f"{self.path}, from byte {key[0]:,}"):
            return from_ipc(_read_body(self.path, self.inode, key), columns)


def _read_body(path: str, inode: int, span: Span) -> bytes:
    try:
        with open(path, "rb") as file:
            _check_inode(path, inode, os.fstat(file.fileno()))
            return os.pread(file.fileno(), span[1], span[0])
    except FileNotFoundError:
        raise StoreNotFound(f"{path} does not exist{seen_from()}") from None


def _check_inode(path: str, inode: int, stat: os.stat_result) -> None:
    """Raise StoreError if another file is in place of the opened one.

    What replaces the file, even a copy of it, may have other records.
    """
    if stat.st_ino != inode:
        raise StoreError(f"{path} was replaced since it was opened; open the store again")
