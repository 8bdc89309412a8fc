"""Names in the keys of graphs and tasks, which dask puts into HTML and SVG as they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

__all__ = ["graph_name", "runs_name"]

UID_LETTERS = 8
"""Of a run's uid, in names."""

_CLEAN = re.compile(r"[A-Za-z0-9_.:]{1,64}")


def graph_name(name: str) -> str:
    """The name itself if it is of letters, digits, ``_ . :``; else its hash stands for it."""
    if _CLEAN.fullmatch(name):
        return name
    return hashlib.blake2b(name.encode("utf8", "surrogatepass"), digest_size=8).hexdigest()


def runs_name(uids: Iterable[str]) -> str:
    """The beginning of the uid of a run; of several runs, how many they are."""
    runs = set(uids)
    return graph_name(runs.pop()[:UID_LETTERS]) if len(runs) == 1 else f"{len(runs)}.runs"
