"""Text of documents where people see it: one line, without effect on what shows it."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: object) -> str:
    r"""A text with all that is not a visible sign or a plain space escaped, as ``repr`` does it.

    Escape sequences of terminals, C1 codes, marks that turn the direction of writing, newlines
    and lone surrogates come as ``\x1b``, ``\x9b``, ``\u202e``, ``\n``, ``\ud800``. Whatever of a
    document goes to a terminal, into an error or a warning, goes through here.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
