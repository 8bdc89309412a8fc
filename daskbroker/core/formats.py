"""Formats of what is stored: older ones are read, a newer one is refused by name.

A number says of which format something is. An embedded store has it as ``user_version`` of its
SQLite file, a MongoDB store in the collection ``daskbroker_meta``, a spool at the beginning of its
file. What has none is of format 1. Chunks, packs and manifests have no number of their own: they
are of the format of their store. So whoever changes one of them raises the number of the store, and
adds fixtures of the new format (``tests/data/write_stores.py``). A chunk, or a manifest, with a
column of a kind that is not known is refused all the same, rather than misread.
"""

from __future__ import annotations

from typing import Any

from .errors import StoreDamaged, StoreVersion

__all__ = ["check_format"]


def check_format(place: str, found: Any, known: int) -> None:
    """Refuse what is of a format that this daskbroker does not know.

    Parameters
    ----------
    place
        What it is, to begin a sentence with.
    found
        The number of its format.
    known
        The newest format that is known.

    Raises
    ------
    StoreVersion
        If it is newer.
    StoreDamaged
        If it is no number of a format.
    """
    if isinstance(found, float) and found.is_integer():
        found = int(found)  # MongoDB's shell writes numbers so
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise StoreDamaged(f"{place} is damaged: {found!r} is no number of a format")
    if found > known:
        raise StoreVersion(
            f"{place} is of format {found}; this daskbroker knows formats up to {known}: install a "
            "newer daskbroker to open it"
        )
