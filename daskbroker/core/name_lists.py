"""Lists of names in messages: all if there are few, else the nearest to what was requested."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from difflib import SequenceMatcher, get_close_matches
from heapq import nlargest
from itertools import islice

from .printable import printable, without_middle

MAX_NAMES = 10
"""Maximum number of names that are shown; up to twice as many are shown if these are all."""
MAX_NAME_LENGTH = 80
"""Maximum characters of a name that is shown or compared."""
LIKE = 0.8
"""Least likeness, of 1, of a name and a wrong spelling of it."""
NEAR = 0.7
"""Least likeness, of 1, of a name that is suggested instead of another."""
LEAST_PART = 3
"""Minimum characters of text that counts as the beginning or end of a name."""
COMPARED = 2000
"""Maximum number of names that are compared with what was requested; each takes 50 us."""


def listed(names: Iterable[object], asked: object = None, *, none: str = "none") -> str:
    """Return names as a message lists them: all if there are few, else the nearest and a count.

    Parameters
    ----------
    names
        The names, in the order in which they are listed if there are few, or ``asked`` is None.
    asked
        Name that was requested.
    none
        Text to return if there are no names.
    """
    every = [str(name) for name in names]
    if not every:
        return none
    chosen, rest = every, ""
    if len(every) > 2 * MAX_NAMES:
        chosen = every[:MAX_NAMES] if asked is None else _nearest(every, asked, MAX_NAMES)
        rest = f", … ({len(every):,} in all)"
    return ", ".join(without_middle(printable(name), MAX_NAME_LENGTH) for name in chosen) + rest


def nearest(names: Collection[str], asked: str) -> str | None:
    """Return the name that is most similar to ``asked``, as a whole or in its part after a dot.

    Of equally similar names it is the first; None if no name is similar.
    """
    candidates = {name.rpartition(".")[2]: name for name in names}
    candidates |= {name: name for name in names}
    best = _nearest(candidates, asked, 1)
    return candidates[best[0]] if best and _likeness(asked)(best[0]) >= NEAR else None


def misspelled(names: Iterable[str], asked: str) -> str | None:
    """Return the name that ``asked`` may be a wrong spelling of; None if there is none.

    Case, spaces and punctuation count for nothing. Digits must be the same, as ``Ag-3`` and
    ``Ag-4`` are two samples.
    """
    digits = _digits(asked)
    alike = (name for name in islice(names, COMPARED) if _digits(name) == digits)
    by_letters = {_letters(name): name for name in sorted(alike, reverse=True)}
    letters = _letters(asked)
    near = get_close_matches(letters, by_letters, n=1, cutoff=LIKE)
    # In short words two letters in the wrong order make much of the difference.
    near = near or [name for name in by_letters if sorted(name) == sorted(letters)]
    return by_letters[near[0]] if near else None


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.casefold()))


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _nearest(names: Iterable[str], asked: object, most: int) -> list[str]:
    return nlargest(most, islice(names, COMPARED), _likeness(asked))


def _likeness(asked: object) -> Callable[[str], float]:
    """Return the likeness of names to one: 0 to 1, and 1 more if they begin or end with it."""
    text = str(asked)[:MAX_NAME_LENGTH].casefold()
    wanted = SequenceMatcher(None, "", text)

    def likeness(name: str) -> float:
        name = name[:MAX_NAME_LENGTH].casefold()
        wanted.set_seq1(name)
        is_part = len(text) >= LEAST_PART and (name.startswith(text) or name.endswith(text))
        return is_part + wanted.ratio()

    return likeness
