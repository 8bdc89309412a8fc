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


def check_format(subject: str, version: Any, known: int) -> None:
    """Check that this daskbroker knows a format.

    Parameters
    ----------
    subject
        Name of what has the format, as the beginning of a sentence.
    version
        Number of its format, as it was read.
    known
        Number of the newest known format.

    Raises
    ------
    StoreVersion
        If the format is newer.
    StoreDamaged
        If ``version`` is not a valid number of a format.
    """
    if isinstance(version, float) and version.is_integer():
        version = int(version)  # MongoDB's shell writes numbers as floats
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise StoreDamaged(f"{subject} is damaged: {version!r} is not a format number")
    if version > known:
        raise StoreVersion(
            f"{subject} is of format {version}; this daskbroker knows formats up to {known}: "
            "install a newer daskbroker to open it"
        )
