"""Opening a MongoDB store from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import EventSource, HeaderSource
from .database import Database
from .events import MongoEventSource
from .headers import MongoHeaderSource

__all__ = ["open_sources"]


def open_sources(settings: Mapping[str, Any]) -> tuple[HeaderSource, dict[str, EventSource]]:
    """Header source and event sources of a store, the latter by name.

    Parameters
    ----------
    settings
        ``{"mongo": {"uri": …, "assets": uri or None, "layout": …}, "mode": "r" or "a"}``; the
        layout is ``"normalized"``, ``"embedded"`` or ``"auto"`` (the default), which looks.

    Raises
    ------
    ConfigError, StoreUnavailable, StoreVersion, StoreReadOnly
    """
    mongo = settings["mongo"]
    read_only = settings.get("mode", "a") == "r"
    database = Database.of(mongo["uri"], mongo.get("assets"), read_only=read_only)
    database.check_format()
    return MongoHeaderSource(database), {"mongo": MongoEventSource(database)}
