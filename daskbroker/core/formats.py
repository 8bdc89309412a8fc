"""Format numbers of stores and spools: older formats are read, newer ones are refused.

An embedded store keeps the number as ``user_version`` of its SQLite file, a MongoDB store in the
collection ``daskbroker_meta``, a spool at the beginning of its file. Without a number the format is
1. Chunks, packs and manifests have no number of their own: their format is that of their store. So
a change to any of them raises the number of the store, and comes with fixtures of the new format
(``tests/data/write_stores.py``). In addition, a chunk or manifest with a column of an unknown kind
is refused rather than misread.
"""

from __future__ import annotations

from typing import Any

from .errors import StoreDamaged, StoreVersion

__all__ = ["check_format"]


def check_format(place: str, found: Any, known: int) -> None:
    """Check that this daskbroker knows a format.

    Parameters
    ----------
    place
        Name of what has the format, as the beginning of a sentence.
    found
        Number of its format, as it was read.
    known
        Number of the newest known format.

    Raises
    ------
    StoreVersion
        If the format is newer.
    StoreDamaged
        If ``found`` is not a valid number of a format.
    """
    if isinstance(found, float) and found.is_integer():
        found = int(found)  # MongoDB's shell writes numbers as floats
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise StoreDamaged(f"{place} is damaged: {found!r} is not a format number")
    if found > known:
        raise StoreVersion(
            f"{place} is of format {found}; this daskbroker knows formats up to {known}: install a "
            "newer daskbroker to open it"
        )
