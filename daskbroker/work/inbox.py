"""A queue of messages in a local file, from when they are received until they are processed."""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path

from ..stores.spool.file import SpoolFile, left_behind

logger = logging.getLogger(__name__)


class Inbox:
    """A first-in, first-out queue of messages that survives the death of the process.

    One thread may put messages while another one takes them out. A message is in the file when
    :meth:`put` has returned. Messages that dead processes have left in files of the same name come
    first. A message that such a process had begun to process comes once more.

    Parameters
    ----------
    folder
        Local folder of the file. It is created if it does not exist.
    name
        Name of the queue. Files that dead processes have left under this name are taken over.

    Attributes
    ----------
    waiting
        Number of messages in this process's own file, without those left by other processes.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._changed = threading.Condition()
        self._folder, self._name = folder, name
        self._own = SpoolFile.new(folder, name)
        # Its own file is locked, so it is not among them.
        self._files = deque([*left_behind(folder, name), self._own])
        self._offset = self._files[0].begin()
        self._first: bytes | None = None
        self._damaged = 0
        self.waiting = 0

    def put(self, message: bytes) -> None:
        """Add a message to the end; raises as those of :class:`SpoolFile` do."""
        with self._changed:
            # A file that was moved or deleted would not be found by the next process.
            if not self._own.is_in_place():
                self._own = SpoolFile.new(self._folder, self._name)
                self._files.append(self._own)
                self.waiting = 0
            self._own.append(message)
            self.waiting += 1
            self._changed.notify()

    def first(self, timeout: float = 0.0) -> bytes | None:
        """Return the first message, which stays in the queue until :meth:`drop`.

        Parameters
        ----------
        timeout
            Maximum seconds to wait if the queue is empty.

        Returns
        -------
        bytes or None
            None if no message arrives in time.
        """
        with self._changed:
            if self._first is None:
                self._next()
            if self._first is None and self._changed.wait(timeout):
                self._next()
            return self._first

    def drop(self) -> None:
        """Remove the message that :meth:`first` has returned."""
        with self._changed:
            assert self._first is not None
            self._offset += self._own.length_of(self._first)
            self._first = None
            if self._files[0] is self._own:
                self.waiting -= 1
                if self._offset >= self._own.size:
                    self._empty_own()

    def close(self) -> list[Path]:
        """Close the queue and return the paths of files in which messages are still waiting.

        Files without messages are removed. Those that cannot be read are kept under the name
        ``*.refused``.
        """
        with self._changed:
            if self._first is None:
                self._next()
            left = [] if self._first is None else list(self._files)
            if self.waiting == 0 and self._own in left:
                left.remove(self._own)
            for file in self._files:
                file.close(remove=file not in left)
            return [file.path for file in left]

    def _next(self) -> None:
        """Read the first message of the first file that has any."""
        found = self._files[0].next_record(self._offset)
        while found is None and len(self._files) > 1:
            self._leave(self._files.popleft())
            self._offset = self._files[0].begin()
            found = self._files[0].next_record(self._offset)
        if found is not None:
            begin, self._first = found
            self._damaged += begin - self._offset
            self._offset = begin
        # What is in its own file has been written completely, so the rest is damaged.
        elif self._offset < self._own.size:
            self._empty_own()

    def _empty_own(self) -> None:
        """Remove all messages from its own file; if some could not be read, begin a new file."""
        if self._damaged or self._offset < self._own.size:
            own = SpoolFile.new(self._folder, self._name)
            self._leave(self._files.popleft())
            self._files.append(own)
            self._own = own
        else:
            self._own.clear()
        self._offset = self.waiting = 0

    def _leave(self, file: SpoolFile) -> None:
        """Close and remove a file, or keep it under another name if some of it is unreadable."""
        unread = self._damaged + file.size - self._offset
        self._damaged = 0
        if unread:
            kept = file.path.with_suffix(".refused")
            logger.error(
                "%d bytes of the spool %s cannot be read; it is kept as %s",
                unread,
                file.path,
                kept,
            )
            file.path.rename(kept)
        file.close(remove=not unread)
