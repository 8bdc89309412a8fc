"""Backups of stores that can copy themselves while they are written."""

from __future__ import annotations

import os
from pathlib import Path

from ..broker import DataBroker
from ..core.errors import BadQuery
from ..stores.backing_up import BackupReport

__all__ = ["BackupReport", "backup"]


def backup(db: DataBroker, folder: str | os.PathLike[str]) -> BackupReport:
    """Make a copy of a whole store, as it is at one instant, while it is written.

    The copy is a store: ``daskbroker.connect(folder)`` opens it. It survives a loss of power when
    this has returned. Detector files are not part of it.

    Parameters
    ----------
    db
        On an embedded store; it may be opened to read only.
    folder
        Of the copy; there must be nothing.

    Returns
    -------
    BackupReport
        With files of the store that are damaged, so that they could not be copied.

    Raises
    ------
    StoreExists
        If there is something at ``folder``.
    BadQuery
        If the store makes no backups; that of MongoDB has tools of its own.
    StoreFull, StoreReadOnly, StoreError
        Nothing is left at ``folder`` then.
    """
    stores = [source.store for source in db.event_sources]
    sources = {db.header_source.store.backup_source, *(store.backup_source for store in stores)}
    source = sources.pop()
    if source is None or sources:
        raise BadQuery(
            f"{db!r}: a backup is made of one embedded store; of MongoDB mongodump makes one, and "
            "copy() takes the runs of any store into an embedded one"
        )
    return source.back_up(Path(folder))
