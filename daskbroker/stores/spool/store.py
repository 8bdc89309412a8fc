"""A wrapper of any event store, whose events first wait in a spool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...core.chunks import ChunkPlan
from ...core.damage import Damage
from ...core.documents import Document
from ...core.interrupts import in_own_context
from ...core.layouts import EVENT, Layout, encode_page, event_metadata
from ...core.page_parts import is_columnar, page_parts
from ...core.settings import setting
from ..already_stored import stored_descriptor
from ..contract import EventStore
from .entries import Entry, joined_pages, rows_of_entries
from .sender import Sender, flush_all

LEAST_ROWS = 1000
"""Minimum number of rows that are sent as a table, and of a page that waits as one."""


def _of_store(name: str) -> Any:
    """Return a property that is the attribute of this name of the wrapped store."""
    return property(attrgetter(f"store.{name}"))


class SpooledEventStore(EventStore):
    """Event store that collects events in a local file and sends them to another store.

    An insert of events is done when they are in the file. About a tenth of a second later they
    are in the store, where others see them (:mod:`.sender`). All other documents go straight to
    the store. Reading and sealing wait until the store has all that this process has taken.

    Parameters
    ----------
    store
        Store that takes the events; to append the same events again must change nothing.
    folder
        Local folder of the spool's files.
    """

    def __init__(self, store: EventStore, folder: Path) -> None:
        self.store = store
        self._folder = folder
        self._sender: Sender | None = None

    # -- events ------------------------------------------------------------------------------

    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        if layout is EVENT:
            self.prepare_writing()
            self._spool().put(Entry(owner, rows, None))
        else:
            self.store.append(layout, owner, rows, run)

    def append_page(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> None:
        if layout is not EVENT or not is_columnar(layout, page, LEAST_ROWS):
            super().append_page(layout, owner, page, run)
            return
        self.prepare_writing()
        metadata = event_metadata(stored_descriptor(self.store, owner))
        for part in page_parts(EVENT, page):
            self._spool().put(Entry(owner, (), encode_page(EVENT, part, metadata)))

    def _spool(self) -> Sender:
        if self._sender is None:
            rows = setting("seal-rows")
            self._sender = Sender(self._folder, self.store.store_id, self._send, rows)
        return self._sender

    def _send(self, entries: Sequence[Entry]) -> None:
        """Store entries of one descriptor, many rows as a table, within the limit of an insert."""
        descriptor = stored_descriptor(self.store, entries[0].owner)
        many = sum(map(len, entries)) >= LEAST_ROWS
        with self.insert_limit():
            if many or any(entry.table is not None for entry in entries):
                table = joined_pages(entries, event_metadata(descriptor))
                self.store.append_table(descriptor["uid"], table, descriptor["run_start"])
            else:
                rows = rows_of_entries(entries)
                self.store.append(EVENT, descriptor["uid"], rows, descriptor["run_start"])

    def _settle(self) -> None:
        """Wait, before reading, until events of this process and of dead ones are stored."""
        if self.store.is_noted:  # else the id is not final, and no spool can have events for it
            self._spool()
        flush_all(self.store.store_id)

    def flush(self) -> None:
        self.prepare_writing()
        self._spool().flush()
        self.store.flush()

    @in_own_context
    def insert_prepared(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        super().insert_prepared(name, doc, run=run)

    # -- what waits for them -----------------------------------------------------------------

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        self._settle()
        return self.store.plan_events(descriptors)

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        """See :meth:`EventStore.plan_references`; in old databases, events lead to references."""
        self._settle()
        return self.store.plan_references(layouts, runs)

    def stop_run(self, uid: str) -> None:
        self.flush()
        self.store.stop_run(uid)

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        self.flush()
        return self.store.seal(run, keep_journal=keep_journal)

    def check_journal(self, run: str, descriptors: Sequence[Document]) -> Iterator[Damage]:
        self._settle()
        return self.store.check_journal(run, descriptors)

    def close(self) -> None:
        try:
            if self._sender is not None:
                self._sender.close()
        finally:
            self.store.close()

    # -- what does not concern them ----------------------------------------------------------

    format_version = _of_store("format_version")
    stored_bytes = _of_store("stored_bytes")  # the spool is not counted
    reader = _of_store("reader")
    opens_on_workers = _of_store("opens_on_workers")
    is_in_place = _of_store("is_in_place")
    store_id = _of_store("store_id")
    is_noted = _of_store("is_noted")
    prepare_writing = _of_store("prepare_writing")
    insert_limit = _of_store("insert_limit")
    put_run = _of_store("put_run")
    has_run = _of_store("has_run")
    current_run = _of_store("current_run")
    put_descriptor = _of_store("put_descriptor")
    find_descriptor = _of_store("find_descriptor")
    list_descriptors = _of_store("list_descriptors")
    put_asset = _of_store("put_asset")
    find_asset_run = _of_store("find_asset_run")
    list_peeks = _of_store("list_peeks")
    find_peeks = _of_store("find_peeks")
    put_peeks = _of_store("put_peeks")
    create_indexes = _of_store("create_indexes")
    check_descriptors = _of_store("check_descriptors")
    check_rest = _of_store("check_rest")
    list_runs = _of_store("list_runs")
    path_of = _of_store("path_of")
    tells_kinds = _of_store("tells_kinds")
    backup_source = _of_store("backup_source")
