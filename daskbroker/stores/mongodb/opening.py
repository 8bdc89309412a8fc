"""Opening a MongoDB store from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.errors import ConfigError
from ..base import EventSource, HeaderSource
from .database import Database
from .embedded_events import EmbeddedLayoutEventSource
from .embedded_headers import EmbeddedLayoutHeaderSource
from .events import MongoEventSource
from .headers import MongoHeaderSource

__all__ = ["open_sources"]

LAYOUTS = ("auto", "normalized", "embedded")
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
    origin = (settings["origin"], NAME) if "origin" in settings else None
    release = database.lease()
    try:
        database.check_format()
        if _layout(database, mongo.get("layout") or "auto") == "embedded":
            source = EmbeddedLayoutEventSource(database, origin)
            return EmbeddedLayoutHeaderSource(database), {NAME: source}
        return MongoHeaderSource(database), {NAME: MongoEventSource(database, origin)}
    finally:
        release()  # the sources, if there are any now, have leases of their own


def _layout(database: Database, layout: str) -> str:
    """The layout of a database; a new one is to be normalized."""
    if layout not in LAYOUTS:
        raise ConfigError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    if layout != "auto":
        return layout
    names = database.collection_names()
    return "embedded" if "header" in names and "run_start" not in names else "normalized"
