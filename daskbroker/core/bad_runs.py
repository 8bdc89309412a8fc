"""Runs that a store has and cannot give: a damaged row, a document of a foreign writer.

Such a run costs itself alone. A store gives a :class:`BadRun` in the place of what it cannot
give; whoever goes over many runs leaves it out with a warning, whoever asks for that run gets
the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from .callers import warn_caller
from .errors import BadRunWarning, StoreDamaged

__all__ = ["BadRun", "leave_out_bad", "take_sound", "warn_of_bad"]

T = TypeVar("T")
MOST_WARNINGS = 10
"""Of one pass over runs; then one that says that there are more."""


@dataclass(frozen=True)
class BadRun:
    """A run, or what stands in for one, that a store cannot give.

    Attributes
    ----------
    uid
        Of the run; None if it has none, or one that is no text.
    reason
        Document, field, and what is wrong there.
    where
        Where the store has the document, such as collection and ``_id``.
    """

    uid: str | None
    reason: str
    where: str = ""

    def __str__(self) -> str:
        name = "a run without uid" if self.uid is None else f"run {self.uid!r}"
        reason = self.reason.removeprefix(name).removeprefix(", ").removeprefix(": ")
        return f"{name}: {reason}" + (f" ({self.where})" if self.where else "")

    def error(self) -> StoreDamaged:
        """What whoever asks for this run gets."""
        return StoreDamaged(str(self))


def warn_of_bad(bad: BadRun) -> None:
    """Warn that a run is left out; the warning is where a user called daskbroker."""
    warn_caller(f"{bad}; it is left out", BadRunWarning)


def leave_out_bad(found: Iterable[T | BadRun], met: list[BadRun] | None = None) -> Iterator[T]:
    """What is sound, with a warning for each bad run, which is added to ``met``."""
    bad: list[BadRun] = [] if met is None else met
    for one in found:
        if not isinstance(one, BadRun):
            yield one
            continue
        bad.append(one)
        if len(bad) <= MOST_WARNINGS:
            warn_of_bad(one)
        elif len(bad) == MOST_WARNINGS + 1:
            text = "more bad runs are left out; the results' attribute `bad` has them all"
            warn_caller(text, BadRunWarning)


def take_sound(found: Iterator[T | BadRun], start: int, stop: int | None) -> Iterator[T | BadRun]:
    """As :func:`itertools.islice`, but bad runs do not count, and those on the way are given."""
    if start == 0 and stop is None:
        yield from found
        return
    if stop is not None and stop <= start:
        return
    place = 0
    while stop is None or place < stop:
        one = next(found, None)
        if one is None:
            return
        sound = not isinstance(one, BadRun)
        if place >= start or not sound:
            yield one
        place += sound
