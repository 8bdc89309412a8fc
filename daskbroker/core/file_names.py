"""File names for uids and stream names, which may be any text."""

from __future__ import annotations

import re
from hashlib import blake2b

__all__ = ["file_name"]


def file_name(text: str) -> str:
    """Return the text if it is safe as a file name, else ``~`` and a hash of it.

    Safe are 1 to 64 ASCII letters, digits, ``_`` and ``-``.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        return text
    return "~" + blake2b(text.encode("utf8", "surrogatepass"), digest_size=12).hexdigest()
