"""Sending of events that wait in a spool, many at once, from a separate thread.

An insert is done when the event is in the local file. The thread collects events for a moment,
sends them with one command, or as a chunk if they are many, and empties the file when all of them
are stored. An event is sent until the store has it; to repeat is harmless as each is stored once.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from _thread import start_new_thread
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import (
    BadDocument,
    DaskbrokerError,
    StoreError,
    StoreUnavailable,
    closed_error,
)
from ...core.forking import in_each_process
from .entries import Entry, Send, deliver, next_batch
from .file import SpoolFile
from .recovery import send_left_behind

COLLECT_SECONDS = 0.1
"""Seconds for which events are collected before they are sent."""
IDLE_SECONDS = 5.0
"""Seconds without events after which the thread ends."""
AGAIN_SECONDS = 1.0
"""Seconds until sending is tried again after it has failed."""
MOST_BYTES = 64 * 2**20
"""Maximum bytes of events that wait, in memory and in the file."""

_senders: weakref.WeakSet[Sender] = weakref.WeakSet()

logger = logging.getLogger(__name__)


class Sender:
    """Queue and thread that send one store the events that this process has taken for it.

    Parameters
    ----------
    folder
        Folder of the spool.
    store
        Id of the store.
    send
        See :data:`~.entries.Send`.
    most_rows
        Maximum number of rows sent at once, except for a single larger entry.
    """

    def __init__(
        self,
        folder: Path,
        store: str,
        send: Send,
        most_rows: int,
    ) -> None:
        self._folder, self.store = folder, store
        self._send = send
        self._most_rows = most_rows
        self._closed = False
        in_each_process(self._begin)
        _senders.add(self)
        atexit.register(_at_exit, weakref.ref(self))

    def _begin(self) -> None:
        # In a forked child nothing waits: waiting events and the file belong to the parent.
        # The lock is taken by `with self._lock`, not by the Condition: an interrupt may leave a
        # Condition locked, but not a lock.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Entry] = deque()
        self._rows = 0
        self._since = 0.0
        self._hurry = 0
        self._file: SpoolFile | None = None
        self._thread: object | None = None  # stands for the thread that sends
        self._trouble: DaskbrokerError | None = None
        self._refused: list[BadDocument] = []
        self._recovering = threading.RLock()
        self._recovered = False  # once, before the first event
        self._skipped: set[Path] = set()  # files that were sent, or cannot be

    # -- taking ------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Take an entry; when this returns it is in the file, or, if it is large, in the store.

        Raises
        ------
        BadDocument
            If the store has refused an earlier event since the last call; the entry is not taken.
        StoreUnavailable, StoreError
            If the spool is full because the store takes nothing.
        StoreFull
            If the file cannot grow.
        """
        self._ready()
        self._report()
        body = entry.to_bytes()
        with self._lock:
            if self._closed:  # since _ready
                raise closed_error("the store")
            # A large entry would fill much of the spool, so it goes straight to the store; all
            # that waits is sent first, to keep the order.
            if len(body) > MOST_BYTES // 8:
                self._wait_until_sent()
                self._send([entry])
                return
            # The file may grow no further until the store has taken what is in it.
            if self._file is not None and self._file.size > MOST_BYTES:
                self._wait_until_sent()
            # Otherwise no process would find events in the file after a crash.
            if self._file is not None and not self._file.is_in_place():
                self._abandon_file(self._file)
            if self._file is None:
                self._file = SpoolFile.new(self._folder, self.store)
            self._file.append(body)
            if not self._waiting:
                self._since = time.monotonic()
            self._rows += len(entry)
            self._waiting.append(entry)
            # The thread sleeps while nothing waits, then until a batch is full or in time.
            if self._thread is None:
                self._start()
            elif self._rows >= self._most_rows or len(self._waiting) == 1:
                self._changed.notify_all()

    def _abandon_file(self, file: SpoolFile) -> None:
        """Give up a file that no other process would find, after sending what it holds."""
        logger.warning(
            "the spool %s was moved, deleted or replaced; its events are sent from memory, and a "
            "new file is created",
            file.path,
        )
        try:
            self._wait_until_sent()
        # The store refuses inserts, and the file is lost: this must not look like success.
        except DaskbrokerError as error:
            raise StoreError(
                f"the spool {file.path} was moved, deleted or replaced; {self._rows} events are "
                "in memory only, because the store refuses inserts. This event is not stored"
            ) from error
        # While this thread waited, another one may have done the same.
        if self._file is file:
            file.close(remove=False)
            self._file = None

    def flush(self, *, report: bool = True) -> None:
        """Return once everything that was taken is stored.

        Parameters
        ----------
        report
            Whether to raise the errors of events that the store has refused.

        Raises
        ------
        BadDocument
            If the store has refused events, which are not stored; the error of the first.
        StoreUnavailable, StoreError
            If the store takes nothing; the events still wait.
        """
        self._ready(settle=True)
        with self._lock:
            self._wait_until_sent()
        if report:
            self._report()

    def close(self) -> None:
        """Send everything; events that cannot be sent stay in the file, for the next process."""
        if self._closed:
            return
        _senders.discard(self)
        try:
            with self._lock:
                self._wait_until_sent()
            self._report()
        finally:
            with self._lock:
                self._closed = True
                self._changed.notify_all()
                # If something could not be sent, the file stays for the next process.
                if self._file is not None:
                    self._file.close(remove=not self._waiting)

    def _ready(self, *, settle: bool = False) -> None:
        if self._closed:
            raise closed_error("the store")
        # Events of dead processes come first: those that are there before the first insert, and
        # before each flush and read those of processes that have died since.
        if self._recovered and not settle:
            return
        with self._recovering:
            send_left_behind(
                *(self._folder, self.store, self._skipped),
                *(self._send, self._most_rows),
                settle=settle,
            )
            self._recovered = True

    def _report(self) -> None:
        if not self._refused:
            return
        # Looked at without the lock before: most inserts have nothing to report.
        with self._lock:
            refused, self._refused = self._refused, []
        if refused:
            error = refused[0]
            error.add_note("It was inserted before, and is not stored; all others since then are.")
            for other in refused[1:]:
                error.add_note(f"The same holds for: {other}")
            raise error

    def _wait_until_sent(self) -> None:
        if not self._waiting:
            return
        self._trouble = None
        if self._thread is None:
            self._start()
        try:
            # While somebody waits, the thread sends without waiting for a full batch.
            self._hurry += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: not self._waiting or self._trouble is not None or self._thread is None
            )
        finally:
            self._hurry -= 1
        if self._waiting and self._trouble is None:
            self._trouble = StoreUnavailable("the thread that sends events of the spool has ended")
        if self._trouble is not None:
            kept = "" if self._file is None else f" {self._rows} events wait in {self._file.path}."
            raise type(self._trouble)(f"{self._trouble}.{kept}") from self._trouble

    # -- sending -----------------------------------------------------------------------------

    def _start(self) -> None:
        """Begin the thread; if that is not possible, the next insert tries again."""
        thread = object()
        # A Thread would wait until it has begun: for ever, if memory is used up at that moment.
        try:
            start_new_thread(self._run, (thread,))
            self._thread = thread
        except RuntimeError as error:
            self._trouble = StoreUnavailable(f"no thread can send events of the spool: {error}")

    def _is_sender(self, thread: object) -> bool:
        """Return whether this is the sender; an interrupted start may leave another thread."""
        return self._thread is thread

    def _run(self, thread: object) -> None:
        try:
            self._send_all(thread)
        finally:
            with self._lock:
                # Those that wait for it would wait for ever, and inserts begin no other.
                if self._is_sender(thread):
                    self._thread = None
                self._changed.notify_all()

    def _send_all(self, thread: object) -> None:
        """Send what waits until nothing does."""
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._waiting or self._closed, IDLE_SECONDS)
                if not self._is_sender(thread):
                    return
                # Ends the thread of an idle store; the next insert starts another.
                if self._closed or not self._waiting:
                    self._thread = None
                    return
                rest = self._since + COLLECT_SECONDS - time.monotonic()
                self._changed.wait_for(
                    lambda: self._hurry or self._rows >= self._most_rows, max(0.0, rest)
                )
                batch = next_batch(self._waiting, self._most_rows)
            # Sent without the lock, so that inserts go on; the batch stays in the queue until it
            # is stored.
            try:
                refused = deliver(batch, self._send)
            except Exception as error:  # nothing may end the thread while events wait
                self._pause(error)
                continue
            with self._lock:
                if not self._closed and self._is_sender(thread):
                    self._sent(batch, refused)

    def _sent(self, batch: Sequence[Entry], refused: Sequence[BadDocument]) -> None:
        for _ in batch:
            self._waiting.popleft()
        self._rows = sum(map(len, self._waiting))
        self._since = time.monotonic()
        self._refused.extend(refused)
        for error in refused:
            logger.error("the store refuses an event of the spool: %s", error)
        if not self._waiting and self._file is not None:
            try:
                self._file.clear()
            except StoreError as error:  # the next process sends the file again: no harm
                logger.warning("the sent events of a spool file cannot be removed: %s", error)
                self._skipped.add(self._file.path)
                self._file.close(remove=False)
                self._file = None
        self._changed.notify_all()

    def _pause(self, error: Exception) -> None:
        """Note that the store takes nothing, and wait before the next attempt."""
        if not isinstance(error, DaskbrokerError):
            trouble: DaskbrokerError = StoreError(f"{type(error).__name__}: {error}")
            trouble.__cause__ = error
            error = trouble
        with self._lock:
            logger.warning(
                "%d events wait in the spool until the store accepts inserts: %s", self._rows, error
            )
            self._trouble = error
            self._changed.notify_all()
            self._changed.wait(AGAIN_SECONDS)


def flush_all(store: str) -> None:
    """Return once a store has all events that this process has taken for it; for readers.

    Raises
    ------
    StoreUnavailable, StoreError
        If the store takes nothing.
    """
    for sender in list(_senders):
        if sender.store == store:
            sender.flush(report=False)


def _at_exit(reference: weakref.ref[Sender]) -> None:
    sender = reference()
    if sender is not None:
        # At the end of the interpreter, an exception would only be printed without a log.
        try:
            sender.close()
        except DaskbrokerError as error:
            logger.error("events of the spool were not sent at exit: %s", error)
