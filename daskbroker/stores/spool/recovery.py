"""Sending of the events that dead processes have left in their spools."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from ...core.errors import BadDocument, DaskbrokerError, StoreUnavailable
from .entries import Entry, Send, deliver, next_batch
from .file import SpoolFile, left_behind

logger = logging.getLogger(__name__)


def send_left_behind(
    folder: Path, store: str, skipped: set[Path], send: Send, most_rows: int, *, settle: bool
) -> None:
    """Send the events of dead processes; those that cannot be sent stay in their files.

    Parameters
    ----------
    folder, store, skipped
        See :func:`~.file.left_behind`; files that were sent, or cannot be, are added to `skipped`.
    send, most_rows
        See :class:`~.sender.Sender`.
    settle
        Whether a reader waits for these events, so that a store that takes nothing is an error.

    Raises
    ------
    StoreUnavailable
        If the store takes nothing, and ``settle``.
    """
    # No process of this machine has used a spool in this folder.
    if not folder.is_dir():
        return
    for file in left_behind(folder, store, skipped):
        done = False
        try:
            refused = _resend(file, send, most_rows)
            done = not refused and not file.unread
            for error in refused:
                logger.error("the store refuses an event of the spool %s: %s", file.path, error)
            if file.unread:
                logger.error(
                    "%d bytes of the spool %s cannot be read; its other events are stored",
                    file.unread, file.path,
                )  # fmt: skip
            # Kept under another name: else each start would try, and report, the same events again.
            if not done:
                file.path.rename(file.path.with_suffix(".refused"))
            skipped.add(file.path)  # even if it cannot be removed
        except (DaskbrokerError, OSError) as error:
            away = isinstance(error, StoreUnavailable)
            if away and settle:
                raise
            logger.warning("the spool %s cannot be sent now: %s", file.path, error)
            if away:
                return
            skipped.add(file.path)
        finally:
            file.close(remove=done)


def _resend(file: SpoolFile, send: Send, most_rows: int) -> list[BadDocument]:
    """Send what a file holds; return the errors of events that the store has refused."""
    entries = deque(Entry.from_bytes(body) for body in file.records())
    refused: list[BadDocument] = []
    while entries:
        batch = next_batch(entries, most_rows)
        refused += deliver(batch, send)
        for _ in batch:
            entries.popleft()
    return refused
