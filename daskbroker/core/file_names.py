"""File names for uids and stream names, which may be any text."""

from __future__ import annotations

import re

from .digests import digest_of


def file_name(text: str) -> str:
    """Return the text if it is safe as a file name, else ``~`` and a hash of it.

    Safe are 1 to 64 ASCII letters, digits, ``_`` and ``-``.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        return text
    return "~" + digest_of(text, 12)
