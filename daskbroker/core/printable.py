"""Text of documents for display: on one line, without effect on the terminal that shows it."""

from __future__ import annotations

__all__ = ["printable", "shortened"]


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


def shortened(text: str, most: int) -> str:
    """Return a text, or its beginning and its end if it has more than ``most`` characters."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"
