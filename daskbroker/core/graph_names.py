"""Names in the keys of graphs and tasks, which dask puts into HTML and SVG as they are."""

from __future__ import annotations

import hashlib
import re

__all__ = ["graph_name"]

_CLEAN = re.compile(r"[A-Za-z0-9_.:]{1,64}")


def graph_name(name: str) -> str:
    """The name itself if it is of letters, digits, ``_ . :``; else its hash stands for it."""
    if _CLEAN.fullmatch(name):
        return name
    return hashlib.blake2b(name.encode("utf8", "surrogatepass"), digest_size=8).hexdigest()
