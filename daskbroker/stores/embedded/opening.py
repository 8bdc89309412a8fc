"""Opening an embedded store from settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract import Opened
from .creation import remove_if_empty
from .database import FILE_NAME, Database
from .events import EmbeddedEventStore
from .headers import EmbeddedHeaderStore


def holds_store(folder: str | os.PathLike[str]) -> bool:
    """Return whether there is an embedded store in a folder, damaged or not."""
    return Path(folder, FILE_NAME).exists()


def remove_empty_store(folder: str | os.PathLike[str]) -> bool:
    """Remove a closed store without runs from its folder; return whether it was removed.

    A folder without a store, or with one that has runs or is open elsewhere, is left as it is.
    """
    return holds_store(folder) and remove_if_empty(Path(folder, FILE_NAME))


def open_store(settings: Mapping[str, Any], *, create: bool = True) -> Opened:
    """Open the store in the folder ``settings["embedded"]``; see :mod:`daskbroker.stores.openers`.

    Raises
    ------
    StoreNotFound, StoreVersion, StoreDamaged, StoreReadOnly, StoreFull
        As for :class:`~daskbroker.stores.embedded.database.Database`.
    """
    read_only = settings.get("mode", "a") == "r"
    database = Database.of(
        Path(settings["embedded"]),
        create=create,
        read_only=read_only,
        link=settings.get("link"),
    )
    return Opened(EmbeddedHeaderStore(database), {"embedded": EmbeddedEventStore(database)})
