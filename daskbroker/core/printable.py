"""Text of documents for display: on one line, without effect on the terminal that shows it."""

from __future__ import annotations

import re

MARK = " … "
"""What stands for the middle of a text that is too long."""
MAX_MESSAGE_LENGTH = 4000
"""Maximum characters of an error or a warning."""
MAX_WORD_LENGTH = 1000
"""Maximum characters of a word in it, such as a name from a document."""
MAX_SHOWN_LENGTH = 200
"""Maximum characters of a value in a message."""

_LONG_WORD = re.compile(rf"\S{{{MAX_WORD_LENGTH + 1},}}")


def printable(text: object) -> str:
    r"""Return a text with everything but visible characters and spaces escaped as in ``repr``.

    Escape sequences of terminals, C1 codes, marks that change the direction of writing, newlines
    and lone surrogates become ``\x1b``, ``\x9b``, ``\u202e``, ``\n``, ``\ud800``. All text of a
    document that goes to a terminal, or into an error or a warning, passes through here.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def counted(count: int, noun: str) -> str:
    """Return a number with a noun whose plural ends in s: ``1 run``, ``2,000 runs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def without_middle(text: str, most: int) -> str:
    """Return a text, or its beginning and its end if it has more than ``most`` characters."""
    half = (most - len(MARK)) // 2
    return text if len(text) <= most else f"{text[:half]}{MARK}{text[-half:]}"


def message_text(text: object) -> str:
    """Return the text of an error or a warning: printable, and of bounded length.

    Long words lose their middle, and so does the text if it is still too long.
    """
    text = printable(text)
    if len(text) <= MAX_WORD_LENGTH:
        return text
    text = _LONG_WORD.sub(lambda word: without_middle(word[0], MAX_WORD_LENGTH), text)
    return without_middle(text, MAX_MESSAGE_LENGTH)


def shown(value: object, most: int = MAX_SHOWN_LENGTH) -> str:
    """Return any value as a message shows it: its ``repr`` if that is short, else what it is.

    Of a large mapping or list only the number of items is told, of a long text the beginning and
    the end, of anything else the beginning and the type.
    """
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply to be shown"
    except Exception:  # repr of a user's object may raise anything
        text = ""
    if text and len(text) <= most:
        return text
    if isinstance(value, (dict, list)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)} items"
    if isinstance(value, str):
        return without_middle(text, most)
    return f"{text[:most]}… of type {type(value).__name__}"
