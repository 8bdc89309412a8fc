"""Names in messages: a few of them, the nearest to what was asked for first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import islice

from .printable import printable

__all__ = ["listed", "nearest"]

MOST = 10
"""So many names are shown; twice as many if these are all."""
LONGEST = 80
"""Of a name that is shown."""
COMPARED = 2000
"""So many names are compared with what was asked for; it takes 50 us each."""


def listed(names: Iterable[object], near: object = None, *, none: str = "none") -> str:
    """Names as a message lists them: all if they are few, else the nearest ones and a number.

    Parameters
    ----------
    names
        In the order in which they are listed if they are few, or nothing is near.
    near
        What was asked for.
    none
        What stands for no names at all.
    """
    every = [str(name) for name in names]
    if not every:
        return none
    if len(every) <= 2 * MOST:
        return ", ".join(map(_shown, every))
    chosen = every[:MOST] if near is None else _nearest(every, near, MOST)
    return f"{', '.join(map(_shown, chosen))}, … ({len(every):,} in all)"


def nearest(names: Collection[str], near: str) -> str:
    """The name that is most like what was asked for, or whose last part after a dot is."""
    candidates = {name.rpartition(".")[2]: name for name in names}
    candidates |= {name: name for name in names}
    return candidates[_nearest(candidates, near, 1)[0]]


def _nearest(names: Iterable[str], near: object, most: int) -> list[str]:
    wanted = SequenceMatcher(None, "", str(near)[:LONGEST].casefold())

    def likeness(name: str) -> float:
        wanted.set_seq1(name[:LONGEST].casefold())
        return wanted.ratio()

    return nlargest(most, islice(names, COMPARED), likeness)


def _shown(name: str) -> str:
    text = printable(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
