"""Checking that the files that a process has open are still those at their paths.

SQLite goes on with the files it has opened, wherever these have been moved, while chunks are
written and read by their paths. If a folder was moved, deleted or replaced, the two belong to
different stores.
"""

from __future__ import annotations

import os
import time

from ...core.errors import StoreError, StoreNotFound
from ...core.forking import ProcessLock

SETTLED_SECONDS = 0.025
"""Seconds after which another change of a folder certainly gives another time of modification.

File systems note times in ticks of a clock, of up to 10 ms, and two changes within one tick have
the same time."""

_Identity = tuple[int, int]


class OpenedFolder:
    """The folder of a store and the entries in it, by device and inode.

    The time of modification of a folder changes with every entry that is made, removed or
    renamed. So one ``stat`` of the folder is enough, unless that time has just changed: then each
    entry is looked at.

    Parameters
    ----------
    folder
        Path of the store's folder, with symbolic links if it was given so.
    lasting
        Names of entries that must stay the same files, once they are there.
    log
        Names of entries that must stay the same files while this process has connections that
        have opened them, from :meth:`hold_log` to :meth:`release_log`. Otherwise the last
        connection of another process may remove them.
    """

    def __init__(self, folder: str, lasting: tuple[str, ...], log: tuple[str, ...]) -> None:
        self._folder = folder
        self._lasting = lasting
        self._log = log
        self._log_holders: set[object] = set()
        self._lock = ProcessLock()
        self._known: dict[str, _Identity] = {}
        self._sure: tuple[int, int, int] | None = None
        self._changed, self._since = 0, 0.0
        state = os.stat(folder)
        self._identity = state.st_dev, state.st_ino

    def hold_log(self, connection: object) -> None:
        """Check the log's files, too; called when a connection has opened them."""
        with self._lock.lock():
            if not self._log_holders:
                self._sure = None
            self._log_holders.add(connection)

    def release_log(self, connection: object) -> None:
        """Forget the log's files if no other connection has opened them.

        This is called before the connection is closed, because the files go with the last one,
        and a connection that another thread is opening may make them again at once.
        """
        with self._lock.lock():
            self._log_holders.discard(connection)
            if not self._log_holders:
                for name in self._log:
                    self._known.pop(name, None)
                self._sure = None

    def check(self) -> None:
        """Compare the folder and its entries with those that were opened.

        Raises
        ------
        StoreNotFound
            If the folder cannot be found.
        StoreError
            If the folder or an entry was moved, deleted or replaced.
        """
        try:
            state = os.stat(self._folder)
        except OSError as error:
            raise StoreNotFound(self._told(self._folder, f"it cannot be found: {error}")) from error
        seen = state.st_mtime_ns, state.st_ino, state.st_dev
        if seen != self._sure:
            with self._lock.lock():
                self._look(state, seen)

    def _look(self, state: os.stat_result, seen: tuple[int, int, int]) -> None:
        if (state.st_dev, state.st_ino) != self._identity:
            raise StoreError(self._told(self._folder, "another folder is there now"))
        # SQLite removes its log with the last connection; only until then it has to stay.
        for name in (*self._lasting, *(self._log if self._log_holders else ())):
            path = os.path.join(self._folder, name)
            found = _identity(path)
            known = self._known.setdefault(name, found) if found is not None else None
            if known != found or (found is None and name in self._known):
                what = "it is gone" if found is None else "another one is there now"
                raise StoreError(self._told(path, what))
        now = time.monotonic()
        if state.st_mtime_ns != self._changed:
            self._changed, self._since = state.st_mtime_ns, now
        elif now - self._since > SETTLED_SECONDS:
            self._sure = seen

    def _told(self, path: str, what: str) -> str:
        return (
            f"{path} was moved, deleted or replaced since this process opened the store ({what}); "
            "nothing more is read or written through the opened files. Open the store again"
        )


def _identity(path: str) -> _Identity | None:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino
