"""The contract of stores: what one has to do, and what follows from that.

A store keeps start and stop documents (:class:`HeaderStore`), and all else of runs: descriptors,
events, and references to detector files (:class:`EventStore`). It knows nothing of Dask, of tables
and Datasets, or of how detector files are read.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa

from ..core.bad_runs import BadRun
from ..core.bulk import expand_bulk
from ..core.chunks import ChunkPlan, ChunkReader
from ..core.damage import Damage
from ..core.documents import ALL, Document, equal
from ..core.errors import DuplicateUID, UnknownReference
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
from ..core.planning import with_frames
from ..core.run_plan import RunPlan, frame_spans
from ..core.search import Search
from ..core.validate import check_keys, document_label
from .backing_up import BackupSource
from .checking import CheckedHeader, EventChecks, check_document, check_headers
from .unfilling import Unfilling, prepared

__all__ = [
    "FARTHEST",
    "EventStore",
    "FoundHeader",
    "HeaderPair",
    "HeaderStore",
    "Opened",
    "is_repeated",
    "is_whole_number",
    "new_rows",
    "unknown_run",
]

FARTHEST = 2**62
"""No store has so many runs; what SQLite and MongoDB take for a number of them."""

HeaderPair = tuple[Document, Document | None]
"""Start and stop of a run; stop is None while there is none."""
FoundHeader = HeaderPair | BadRun
"""What a search finds: a run, or what stands in for one that cannot be read."""


def is_whole_number(key: Any) -> bool:
    """An int, NumPy's included, but no bool."""
    return isinstance(key, numbers.Integral) and not isinstance(key, bool)


def is_repeated(name: str, doc: Mapping[str, Any], there: Mapping[str, Any] | None) -> bool:
    """Whether a document is stored already; every store asks before it puts one.

    Parameters
    ----------
    name, doc
        What comes in.
    there
        What is stored under its uid (of a stop: for its run); None if nothing is.

    Raises
    ------
    DuplicateUID
        If a different document is.
    """
    if there is None or equal(there, doc):
        return there is not None
    what = "run" if name == "start" else name
    of_run = " or for its run" if name == "stop" else ""
    raise DuplicateUID(
        f"{document_label(name, doc)}: a different {what} is stored under this uid{of_run}"
    )


def new_rows(
    layout: Layout,
    rows: Sequence[Mapping[str, Any]],
    stored: Callable[[str], Mapping[str, Any] | None],
) -> list[Mapping[str, Any]]:
    """Those of some rows that are not stored yet, each once.

    Parameters
    ----------
    layout, rows
        As :meth:`EventStore.append` takes them.
    stored
        From a row's identity to the row of the run that is stored under it.

    Raises
    ------
    DuplicateUID
        See :func:`is_repeated`.
    """
    new: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        uid = row[layout.uid]
        if not is_repeated(layout.kind, row, new.get(uid) or stored(uid)):
            new[uid] = row
    return list(new.values())


def unknown_run(name: str, doc: Mapping[str, Any], run: str | None) -> UnknownReference:
    """The error for a document of a run that is not stored."""
    return UnknownReference(
        f"{document_label(name, doc)}: its run {run!r} is not stored; "
        "insert its start document first"
    )


class HeaderStore(ABC):
    """Start and stop documents, and the search over them.

    A store has :meth:`insert_prepared`, :meth:`find_uid` and :meth:`find`. The other methods work
    by these; a store that has an index, or connections, overrides them.
    """

    # -- primitives --------------------------------------------------------------------------

    @abstractmethod
    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a checked start or stop durably; the same one again changes nothing.

        Raises
        ------
        DuplicateUID
            A different run has this uid, or the run has a different stop.
        UnknownReference
            The run of a stop is not stored.
        """

    def insert_with(self, name: str, doc: Mapping[str, Any], stores: Sequence[EventStore]) -> None:
        """Store a checked start or stop in the event stores of its run, and then here.

        A store that keeps headers and events in one file may do it in one transaction.

        Raises
        ------
        DuplicateUID, UnknownReference
            As :meth:`insert_prepared`.
        """
        with self.insert_limit():
            known = self.has_uid(doc["uid" if name == "start" else "run_start"])
        if name == "stop" and not known:
            raise unknown_run("stop", doc, doc["run_start"])
        if name == "stop" or not known:
            for store in stores:
                store.insert_prepared(name, doc)
        self.insert_prepared(name, doc)

    def insert_limit(self) -> AbstractContextManager[None]:
        """A context for the parts of one insert, which bounds their time together; none here."""
        return nullcontext()

    def one_sync(self, *, batch: bool = False) -> AbstractContextManager[None]:
        """A context at whose end all survives a loss of power that each stop in it promises.

        A store that syncs a file for that may do so once, at the end, also for events that it
        keeps in the same file. What is inserted in it by other threads is not concerned.

        Parameters
        ----------
        batch
            It has many inserts, and not the parts of one: a store that is told to sync every
            insert does so all the same.
        """
        return nullcontext()

    @abstractmethod
    def find_uid(self, uid: str) -> HeaderPair | None:
        """The run with exactly this uid.

        Raises
        ------
        StoreDamaged
            If it cannot be read.
        """

    @abstractmethod
    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[FoundHeader]:
        """The runs that a search finds, newest first, from one place to another.

        The newest is that of the latest ``time``, among equals that which was inserted last. A
        store narrows the search as well as it can, and asks :meth:`Search.matches` for the rest.

        In the place of a run that cannot be read, and that the search may mean, comes a
        :class:`~daskbroker.core.bad_runs.BadRun`. It does not count: from ``start`` to ``stop``
        are so many runs that can be read, see :func:`~daskbroker.core.bad_runs.take_sound`.
        """

    # -- what follows from these -------------------------------------------------------------

    def has_uid(self, uid: str) -> bool:
        """Whether there is a run with exactly this uid."""
        return self.find_uid(uid) is not None

    def check(self, search: Search) -> Iterator[CheckedHeader]:
        """Runs with what is damaged of their start and stop documents.

        A store that gives no run of which a document is damaged overrides it, so that those are
        named too; whether they match the search, where nobody can tell, does not count.
        """
        return check_headers(self.find(search))

    backup_source: BackupSource | None = None
    """What makes a backup of the store while it is written; None: nothing of ours does."""

    def is_new(self, name: str, doc: Mapping[str, Any]) -> bool:
        """Whether a start or stop is not stored yet; raises as :meth:`insert_prepared`.

        A store that asks this must see to it that nobody inserts between question and answer.
        """
        run = doc["uid"] if name == "start" else doc["run_start"]
        start, stop = self.find_uid(run) or (None, None)
        if name == "stop" and start is None:
            raise unknown_run(name, doc, run)
        return not is_repeated(name, doc, start if name == "start" else stop)

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """The first of the uids that begin so, in order. By default every run is looked at."""
        found = self.find(Search())
        uids = (one.uid if isinstance(one, BadRun) else one[0]["uid"] for one in found)
        return sorted(uid for uid in uids if uid is not None and uid.startswith(prefix))[:limit]

    def count(self, search: Search) -> int:
        """How many runs a search finds that can be read. By default they are found one by one."""
        return sum(1 for found in self.find(search) if not isinstance(found, BadRun))

    def close(self) -> None:
        """Let go of connections; safe to call again. By default there is nothing to let go of."""
        return

    def create_indexes(self) -> list[str]:
        """Make the indexes that are missing; names of those made. Most stores have theirs."""
        return []


class EventStore(EventChecks, ABC):
    """Descriptors, events and references of runs, as chunks.

    A store implements the primitives, those that are abstract at least; the rules of inserting,
    and what a plan of runs is, follow here. The manifesto's methods are those of
    :class:`daskbroker.event_source.EventSource`.
    """

    reader: ChunkReader
    """Reads its chunks."""

    opens_on_workers: bool = False
    """Whether workers may open the store itself, and not only read chunks by their keys."""

    @property
    def is_in_place(self) -> bool:
        """Whether what was opened is still what is there, and not replaced by something else."""
        return True

    @property
    def is_noted(self) -> bool:
        """Whether :attr:`store_id` is final; of some stores it is only when something is stored."""
        return True

    def insert_limit(self) -> AbstractContextManager[None]:
        """A context for the parts of one insert, which bounds their time together; none here."""
        return nullcontext()

    def prepare_writing(self) -> None:
        """Called before events are written; most stores have nothing to prepare."""
        return

    # -- primitives --------------------------------------------------------------------------

    @property
    @abstractmethod
    def store_id(self) -> str:
        """Identity of the store: the same whenever and by whomever it is opened."""

    @abstractmethod
    def put_run(self, uid: str) -> None:
        """Know of a run, before anything else of it comes; one that is known already stays."""

    @abstractmethod
    def has_run(self, uid: str) -> bool:
        """Whether it knows of a run."""

    @abstractmethod
    def current_run(self) -> str | None:
        """The newest run it knows of."""

    def stop_run(self, uid: str) -> None:
        """The run has stopped: seal what is in the journal of it.

        When it has returned, the run survives a loss of power. The stop document is stored after
        that, so whoever sees it finds all events.
        """
        self.seal(uid)

    @abstractmethod
    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        """Store a checked descriptor of a known run durably; see :func:`is_repeated`."""

    def put_asset(self, layout: Layout, doc: Mapping[str, Any], run: str) -> None:
        """Store a checked resource or stream_resource of a known run, to be found by uid.

        In plans it is a row like any other. Several runs may have one of the same uid.
        """
        self.append(layout, run, [doc], run)

    @abstractmethod
    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        """The run a resource belongs to: the given one if it has it, else the newest that has."""

    @abstractmethod
    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        """Store checked rows durably, all of them or none, after those that are there.

        Those that the run has already (of the same kind and uid) are left out; see
        :func:`new_rows`. When it has returned, the rows survive the death of the process.

        Parameters
        ----------
        layout
            Of the rows; ``row[layout.uid]`` is a row's identity.
        owner
            Names the sequence: a descriptor's uid for events, the run's for references.
        rows
            At least one; cells may be NumPy arrays.
        run
            Uid of a known run.

        Raises
        ------
        DuplicateUID
            A different row of the run has the uid of one.
        """

    def append_page(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> None:
        """Store a checked page as :meth:`append` stores its rows: all of it, or nothing.

        A store that can keep columns as they are overrides it.
        """
        self.append(layout, owner, rows_of_page(layout, page), run)

    def append_table(self, owner: str, table: pa.Table, run: str) -> None:
        """Store checked events of a descriptor that are encoded as a chunk.

        A store that can keep a chunk as it is overrides it.
        """
        self.append(EVENT, owner, decode_rows(EVENT, table, owner), run)

    @abstractmethod
    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """The chunks of events of some descriptors, in their order, without reading a payload.

        See :class:`~daskbroker.core.planning.PlanBuilder`, which also takes a note of runs of which
        something cannot be read. Rows that are in no chunk yet travel
        with the plan. Each row is in one chunk of the plan, whatever is sealed meanwhile. All is
        looked up by few requests, however many descriptors there are.
        """

    @abstractmethod
    def find_descriptor(self, uid: str) -> Document | None:
        """A descriptor by uid."""

    @abstractmethod
    def list_descriptors(
        self, runs: Sequence[str], stream_name: Any = ALL
    ) -> Sequence[Document | BadRun]:
        """Descriptors of runs, in the order of the runs, within a run in that of time.

        In the place of one that cannot be read comes a :class:`~daskbroker.core.bad_runs.BadRun`
        with the uid of its run.
        """

    @abstractmethod
    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        """The chunks of references of some kinds, by kind, in the order in which they came.

        In place of descriptors the plans have an owner for each run, in the given order; see
        :class:`~daskbroker.core.run_plan.RunPlan`.
        """

    @abstractmethod
    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """Pack what is in the journal, of one run or of all; how many chunks were made.

        Parameters
        ----------
        run
            Uid; None: every run. Those that cannot be read are left as they are, each with a
            :class:`daskbroker.BadRunWarning`.
        keep_journal
            Leave the rows in the journal too, for other readers of it.

        Raises
        ------
        StoreDamaged
            If this run cannot be read, or not all of it.
        BadQuery
            If the store's journal is nobody else's to read, so that it cannot be kept.
        """

    # -- what detector files say -------------------------------------------------------------

    def list_peeks(self, runs: Sequence[str]) -> list[Peek]:
        """What is remembered of the detector files of runs. By default nothing is."""
        return []

    def find_peeks(self, sorts: Sequence[str]) -> list[Peek]:
        """One of each sort that some run has, as far as one is remembered."""
        return []

    def put_peeks(self, peeks: Sequence[Peek]) -> None:
        """Remember what was found in detector files, in place of what was remembered of it.

        Nothing else changes. A store that cannot be written, or keeps none, does nothing.
        """
        return

    def close(self) -> None:
        """Let go of connections; safe to call again. By default there is nothing to let go of."""
        return

    def flush(self) -> None:
        """Return when all that was inserted is where others see it. Most stores have it there."""
        return

    def create_indexes(self) -> list[str]:
        """Make the indexes that are missing; names of those made. Most stores have theirs."""
        return []

    @property
    def format_version(self) -> int | None:
        """Number of the store's format; None where none is noted, as by other writers."""
        return None

    def stored_bytes(self) -> int | None:
        """What the store takes on its disks, headers included if it has them; None: not known."""
        return None

    backup_source: BackupSource | None = None
    """See :attr:`HeaderStore.backup_source`; equal to that of the headers if it is one store."""

    # -- check: what plans and chunks do not show; see :mod:`.checking` ------------------------

    def check_descriptors(self, run: str) -> Iterator[Document | Damage]:
        """The descriptors of a run, with what is wrong in place of those that are not sound.

        A store in which one damaged descriptor hides the others overrides it.
        """
        for one in self.list_descriptors([run]):
            if isinstance(one, BadRun):
                yield Damage(one.reason, run=one.uid, path=one.where or None)
            else:
                yield check_document("descriptor", one) or one

    # -- insert ------------------------------------------------------------------------------

    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document durably; the same one again changes nothing.

        Parameters
        ----------
        name, doc
            As a RunEngine emits them; pages and the deprecated bulk documents too. An event that
            a broker filled is stored as it was before; see :mod:`daskbroker.stores.unfilling`.
        run
            Uid of the run that a resource without ``run_start`` belongs to; by default the
            newest run.

        Raises
        ------
        BadDocument
            The document, or one of its fields, makes no sense.
        UnknownReference
            Its run, descriptor or resource is not stored.
        DuplicateUID
            A different document has this uid.
        """
        for one_name, one in list(expand_bulk(name, prepared(name, doc, lambda _: self))):
            self.insert_prepared(one_name, one, run=run)

    @cached_property
    def unfilling(self) -> Unfilling:
        """What filled events are stored as."""
        return Unfilling(self)

    def insert_prepared(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document that :func:`daskbroker.core.validate.prepare` has checked.

        It takes no longer than :meth:`insert_limit` allows; a stop, which makes chunks, may.
        """
        with nullcontext() if name == "stop" else self.insert_limit():
            self._insert_prepared(name, doc, run)

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

    def descriptors_of(self, runs: Sequence[str], stream_name: Any = ALL) -> list[Document]:
        """As :meth:`list_descriptors`.

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
        stream_name: Any = ALL,
        references: bool | Callable[[Sequence[Document]], Sequence[str]] = False,
    ) -> RunPlan:
        """What there is of some runs, without reading a payload.

        Parameters
        ----------
        runs
            Uids; those of unknown runs are allowed.
        stream_name
            One stream, or ``ALL``.
        references
            Plan the references of all the runs (True), of none (False), or of those that a
            function chooses by the descriptors.

        Returns
        -------
        RunPlan
            A descriptor without events, of whose frames stream_datum documents tell, has a row
            for each ``seq_num`` that they name; its time is not known. It says which of the runs
            cannot be read.
        """
        listed = self.list_descriptors(runs, stream_name)
        unlisted = {str(one.uid): one for one in listed if isinstance(one, BadRun)}
        descriptors = [
            one
            for one in listed
            if not isinstance(one, BadRun) and one["run_start"] not in unlisted
        ]
        events = self.plan_events(descriptors)
        # References come before the events that need them, so they are planned after these.
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


class Opened(NamedTuple):
    """What opening a place gives; see :mod:`daskbroker.stores.openers`.

    Attributes
    ----------
    headers
        Start and stop documents.
    events
        Stores of events by name; most places have one.
    """

    headers: HeaderStore
    events: Mapping[str, EventStore]
