"""A local file in which events wait until a store has them.

A record is there whole or not at all, once :meth:`SpoolFile.append` has returned; the death of
the process takes nothing from it. While its process lives the file is locked; the file of a dead
one is found by :func:`left_behind`.

A file of format 1 begins with its first record. One of any later format begins with
:data:`SIGNATURE` and the number of the format, in four bytes, little-endian.
"""

from __future__ import annotations

import errno
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import ConfigError, StoreFull
from ...core.forking import in_children
from ...core.formats import check_format

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["SpoolFile", "left_behind"]

FORMAT_VERSION = 1
SIGNATURE = b"daskspool"
"""No record begins so: it would be larger than any is."""

HEAD = struct.Struct("<II")
"""Length and CRC-32 of what follows."""


class SpoolFile:
    """A locked file of records.

    Parameters
    ----------
    path
        Made if there is none; its folder too.

    Attributes
    ----------
    size
        In bytes.
    unread
        So many bytes at the end were no records, when all records had been read.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or files cannot be locked.
    BlockingIOError
        If another process has it.
    """

    def __init__(self, path: Path) -> None:
        if fcntl is None:
            raise ConfigError("daskbroker.mongo-spool needs files that can be locked (POSIX)")
        self.path = path
        self._handle = -1
        in_children(self._close)  # or the file stays locked when the parent has ended
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise ConfigError(f"daskbroker.mongo-spool: {path.parent}: {error}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._close()
            raise
        self.size = os.fstat(self._handle).st_size
        self.unread = 0

    @classmethod
    def new(cls, folder: Path, store: str) -> SpoolFile:
        """A new one for a store, of which this is the id."""
        final = folder / f"{store}-{uuid.uuid4().hex}.spool"
        file = cls(final.with_suffix(".new"))
        # Only now that it is locked may others see it, who take over what is not.
        os.rename(file.path, final)
        file.path = final
        return file

    def append(self, body: bytes) -> None:
        """Add a record.

        Raises
        ------
        StoreFull
            If there is no room; then it is not added.
        """
        record = HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            written = 0
            while written < len(record):
                part = os.write(self._handle, record[written:] if written else record)
                if not part:
                    raise OSError(errno.EIO, "nothing was written")
                written += part
        except OSError as error:
            os.ftruncate(self._handle, self.size)
            raise StoreFull(f"the spool {self.path} cannot grow: {error}") from error
        self.size += len(record)

    def records(self) -> Iterator[bytes]:
        """The records, up to one that was not completed or is damaged; see :attr:`unread`.

        Raises
        ------
        StoreVersion
            If the file is of a newer format.
        """
        start = os.pread(self._handle, len(SIGNATURE) + 4, 0)
        if start.startswith(SIGNATURE):
            number = int.from_bytes(start[len(SIGNATURE) :], "little")
            check_format(f"the spool {self.path}", number, FORMAT_VERSION)
        place = len(start) if start.startswith(SIGNATURE) else 0
        self.unread = self.size - place
        while len(head := os.pread(self._handle, HEAD.size, place)) == HEAD.size:
            length, checksum = HEAD.unpack(head)
            if length > self.size - place - HEAD.size:
                return
            body = os.pread(self._handle, length, place + HEAD.size)
            if len(body) < length or zlib.crc32(body) != checksum:
                return
            yield body
            place += HEAD.size + length
            self.unread = self.size - place

    def clear(self) -> None:
        """Remove all records."""
        os.ftruncate(self._handle, 0)
        self.size = 0

    def close(self, *, remove: bool) -> None:
        """Unlock the file, for others to find, or remove it."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def left_behind(folder: Path, store: str) -> Iterator[SpoolFile]:
    """The files of processes that died, each locked; to be closed by the caller."""
    for path in sorted(folder.glob(f"{store}-*.spool")):
        try:
            file = SpoolFile(path)
        except (BlockingIOError, ConfigError):
            continue
        if file.path.exists():  # its owner may have removed it between the two
            yield file
        else:
            file.close(remove=False)
