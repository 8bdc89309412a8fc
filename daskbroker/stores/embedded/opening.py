"""Opening an embedded store from settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract import Opened
from .database import Database
from .events import EmbeddedEventStore
from .headers import EmbeddedHeaderStore

__all__ = ["open_store"]


def open_store(settings: Mapping[str, Any], *, create: bool = True) -> Opened:
    """Open the store in the folder ``settings["embedded"]``; see :mod:`daskbroker.stores.openers`.

    Raises
    ------
    StoreNotFound, StoreVersion, StoreDamaged, StoreReadOnly, StoreFull
    """
    read_only = settings.get("mode", "a") == "r"
    database = Database.of(
        Path(settings["embedded"]),
        create=create,
        read_only=read_only,
        link=settings.get("link"),
    )
    return Opened(EmbeddedHeaderStore(database), {"embedded": EmbeddedEventStore(database)})
