"""A local file in which events wait until a store has them.

A record survives the death of the process once :meth:`SpoolFile.append` has returned. A part of a
record that an interrupt or an error leaves behind is cut off before the next record is appended.
The file is locked while its process lives; files of dead processes are found by
:func:`left_behind`.

A file of format 1 begins with its first record. A file of any later format begins with
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

from ...core.errors import ConfigError, StoreError, file_error, is_of_process, naming
from ...core.forking import in_children
from ...core.formats import check_format

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
SIGNATURE = b"daskspool"
"""First bytes of a file of a later format.

No record begins so: as a length, these bytes are larger than any record."""

TROUBLE = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
"""Errors of opening that can occur in any folder, as those of the process; others mean that the
folder is unsuitable."""

HEAD = struct.Struct("<II")
"""Length and CRC-32 of the body that follows."""


class SpoolFile:
    """A locked file of records.

    Parameters
    ----------
    path
        Path of the file, which is made if there is none, with its folder.

    Attributes
    ----------
    size
        Size of the file in bytes.
    unread
        Number of bytes that are not valid records, once all records have been read.

    Raises
    ------
    ConfigError
        If there is no such folder and none can be made, or files cannot be locked.
    StoreError
        If the system fails otherwise.
    BlockingIOError
        If another process has locked the file.
    """

    def __init__(self, path: Path) -> None:
        if fcntl is None:
            raise ConfigError("a spool needs files that can be locked (POSIX)")
        self.path = path
        self._handle = -1
        in_children(self._close)  # else the file stays locked after the parent has ended
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
        self._ends_whole = True

    @classmethod
    def new(cls, folder: Path, store: str) -> SpoolFile:
        """Make a new file in a folder, for the store with this id."""
        final = folder / f"{store}-{uuid.uuid4().hex}.spool"
        file = cls(final.with_suffix(".new"))
        # It gets its final name only once it is locked: others take over files that are not.
        try:
            os.rename(file.path, final)
        except OSError as error:
            file.close(remove=True)
            raise file_error(error, f"the spool {final}") from error
        file.path, file._name = final, str(final)
        return file

    def is_in_place(self) -> bool:
        """Return whether the file is still at its path, where another process would find it."""
        try:
            state = os.stat(self._name)
        except OSError:
            return False
        return state.st_ino == self._inode and state.st_dev == self._device

    def append(self, body: bytes) -> None:
        """Add a record, whose body is not empty: eight zeros in a damaged file are none.

        Raises
        ------
        StoreFull, StoreError
            If there is no room, or the system fails; the record is not added then.
        """
        record = HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            if not self._ends_whole:
                os.ftruncate(self._handle, self.size)
            self._ends_whole = False
            written = 0
            while written < len(record):
                rest = record[written:] if written else record
                part = os.pwrite(self._handle, rest, self.size + written)
                if not part:
                    raise OSError(errno.EIO, "nothing was written")
                written += part
        except OSError as error:
            with suppress(OSError):  # if this fails, the next append truncates
                os.ftruncate(self._handle, self.size)
            error.filename = str(self.path)
            raise file_error(error, "the spool") from error
        self.size += len(record)
        self._ends_whole = True

    def records(self) -> Iterator[bytes]:
        """Yield the records as :meth:`next_record` finds them; see :attr:`unread`.

        Raises
        ------
        StoreVersion
            If the file is of a newer format.
        """
        position, damaged = self.begin(), 0
        while found := self.next_record(position):
            begin, body = found
            damaged += begin - position
            position = begin + self.length_of(body)
            yield body
        self.unread = damaged + self.size - position

    def begin(self) -> int:
        """Return the offset of the first record in bytes; raise as :meth:`records`."""
        start = os.pread(self._handle, len(SIGNATURE) + 4, 0)
        if not start.startswith(SIGNATURE):
            return 0
        number = int.from_bytes(start[len(SIGNATURE) :], "little")
        check_format(f"the spool {self.path}", number, FORMAT_VERSION)
        return len(start)

    def next_record(self, offset: int) -> tuple[int, bytes] | None:
        """Return offset and body of the record at an offset, or of the first after damaged ones.

        The lengths of damaged records are believed if they lead to a whole one. None if there is
        no record, or none can be found.
        """
        while (body := self._record(offset)) is None:
            head = os.pread(self._handle, HEAD.size, offset)
            length = int(HEAD.unpack(head)[0]) if len(head) == HEAD.size else 0
            if not length:
                return None
            offset += HEAD.size + length
        return offset, body

    def _record(self, offset: int) -> bytes | None:
        """Return the body of the record at an offset, or None if there is no whole one."""
        head = os.pread(self._handle, HEAD.size, offset)
        if len(head) < HEAD.size:
            return None
        length, checksum = HEAD.unpack(head)
        # Zeros are what a file system may leave of a file that grew when the power failed.
        if not 0 < length <= self.size - offset - HEAD.size:
            return None
        body = os.pread(self._handle, length, offset + HEAD.size)
        return body if len(body) == length and zlib.crc32(body) == checksum else None

    @staticmethod
    def length_of(body: bytes) -> int:
        """Return the number of bytes that a record with this body takes in the file."""
        return HEAD.size + len(body)

    def clear(self) -> None:
        """Remove all records.

        Raises
        ------
        StoreError
            If the file cannot be truncated.
        """
        try:
            with naming(self.path):
                os.ftruncate(self._handle, 0)
        except OSError as error:
            raise file_error(error, "the spool") from error
        self.size = 0
        self._ends_whole = True

    def close(self, *, remove: bool) -> None:
        """Unlock the file, after removing it if ``remove`` and it is still in its place.

        Another process takes over the file if it stays. If it could not be removed, its events
        are sent again, which changes nothing.
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
    if error.errno in TROUBLE or is_of_process(error):
        return file_error(error, f"the spool {path}")
    return ConfigError(
        f"{path.parent} cannot be the folder of a spool (the setting daskbroker.mongo-spool, or "
        f"--spool of the command `daskbroker listen`): {error}"
    )


def left_behind(folder: Path, store: str, skipped: set[Path] | None = None) -> Iterator[SpoolFile]:
    """Yield the files of dead processes for a store, each locked; the caller must close them.

    Parameters
    ----------
    folder
        Folder of the files.
    store
        Id of the store.
    skipped
        Paths to skip, to which those are added that cannot be opened; the log names them.
    """
    skipped = set() if skipped is None else skipped
    for path in sorted(folder.glob(f"{store}-*.spool")):
        if path in skipped:
            continue
        try:
            file = SpoolFile(path)
        except BlockingIOError:  # its process is alive
            continue
        except (ConfigError, StoreError) as error:  # such as a file of another user
            logger.warning("a spool file is not sent now: %s", error.__cause__ or error)
            skipped.add(path)
            continue
        if file.path.exists():  # its owner may have removed it between the two
            yield file
        else:
            file.close(remove=False)
