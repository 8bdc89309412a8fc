"""Opening a MongoDB store from settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.settings import setting
from ..contract import EventStore, Opened
from ..spool import SpooledEventStore
from .database import Database
from .events import MongoEventStore
from .headers import MongoHeaderStore
from .suitcase_embedded_events import SuitcaseEmbeddedEventStore
from .suitcase_embedded_headers import SuitcaseEmbeddedHeaderStore

NAME = "mongo"
"""Name of the event source."""


def open_store(settings: Mapping[str, Any], *, create: bool = True) -> Opened:
    """Open the store in a database; see :mod:`daskbroker.stores.openers`.

    Parameters
    ----------
    settings
        ``{"mongo": {"uri": …, "assets": uri or None, "layout": …}, "mode": "r" or "a"}``. The
        layout is ``"normalized"``, ``"embedded"`` or ``"auto"`` (the default), which detects it.
        If ``"origin"``, the key of the broker, is given, readers pickle as that key and not as
        these uris.
    create
        Ignored: the server creates a database with the first insert.

    Raises
    ------
    ConfigError
        If a uri is not valid.
    StoreUnavailable, StoreVersion, StoreReadOnly
        If the server does not answer, the format is too new, or access is refused.
    """
    mongo = settings["mongo"]
    read_only = settings.get("mode", "a") == "r"
    database = Database.of(mongo["uri"], mongo.get("assets"), read_only=read_only)
    origin = (settings["origin"], NAME) if "origin" in settings else None
    release = database.lease()
    try:
        database.check_format()
        if _layout(database, mongo.get("layout") or "auto") == "embedded":
            suitcase = SuitcaseEmbeddedEventStore(database, origin)
            return Opened(SuitcaseEmbeddedHeaderStore(database), {NAME: suitcase})
        events: EventStore = MongoEventStore(database, origin)
        folder = setting("mongo-spool")
        if folder and not read_only:
            events = SpooledEventStore(events, Path(folder).expanduser())
        return Opened(MongoHeaderStore(database), {NAME: events})
    finally:
        release()  # the stores have leases of their own; without any the database closes


def _layout(database: Database, layout: str) -> str:
    """Return the layout of a database. A new database becomes normalized."""
    if layout != "auto":
        return layout
    names = database.collection_names()
    return "embedded" if "header" in names and "run_start" not in names else "normalized"
