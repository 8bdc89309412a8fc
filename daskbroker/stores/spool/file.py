"""A local file in which events wait until a store has them.

A record is there whole or not at all, once :meth:`SpoolFile.append` has returned; the death of
the process takes nothing from it. What an interrupt or an error leaves of a record is cut off
before the next one. While its process lives the file is locked; the file of a dead
one is found by :func:`left_behind`.

A file of format 1 begins with its first record. One of any later format begins with
:data:`SIGNATURE` and the number of the format, in four bytes, little-endian.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...core.errors import ConfigError, StoreError, file_error, naming
from ...core.forking import in_children
from ...core.formats import check_format

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["SpoolFile", "left_behind"]

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
SIGNATURE = b"daskspool"
"""No record begins so: it would be larger than any is."""

TROUBLE = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
"""What may happen to any folder; other errors of opening say that this one was ill chosen."""

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
        If there is no such folder and none can be made, or files cannot be locked.
    StoreError
        If the system fails otherwise.
    BlockingIOError
        If another process has it.
    """

    def __init__(self, path: Path) -> None:
        if fcntl is None:
            raise ConfigError("a spool needs files that can be locked (POSIX)")
        self.path = path
        self._handle = -1
        in_children(self._close)  # or the file stays locked when the parent has ended
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _not_opened(path, error) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state = os.fstat(self._handle)
        except OSError as error:
            self._close()
            if isinstance(error, BlockingIOError):
                raise
            raise file_error(error, f"the spool {path}") from error
        self._device, self._inode, self._name = state.st_dev, state.st_ino, str(path)
        self.size = state.st_size
        self.unread = 0
        self._whole = True

    @classmethod
    def new(cls, folder: Path, store: str) -> SpoolFile:
        """A new one for a store, of which this is the id."""
        final = folder / f"{store}-{uuid.uuid4().hex}.spool"
        file = cls(final.with_suffix(".new"))
        # Only now that it is locked may others see it, who take over what is not.
        try:
            os.rename(file.path, final)
        except OSError as error:
            file.close(remove=True)
            raise file_error(error, f"the spool {final}") from error
        file.path, file._name = final, str(final)
        return file

    def is_in_place(self) -> bool:
        """Whether the file is still at its path, where another process would find it."""
        try:
            state = os.stat(self._name)
        except OSError:
            return False
        return state.st_ino == self._inode and state.st_dev == self._device

    def append(self, body: bytes) -> None:
        """Add a record.

        Raises
        ------
        StoreFull, StoreError
            If there is no room, or the system fails; then it is not added.
        """
        record = HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            if not self._whole:
                os.ftruncate(self._handle, self.size)
            self._whole = False
            written = 0
            while written < len(record):
                rest = record[written:] if written else record
                part = os.pwrite(self._handle, rest, self.size + written)
                if not part:
                    raise OSError(errno.EIO, "nothing was written")
                written += part
        except OSError as error:
            with suppress(OSError):  # else before the next one
                os.ftruncate(self._handle, self.size)
            error.filename = str(self.path)
            raise file_error(error, "the spool") from error
        self.size += len(record)
        self._whole = True

    def records(self) -> Iterator[bytes]:
        """The records, up to one that was not completed or is damaged; see :attr:`unread`.

        Raises
        ------
        StoreVersion
            If the file is of a newer format.
        """
        place = self.begin()
        self.unread = self.size - place
        while (body := self.record(place)) is not None:
            yield body
            place += self.length_of(body)
            self.unread = self.size - place

    def begin(self) -> int:
        """The place of the first record; raises as :meth:`records`."""
        start = os.pread(self._handle, len(SIGNATURE) + 4, 0)
        if not start.startswith(SIGNATURE):
            return 0
        number = int.from_bytes(start[len(SIGNATURE) :], "little")
        check_format(f"the spool {self.path}", number, FORMAT_VERSION)
        return len(start)

    def record(self, place: int) -> bytes | None:
        """The record at a place; None if there is none that is whole."""
        head = os.pread(self._handle, HEAD.size, place)
        if len(head) < HEAD.size:
            return None
        length, checksum = HEAD.unpack(head)
        if length > self.size - place - HEAD.size:
            return None
        body = os.pread(self._handle, length, place + HEAD.size)
        return body if len(body) == length and zlib.crc32(body) == checksum else None

    @staticmethod
    def length_of(body: bytes) -> int:
        """How many bytes a record takes in the file."""
        return HEAD.size + len(body)

    def clear(self) -> None:
        """Remove all records.

        Raises
        ------
        StoreError
        """
        try:
            with naming(self.path):
                os.ftruncate(self._handle, 0)
        except OSError as error:
            raise file_error(error, "the spool") from error
        self.size = 0
        self._whole = True

    def close(self, *, remove: bool) -> None:
        """Unlock the file, for others to find, or remove it, if it is where it was.

        One that cannot be removed is sent again, which changes nothing.
        """
        if remove and self.is_in_place():
            with suppress(OSError):
                self.path.unlink()
        try:
            self._close()
        except OSError as error:
            if not remove:
                raise file_error(error, f"the spool {self.path}") from error

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def _not_opened(path: Path, error: OSError) -> ConfigError | StoreError:
    if error.errno in TROUBLE:
        return file_error(error, f"the spool {path}")
    return ConfigError(
        f"{path.parent} cannot be the folder of a spool (daskbroker.mongo-spool; --spool of "
        f"daskbroker listen): {error}"
    )


def left_behind(folder: Path, store: str) -> Iterator[SpoolFile]:
    """The files of processes that died, each locked; to be closed by the caller."""
    for path in sorted(folder.glob(f"{store}-*.spool")):
        try:
            file = SpoolFile(path)
        except (BlockingIOError, ConfigError):
            continue
        except StoreError as error:
            logger.warning("%s", error)
            continue
        if file.path.exists():  # its owner may have removed it between the two
            yield file
        else:
            file.close(remove=False)
