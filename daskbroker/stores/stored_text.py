"""Text of documents as databases can hold it."""

from __future__ import annotations


def storable(text: str) -> str:
    """Return text with lone surrogates escaped, as SQLite and BSON hold no others.

    Uids are stored and looked up in this form.
    """
    if text.isascii():
        return text
    return text.encode("utf8", "backslashreplace").decode()
