"""Text of documents for display: on one line, without effect on the terminal that shows it."""

from __future__ import annotations

__all__ = ["printable"]


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
