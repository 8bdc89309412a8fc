"""Names for the keys of graphs and tasks, which dask puts into HTML and SVG unescaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .digests import digest_of

UID_LETTERS = 8
"""Number of letters of a run's uid in names."""

_CLEAN = re.compile(r"[A-Za-z0-9_.:]{1,64}")


def graph_name(name: str) -> str:
    """Return a name of at most 64 letters, digits, ``_ . :`` as it is; of any other, a hash."""
    if _CLEAN.fullmatch(name):
        return name
    return digest_of(name, 8)


def runs_name(uids: Iterable[str]) -> str:
    """Return the beginning of the uid of one run, or the number of several runs."""
    runs = set(uids)
    return graph_name(runs.pop()[:UID_LETTERS]) if len(runs) == 1 else f"{len(runs)}.runs"
