"""The interface of stores of descriptors, events, and references to detector files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import pyarrow as pa

from ..core.bad_runs import BadRun
from ..core.bulk import expand_bulk
from ..core.chunks import ChunkPlan, ChunkReader
from ..core.damage import Damage
from ..core.documents import ALL, Document, StreamName
from ..core.errors import UnknownReference
from ..core.external import external_keys
from ..core.layouts import (
    DATUM,
    EVENT,
    LAYOUTS,
    REFERENCES,
    STREAM_DATUM,
    STREAM_RESOURCE,
    Layout,
    decode_rows,
    rows_of_page,
)
from ..core.peeks import Peek
from ..core.plan_builder import with_frames
from ..core.run_plan import RunPlan, frame_spans
from ..core.validate import check_keys, document_label
from .already_stored import unknown_run
from .backing_up import BackupSource
from .checking import EventChecks, check_document
from .full_disk import repeat_if_full
from .unfilling import Unfilling, prepared

_NO_LIMIT = nullcontext()  # one serves all inserts, as it has no state


class EventStore(EventChecks, ABC):
    """Store of the descriptors, events and references of runs, kept as chunks.

    A store implements the primitives, at least the abstract ones; the rules of inserting and the
    planning of runs are built on them here. The methods for users, such as documents and
    datasets of a run, are those of :class:`daskbroker.event_source.EventSource`.
    """

    reader: ChunkReader
    """Reader of the store's chunks; it pickles, so workers can use it."""

    opens_on_workers: bool = False
    """Whether workers may open the store itself, and not only read chunks by their keys."""

    @property
    def is_in_place(self) -> bool:
        """Whether the store's path still leads to what was opened, and not to a replacement."""
        return True

    @property
    def is_noted(self) -> bool:
        """Whether :attr:`store_id` is final; in some stores it is only once something is stored."""
        return True

    def insert_limit(self) -> AbstractContextManager[None]:
        """Return a context that bounds the total time of one insert; no bound by default."""
        return _NO_LIMIT

    def make_room(self) -> bool:
        """Return whether an insert that was a StoreFull may have room now; False by default."""
        return False

    def prepare_writing(self) -> None:
        """Prepare for events to be written; called before each write. Does nothing by default."""
        return

    # -- primitives --------------------------------------------------------------------------

    @property
    @abstractmethod
    def store_id(self) -> str:
        """Identity of the store: the same text in every process and at any time."""

    @abstractmethod
    def put_run(self, uid: str) -> None:
        """Register a run, before anything else of it is stored; do nothing if it is known."""

    @abstractmethod
    def has_run(self, uid: str) -> bool:
        """Return whether the store knows a run."""

    @abstractmethod
    def current_run(self) -> str | None:
        """Return the uid of the newest run the store knows, or None if it knows none."""

    def stop_run(self, uid: str) -> None:
        """Seal the journal of a run that has stopped.

        When this has returned, the run survives a loss of power. The stop document is stored
        afterwards, so a reader that sees it finds all events.
        """
        self.seal(uid)

    @abstractmethod
    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        """Store a validated descriptor of a known run durably; do nothing if it is stored.

        Raises
        ------
        DuplicateUID
            If a different descriptor has this uid; see :func:`is_repeated`.
        """

    def put_asset(self, layout: Layout, doc: Mapping[str, Any], run: str) -> None:
        """Store a validated resource or stream_resource of a known run, to be found by its uid.

        In plans it is a row like any other. Several runs may have a resource of the same uid.
        """
        self.append(layout, run, [doc], run)

    @abstractmethod
    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        """Return the uid of the run that has a resource, or None if no run has it.

        Parameters
        ----------
        layout
            Layout of the resource: that of resources or of stream_resources.
        uid
            Uid of the resource.
        run
            Uid of the run to prefer; otherwise the newest run that has the resource is returned.
        """

    @abstractmethod
    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        """Append validated rows to a sequence durably, all of them or none.

        Rows that the run has already (of the same kind and uid) are left out; see
        :func:`new_rows`. When this has returned, the rows survive the death of the process.

        Parameters
        ----------
        layout
            Layout of the rows; ``row[layout.uid]`` is a row's identity.
        owner
            Name of the sequence: uid of the descriptor for events, of the run for references.
        rows
            Rows to append, at least one; cells may be NumPy arrays.
        run
            Uid of a known run.

        Raises
        ------
        DuplicateUID
            If a different row of the run has the uid of one of these.
        """

    def append_page(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> None:
        """Append the rows of a validated page as :meth:`append` does: all of them or none.

        By default the page is split into rows; a store that can keep columns overrides this.
        """
        self.append(layout, owner, rows_of_page(layout, page), run)

    def append_table(self, owner: str, table: pa.Table, run: str) -> None:
        """Append validated events of a descriptor that are encoded as a chunk.

        By default the chunk is decoded into rows; a store that can keep chunks overrides this.

        Parameters
        ----------
        owner
            Uid of the descriptor.
        table
            Events encoded by :func:`~daskbroker.core.layouts.encode_page` or ``encode_rows``.
        run
            Uid of a known run.

        Raises
        ------
        DuplicateUID
            As for :meth:`append`.
        """
        self.append(EVENT, owner, decode_rows(EVENT, table, owner), run)

    @abstractmethod
    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """Return a plan of the chunks of events of some descriptors, in the given order.

        No payload is read. Rows that are in no chunk yet are carried in the plan. Each row is in
        exactly one chunk of the plan, whatever is sealed meanwhile. Few requests are made, however
        many descriptors there are. A plan is made with a
        :class:`~daskbroker.core.plan_builder.PlanBuilder`, which also records the runs of which
        something cannot be read.
        """

    @abstractmethod
    def find_descriptor(self, uid: str) -> Document | None:
        """Return the descriptor with a uid, or None."""

    @abstractmethod
    def list_descriptors(
        self, runs: Sequence[str], stream_name: StreamName = ALL
    ) -> Sequence[Document | BadRun]:
        """Return the descriptors of runs, ordered as the runs, and by time within a run.

        In place of a descriptor that cannot be read there is a
        :class:`~daskbroker.core.bad_runs.BadRun` with the uid of its run.

        Parameters
        ----------
        runs
            Uids of runs; those of unknown runs are allowed.
        stream_name
            Name of the stream whose descriptors are wanted, or ``ALL``.
        """

    @abstractmethod
    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        """Return plans of the chunks of references, by kind, in the order of insertion.

        In place of descriptors, a plan has one owner for each run, in the given order; see
        :class:`~daskbroker.core.run_plan.RunPlan`.

        Parameters
        ----------
        layouts
            Layouts of the kinds of references wanted; their ``kind`` is the key of the result.
        runs
            Uids of runs; those of unknown runs are allowed.
        """

    @abstractmethod
    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """Pack the rows in the journal, of one run or of all, into chunks.

        Parameters
        ----------
        run
            Uid of the run; every run if None. Of all runs, those that cannot be read are left as
            they are, each with a :class:`daskbroker.BadRunWarning`.
        keep_journal
            Leave the rows in the journal too, for other readers of it.

        Returns
        -------
        int
            Number of chunks made.

        Raises
        ------
        StoreDamaged
            If the given run, or part of it, cannot be read.
        BadQuery
            If ``keep_journal`` is given, and no other program can read the store's journal.
        """

    # -- what detector files say -------------------------------------------------------------

    def list_peeks(self, runs: Sequence[str]) -> list[Peek]:
        """Return what is remembered of the detector files of runs; empty by default."""
        return []

    def find_peeks(self, sorts: Sequence[str]) -> list[Peek]:
        """Return one remembered peek of each sort, of any run; none for an unknown sort."""
        return []

    def put_peeks(self, peeks: Sequence[Peek]) -> None:
        """Remember what was found in detector files, replacing what was remembered of them.

        Nothing else changes. A store that cannot be written, or keeps no peeks, does nothing.
        """
        return

    def close(self) -> None:
        """Release connections; may be called again. Does nothing by default."""
        return

    def flush(self) -> None:
        """Return once others see everything that was inserted; in most stores at once."""
        return

    def create_indexes(self) -> list[str]:
        """Create missing indexes and return their names; by default there are none to create."""
        return []

    @property
    def format_version(self) -> int | None:
        """Number of the store's format; None if none is noted, as by other writers."""
        return None

    def stored_bytes(self) -> int | None:
        """Return the size of the store on disk in bytes, with its headers; None if not known."""
        return None

    backup_source: BackupSource | None = None
    """See :attr:`HeaderStore.backup_source`; the two are equal if they back up the same store."""

    # -- check: what plans and chunks do not show; see :mod:`.checking` ------------------------

    def check_descriptors(self, run: str) -> Iterator[Document | Damage]:
        """Yield the descriptors of a run, with a Damage in place of each that is not sound.

        A store in which one damaged descriptor hides the others overrides this.
        """
        for one in self.list_descriptors([run]):
            if isinstance(one, BadRun):
                yield Damage(one.reason, run=one.uid, path=one.where or None)
            else:
                yield check_document("descriptor", one) or one

    # -- insert ------------------------------------------------------------------------------

    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document durably; do nothing if the same one is stored.

        Parameters
        ----------
        name, doc
            Name and content of the document, as a RunEngine emits them; pages and the deprecated
            bulk documents are accepted too. An event that a broker has filled is stored in its
            unfilled form; see :mod:`daskbroker.stores.unfilling`.
        run
            Uid of the run that a resource without ``run_start`` belongs to; by default the
            newest run.

        Raises
        ------
        BadDocument
            If the document, or one of its fields, is not valid.
        UnknownReference
            If its run, descriptor or resource is not stored.
        DuplicateUID
            If a different document has this uid.
        """
        for one_name, one in expand_bulk(name, prepared(name, doc, lambda _: self)):
            self.insert_prepared(one_name, one, run=run)

    @cached_property
    def unfilling(self) -> Unfilling:
        """Converter of filled events into the form in which they are stored."""
        return Unfilling(self)

    def insert_prepared(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document that :func:`daskbroker.core.validate.prepare` has checked.

        The time it takes is bounded by :meth:`insert_limit`, except for a stop, which makes
        chunks.
        """
        with _NO_LIMIT if name == "stop" else self.insert_limit():
            repeat_if_full(self.make_room, self._insert_prepared, name, doc, run)

    def _insert_prepared(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        if name == "start":
            self.put_run(doc["uid"])
        elif name == "stop":
            self._check_run(name, doc, doc["run_start"])
            self.stop_run(doc["run_start"])
        elif name == "descriptor":
            self._check_run(name, doc, doc["run_start"])
            self.put_descriptor(doc)
        elif name in ("resource", "stream_resource"):
            # Resources of older event-models do not name their run: they belong to the newest one.
            owner = doc.get("run_start") or run or self.current_run()
            self._check_run(name, doc, owner)
            self.put_asset(LAYOUTS[name], doc, str(owner))
            self.unfilling.note(str(owner), name, doc)
        elif name in ("event", "event_page", "event_rows"):
            self._insert_events(name, doc)
        else:
            self._insert_references(name, doc, run)

    def _check_run(self, name: str, doc: Mapping[str, Any], uid: str | None) -> None:
        if uid is None or not self.has_run(uid):
            raise unknown_run(name, doc, uid)

    def _insert_events(self, name: str, doc: Mapping[str, Any]) -> None:
        descriptor = self.find_descriptor(doc["descriptor"])
        rows = doc["rows"] if name == "event_rows" else [doc]
        if descriptor is None:
            raise UnknownReference(
                f"{document_label('event', rows[0])}: its descriptor {doc['descriptor']!r} is not "
                "stored; insert it first"
            )
        known = descriptor["data_keys"].keys()
        for row in rows:
            for part in ("data", "timestamps"):
                if not row[part].keys() <= known:
                    label = document_label("event", row)
                    check_keys(row[part], known, label, descriptor["uid"])
        if name != "event_page":
            self.append(EVENT, descriptor["uid"], rows, descriptor["run_start"])
        elif len(doc["uid"]):
            self.append_page(EVENT, descriptor["uid"], doc, descriptor["run_start"])

    def _insert_references(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        layout = STREAM_DATUM if name == "stream_datum" else DATUM
        owner = self.find_asset_run(LAYOUTS[layout.owner], doc[layout.owner], run)
        if owner is None:
            raise UnknownReference(
                f"{document_label(name, doc)}: its {layout.owner} {doc[layout.owner]!r} is not "
                "stored; insert it first"
            )
        if name == "stream_datum" and self.find_descriptor(doc["descriptor"]) is None:
            raise UnknownReference(
                f"{document_label(name, doc)}: its descriptor {doc['descriptor']!r} is not stored"
            )
        if name == "datum_page":
            if len(doc["datum_id"]):
                self.append_page(layout, owner, doc, owner)
        else:
            self.append(layout, owner, doc["rows"] if name == "datum_rows" else [doc], owner)
        self.unfilling.note(owner, name, doc)

    # -- planning ----------------------------------------------------------------------------

    def descriptors_of(self, runs: Sequence[str], stream_name: StreamName = ALL) -> list[Document]:
        """Return the descriptors of runs, as :meth:`list_descriptors`, all of them readable.

        Raises
        ------
        StoreDamaged
            If one of them cannot be read.
        """
        found: list[Document] = []
        for one in self.list_descriptors(runs, stream_name):
            if isinstance(one, BadRun):
                raise one.error()
            found.append(one)
        return found

    def plan_runs(
        self,
        runs: Sequence[str],
        stream_name: StreamName = ALL,
        *,
        references: bool | Callable[[Sequence[Document]], Sequence[str]] = False,
    ) -> RunPlan:
        """Plan the chunks of some runs, without reading a payload.

        Parameters
        ----------
        runs
            Uids of runs; those of unknown runs are allowed.
        stream_name
            Name of one stream, or ``ALL``.
        references
            Whether to plan the references of all the runs (True) or of none (False), or a
            function that takes the descriptors and returns the uids of the runs to plan
            references of.

        Returns
        -------
        RunPlan
            Plans of events and references, and the runs that cannot be read. A descriptor that
            has no events but stream_datum documents has a row for each ``seq_num`` that they
            name; the time of such a row is not known.
        """
        listed = self.list_descriptors(runs, stream_name)
        unlisted = {str(one.uid): one for one in listed if isinstance(one, BadRun)}
        descriptors = [
            one
            for one in listed
            if not isinstance(one, BadRun) and one["run_start"] not in unlisted
        ]
        events = self.plan_events(descriptors)
        # References are inserted before the events that need them, so references that are planned
        # after the events include all that these need, even while the runs are written.
        if callable(references):
            chosen = list(references(descriptors))
        else:
            chosen = list(runs) if references else []
        planned = self.plan_references(REFERENCES, chosen) if chosen else {}

        def spans_of(some: Sequence[str]) -> Iterable[tuple[str, str, range]]:
            known = planned if set(some) <= set(chosen) else None
            plans = known or self.plan_references((STREAM_RESOURCE, STREAM_DATUM), some)
            datums, resources = (plans[x.kind] for x in (STREAM_DATUM, STREAM_RESOURCE))
            spans, bad = frame_spans(datums, resources)
            unlisted.update({**datums.bad, **bad})
            return spans

        peeks = self.list_peeks(chosen) if chosen and any(map(external_keys, descriptors)) else []
        return RunPlan(tuple(runs), with_frames(events, spans_of), planned, tuple(peeks), unlisted)
