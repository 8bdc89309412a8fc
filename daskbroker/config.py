"""Opening brokers: ``connect``, ``temp``, and what a pickled one is opened by."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import dask
import platformdirs

from .broker import DataBroker
from .core import registry
from .core.errors import ConfigError
from .sources.embedded import Database, EmbeddedEventSource, EmbeddedHeaderSource
from .sources.mongo import open_sources
from .sources.mongo.database import label_of

__all__ = ["connect", "temp"]

ENVIRONMENT = "DASKBROKER_URI"
MODES = ("r", "a")


def default_place() -> str:
    """Where :func:`connect` goes without an argument."""
    chosen = os.environ.get(ENVIRONMENT)
    return chosen or str(Path(platformdirs.user_data_dir("daskbroker", appauthor=False)) / "store")


def connect(
    uri: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    mode: str = "a",
    timezone: str | None = None,
) -> DataBroker:
    """Open a broker; the same one again while it is open in this process.

    Parameters
    ----------
    uri
        A folder, made if need be. None: ``$DASKBROKER_URI``, else a folder below the user's
        data directory.
    create
        False: only open what is there.
    mode
        ``"a"`` to read and insert, ``"r"`` to read only.
    timezone
        IANA name; by default ``daskbroker.timezone`` of dask's configuration, else UTC.

    Raises
    ------
    StoreNotFound, StoreVersion, StoreDamaged, StoreReadOnly, ConfigError
    """
    if mode not in MODES:
        raise ConfigError(f"mode must be 'a' (read and insert) or 'r' (read), not {mode!r}")
    place = os.fspath(default_place() if uri is None else uri)
    scheme, separator, rest = place.partition("://")
    zone = timezone or dask.config.get("daskbroker.timezone", "UTC")
    if scheme in ("mongodb", "mongodb+srv"):
        settings = {"mongo": {"uri": place}, "mode": mode, "timezone": zone}
        key = json.dumps(settings, sort_keys=True)
        found = registry.known(key)
        return _open(key) if found is None else found
    if separator and scheme != "file":
        raise ConfigError(f"{scheme}:// is no store that this version opens; give a folder")
    if separator:
        place = rest.removeprefix("localhost")
    root = str(Path(place).expanduser().resolve())
    key = json.dumps({"embedded": root, "mode": mode, "timezone": zone}, sort_keys=True)
    found = registry.known(key)
    if found is not None and Path(root).exists():
        return found  # type: ignore[no-any-return]
    return _open(key, create=create)


def _open(key: str, *, create: bool = False) -> DataBroker:
    settings = json.loads(key)
    if "mongo" in settings:
        sources = open_sources(settings)
        uri = label_of(settings["mongo"]["uri"])
        return DataBroker(*sources, timezone=settings["timezone"], uri=uri, key=key)
    root = Path(settings["embedded"])
    read_only = settings["mode"] == "r"
    database = Database.of(root, create=create, read_only=read_only)
    return DataBroker(
        EmbeddedHeaderSource(database),
        {"embedded": EmbeddedEventSource(database)},
        timezone=settings["timezone"],
        uri=str(root),
        key=key,
    )


registry.register_opener(_open)


def temp(**options: Any) -> DataBroker:
    """A broker on a new folder that is deleted with it, at the latest when Python ends.

    Parameters
    ----------
    **options
        As for :func:`connect`.
    """
    folder = tempfile.mkdtemp(prefix="daskbroker-")
    broker = connect(folder, **options)
    weakref.finalize(broker, _remove, folder, os.getpid())
    return broker


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
