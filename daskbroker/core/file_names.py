"""File names for uids and names of streams, which may be any text."""

from __future__ import annotations

import re
from hashlib import blake2b

__all__ = ["file_name"]


def file_name(text: str) -> str:
    """The text itself where it is harmless as the name of a file, else a hash of it."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        return text
    return "~" + blake2b(text.encode("utf8", "surrogatepass"), digest_size=12).hexdigest()
