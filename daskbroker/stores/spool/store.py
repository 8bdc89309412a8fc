"""A wrapper of any event store, whose events first wait in a spool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ...core.bad_runs import BadRun
from ...core.chunks import ChunkPlan, ChunkReader
from ...core.damage import Damage
from ...core.documents import ALL, Document, StreamName
from ...core.interrupts import in_own_context
from ...core.layouts import EVENT, Layout, encode_page, event_metadata
from ...core.page_parts import is_columnar, page_parts
from ...core.peeks import Peek
from ...core.settings import setting
from ..already_stored import stored_descriptor
from ..backing_up import BackupSource
from ..contract import EventStore
from .sender import Entry, Sender, flush_all, joined_pages, rows_of_entries

__all__ = ["SpooledEventStore"]

LEAST_ROWS = 1000
"""Minimum number of rows that are sent as a table, and of a page that waits as one."""


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
        """See :meth:`EventStore.append`."""
        if layout is EVENT:
            self.prepare_writing()
            self._spool().put(Entry(owner, rows, None))
        else:
            self.store.append(layout, owner, rows, run)

    def append_page(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> None:
        """See :meth:`EventStore.append_page`."""
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
        """See :meth:`EventStore.flush`."""
        self.prepare_writing()
        self._spool().flush()
        self.store.flush()

    # -- what waits for them -----------------------------------------------------------------

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """See :meth:`EventStore.plan_events`."""
        self._settle()
        return self.store.plan_events(descriptors)

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        """See :meth:`EventStore.plan_references`; in old databases, events lead to references."""
        self._settle()
        return self.store.plan_references(layouts, runs)

    def stop_run(self, uid: str) -> None:
        """See :meth:`EventStore.stop_run`."""
        self.flush()
        self.store.stop_run(uid)

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """See :meth:`EventStore.seal`."""
        self.flush()
        return self.store.seal(run, keep_journal=keep_journal)

    def close(self) -> None:
        """See :meth:`EventStore.close`."""
        try:
            if self._sender is not None:
                self._sender.close()
        finally:
            self.store.close()

    # -- what does not concern them ----------------------------------------------------------

    @property
    def format_version(self) -> int | None:
        """See :attr:`EventStore.format_version`."""
        return self.store.format_version

    def stored_bytes(self) -> int | None:
        """See :meth:`EventStore.stored_bytes`; the spool is not counted."""
        return self.store.stored_bytes()

    @property
    def reader(self) -> ChunkReader:  # type: ignore[override]
        """See :attr:`EventStore.reader`."""
        return self.store.reader

    @property
    def opens_on_workers(self) -> bool:  # type: ignore[override]
        """See :attr:`EventStore.opens_on_workers`."""
        return self.store.opens_on_workers

    @property
    def is_in_place(self) -> bool:
        """See :attr:`EventStore.is_in_place`."""
        return self.store.is_in_place

    @property
    def store_id(self) -> str:
        """See :attr:`EventStore.store_id`."""
        return self.store.store_id

    @property
    def is_noted(self) -> bool:
        """See :attr:`EventStore.is_noted`."""
        return self.store.is_noted

    def prepare_writing(self) -> None:
        """See :meth:`EventStore.prepare_writing`."""
        self.store.prepare_writing()

    def insert_limit(self) -> AbstractContextManager[None]:
        """See :meth:`EventStore.insert_limit`."""
        return self.store.insert_limit()

    @in_own_context
    def insert_prepared(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """See :meth:`EventStore.insert_prepared`."""
        super().insert_prepared(name, doc, run=run)

    def put_run(self, uid: str) -> None:
        """See :meth:`EventStore.put_run`."""
        self.store.put_run(uid)

    def has_run(self, uid: str) -> bool:
        """See :meth:`EventStore.has_run`."""
        return self.store.has_run(uid)

    def current_run(self) -> str | None:
        """See :meth:`EventStore.current_run`."""
        return self.store.current_run()

    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        """See :meth:`EventStore.put_descriptor`."""
        self.store.put_descriptor(doc)

    def find_descriptor(self, uid: str) -> Document | None:
        """See :meth:`EventStore.find_descriptor`."""
        return self.store.find_descriptor(uid)

    def list_descriptors(
        self, runs: Sequence[str], stream_name: StreamName = ALL
    ) -> Sequence[Document | BadRun]:
        """See :meth:`EventStore.list_descriptors`."""
        return self.store.list_descriptors(runs, stream_name)

    def put_asset(self, layout: Layout, doc: Mapping[str, Any], run: str) -> None:
        """See :meth:`EventStore.put_asset`."""
        self.store.put_asset(layout, doc, run)

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        """See :meth:`EventStore.find_asset_run`."""
        return self.store.find_asset_run(layout, uid, run)

    def list_peeks(self, runs: Sequence[str]) -> list[Peek]:
        """See :meth:`EventStore.list_peeks`."""
        return self.store.list_peeks(runs)

    def find_peeks(self, sorts: Sequence[str]) -> list[Peek]:
        """See :meth:`EventStore.find_peeks`."""
        return self.store.find_peeks(sorts)

    def put_peeks(self, peeks: Sequence[Peek]) -> None:
        """See :meth:`EventStore.put_peeks`."""
        self.store.put_peeks(peeks)

    def create_indexes(self) -> list[str]:
        """See :meth:`EventStore.create_indexes`."""
        return self.store.create_indexes()

    def check_descriptors(self, run: str) -> Iterator[Document | Damage]:
        """See :meth:`EventStore.check_descriptors`."""
        return self.store.check_descriptors(run)

    def check_journal(self, run: str, descriptors: Sequence[Document]) -> Iterator[Damage]:
        """See :meth:`EventStore.check_journal`."""
        self._settle()
        return self.store.check_journal(run, descriptors)

    def check_rest(self) -> Iterator[Damage]:
        """See :meth:`EventStore.check_rest`."""
        return self.store.check_rest()

    def list_runs(self) -> Iterator[str]:
        """See :meth:`EventStore.list_runs`."""
        return self.store.list_runs()

    def path_of(self, key: Any) -> str | None:
        """See :meth:`EventStore.path_of`."""
        return self.store.path_of(key)

    def tells_kinds(self, key: Any) -> bool:
        """See :meth:`EventStore.tells_kinds`."""
        return self.store.tells_kinds(key)

    @property
    def backup_source(self) -> BackupSource | None:  # type: ignore[override]
        """See :attr:`EventStore.backup_source`."""
        return self.store.backup_source
