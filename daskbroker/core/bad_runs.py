"""Runs that a store has and cannot read: a damaged row, or a document of another writer.

Such a run does not affect others. A store yields a :class:`BadRun` in place of what it cannot
read. Code that iterates over many runs leaves it out with a warning; a request for that run
raises the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from .errors import BadRunWarning, StoreDamaged
from .user_warnings import warn_caller

T = TypeVar("T")
MOST_WARNINGS = 10
"""Maximum number of warnings in one pass over runs; one more says that there are others."""


@dataclass(frozen=True)
class BadRun:
    """A run that a store has and cannot read.

    Attributes
    ----------
    uid
        Uid of the run, or None if it has none, or one that is not text.
    reason
        Document and field, and what is wrong there.
    where
        Where the document is in the store, such as collection and ``_id``.
    """

    uid: str | None
    reason: str
    where: str = ""

    def __str__(self) -> str:
        name = "a run without uid" if self.uid is None else f"run {self.uid!r}"
        reason = self.reason.removeprefix(name).removeprefix(", ").removeprefix(": ")
        return f"{name}: {reason}" + (f" ({self.where})" if self.where else "")

    def error(self) -> StoreDamaged:
        """Return the error to raise if this run is requested."""
        return StoreDamaged(str(self))


def warn_of_bad(bad: BadRun) -> None:
    """Warn that a run is left out; the warning points at the line that called daskbroker."""
    warn_caller(f"{bad}; this run is left out", BadRunWarning)


def leave_out_bad(items: Iterable[T | BadRun], met: list[BadRun] | None = None) -> Iterator[T]:
    """Yield the items that can be read, with a warning for each bad run.

    Parameters
    ----------
    items
        Items of runs, with a :class:`BadRun` for each that cannot be read.
    met
        List to which the bad runs are appended; those already in it count for
        :data:`MOST_WARNINGS`.
    """
    bad: list[BadRun] = [] if met is None else met
    for one in items:
        if not isinstance(one, BadRun):
            yield one
            continue
        bad.append(one)
        if len(bad) <= MOST_WARNINGS:
            warn_of_bad(one)
        elif len(bad) == MOST_WARNINGS + 1:
            text = "more unreadable runs are left out; `bad` of the results lists all of them"
            warn_caller(text, BadRunWarning)


def take_sound(items: Iterator[T | BadRun], start: int, stop: int | None) -> Iterator[T | BadRun]:
    """Yield items ``start`` to ``stop`` as :func:`itertools.islice`, without counting bad runs.

    Bad runs that lie among these are yielded too.
    """
    if start == 0 and stop is None:
        yield from items
        return
    if stop is not None and stop <= start:
        return
    position = 0
    while stop is None or position < stop:
        one = next(items, None)
        if one is None:
            return
        sound = not isinstance(one, BadRun)
        if position >= start:
            yield one
        position += sound
