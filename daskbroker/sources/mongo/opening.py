"""Opening a MongoDB store from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import EventSource, HeaderSource
from .database import Database
from .events import MongoEventSource
from .headers import MongoHeaderSource

__all__ = ["open_sources"]

NAME = "mongo"
"""Of the one event source."""


def open_sources(settings: Mapping[str, Any]) -> tuple[HeaderSource, dict[str, EventSource]]:
    """Header source and event sources of a store, the latter by name.

    Parameters
    ----------
    settings
        ``{"mongo": {"uri": …, "assets": uri or None, "layout": …}, "mode": "r" or "a"}``; the
        layout is ``"normalized"``, ``"embedded"`` or ``"auto"`` (the default), which looks. With
        ``"origin"``, key of the broker, readers pickle as that and not as these uris.

    Raises
    ------
    ConfigError, StoreUnavailable, StoreVersion, StoreReadOnly
    """
    mongo = settings["mongo"]
    read_only = settings.get("mode", "a") == "r"
    database = Database.of(mongo["uri"], mongo.get("assets"), read_only=read_only)
    try:
        database.check_format()
    except BaseException:
        database.close()
        raise
    origin = settings.get("origin")
    events = MongoEventSource(database, None if origin is None else (origin, NAME))
    return MongoHeaderSource(database), {NAME: events}
