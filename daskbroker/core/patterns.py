"""Regular expressions of users, which must be valid, not too long, and match within a second."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import regex

from .errors import BadQuery

LONGEST_PATTERN = 1000
"""Maximum characters of a pattern."""
PATTERN_SECONDS = 1.0
"""Maximum seconds of one search with a pattern."""
FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
"""Flags of regular expressions, by the letters of ``$options``."""


def flag_letters(flags: int) -> str:
    """Return the letters of those of :data:`FLAGS` that are set."""
    return "".join(letter for letter, flag in FLAGS.items() if flags & flag)


def search_pattern(pattern: Any, options: Any, where: str) -> Callable[[str], bool]:
    """Return a function that tells whether a text contains a match of a pattern.

    Raises
    ------
    BadQuery
        If the pattern or the options are not valid, or the pattern is too long. The returned
        function raises it if one call takes more than a second.
    """
    if not isinstance(options, str) or not set(options) <= FLAGS.keys():
        raise BadQuery(f"{where}: $options takes the letters imsx, not {options!r}")
    compiled = _compiled(pattern, options, where)

    def found(text: str) -> bool:
        began = time.monotonic()
        try:
            return compiled.search(text, timeout=PATTERN_SECONDS) is not None
        except TimeoutError:
            raise _too_slow(pattern, time.monotonic() - began, "one text", where) from None

    return found


def full_matches(pattern: str | re.Pattern[str], texts: Sequence[str], where: str) -> list[str]:
    """Return those of some texts that a pattern matches fully.

    Raises
    ------
    BadQuery
        If the pattern is not valid or too long, or all texts together take more than a second.
    """
    options = ""
    if isinstance(pattern, re.Pattern):
        options = flag_letters(pattern.flags) + ("a" if pattern.flags & re.ASCII else "")
        pattern = pattern.pattern
    compiled = _compiled(pattern, options, where)
    began = time.monotonic()
    found = []
    for text in texts:
        # The limit is for all texts together. It stays positive, as a negative one means none.
        left = PATTERN_SECONDS - (time.monotonic() - began)
        try:
            if compiled.fullmatch(text, timeout=max(left, 1e-6)) is not None:
                found.append(text)
        except TimeoutError:
            elapsed = time.monotonic() - began
            raise _too_slow(pattern, elapsed, f"{len(texts):,} names", where) from None
    return found


def _compiled(pattern: object, options: str, where: str) -> Any:
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        raise BadQuery(f"{where}: a pattern is text of at most {LONGEST_PATTERN} characters")
    flags = 0
    for letter in options:
        flags |= getattr(regex, letter.upper())
    try:
        return regex.compile(pattern, flags)
    except (regex.error, OverflowError, RecursionError) as error:
        raise BadQuery(f"{where}: {pattern!r} is not a valid regular expression: {error}") from None


def _too_slow(pattern: str, elapsed: float, what: str, where: str) -> BadQuery:
    return BadQuery(
        f"{where}: the pattern {pattern!r} took longer than {elapsed:.1f} s on {what}; simplify it"
    )
