"""The dimensions of a scan, from the hints of its start document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def dimensions_of(start: Mapping[str, Any]) -> list[tuple[list[str], str]]:
    """Return the valid dimensions in the hints of a plan, as ``[([field, ...], stream), ...]``.

    A start that another program has stored may have hints of any form.
    """
    hints = start.get("hints")
    given = hints.get("dimensions") if isinstance(hints, Mapping) else None
    found = []
    for entry in given if isinstance(given, (list, tuple)) else ():
        if isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], str):
            names = entry[0] if isinstance(entry[0], (list, tuple)) else [entry[0]]
            fields = [name for name in names if isinstance(name, str)]
            if fields:
                found.append((fields, entry[1]))
    return found
