"""Backups of stores that can copy themselves while they are being written."""

from __future__ import annotations

import os
from pathlib import Path

from ..broker import DataBroker
from ..core import advice
from ..core.arguments import PATH, accepts, instance
from ..core.errors import BadQuery
from ..stores.backing_up import BackupReport

__all__ = ["BackupReport", "backup"]


_BROKER = instance("a broker, as daskbroker.connect(place) opens it", DataBroker)


@accepts(db=_BROKER, folder=PATH)
def backup(db: DataBroker, folder: str | os.PathLike[str]) -> BackupReport:
    """Copy a whole store, as it is at one instant; the store may be written meanwhile.

    The copy is a store itself: ``daskbroker.connect(folder)`` opens it. Once this function has
    returned, the copy survives a loss of power. Detector files are not part of it.

    Parameters
    ----------
    db
        Broker on an embedded store. The store may be opened read-only.
    folder
        Path of the copy. Nothing may exist there yet.

    Returns
    -------
    BackupReport
        Report that lists the files of the store that are damaged and could not be copied.

    Raises
    ------
    StoreExists
        If ``folder`` already exists.
    BadQuery
        If the store cannot make backups. MongoDB has its own tools for that.
    StoreFull, StoreReadOnly, StoreError
        If the copy cannot be written. Nothing is left at ``folder`` in that case.
    """
    stores = [source.store for source in db.event_sources]
    sources = {db.header_source.store.backup_source, *(store.backup_source for store in stores)}
    source = sources.pop()
    if source is None or sources:
        raise BadQuery(
            f"{db.uri or 'this broker'}: only an embedded store can be backed up; use "
            f"mongodump for MongoDB, or {advice.call('copy')} to copy the runs of any store into "
            "an embedded one"
        )
    return source.back_up(Path(folder))
