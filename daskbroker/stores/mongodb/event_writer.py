"""Insertion of events into a MongoDB store, each of them once.

The journal's unique index on ``uid`` detects a repeated event in the journal, also for a while
after it was sealed (:mod:`.sealed_rows`). For all sealed events of a descriptor, this module keeps
hashes of their uids. They are read when the first event of the descriptor comes, and again when
this process has added chunks, or another one, which is looked up once a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError, WriteError

from ...core.bounded_dict import BoundedDict
from ...core.documents import Document, equal
from ...core.errors import DuplicateUID, StoreDamaged
from ...core.layouts import EVENT, iter_rows
from ...core.rounds import Rounds
from ..stored_text import storable
from .bson_documents import MAX_DOCUMENT_BYTES, from_bson, sparse_bson, to_bson
from .bulk_inserts import insert_in_order
from .chunk_store import (
    GONE,
    Manifest,
    chunk_key,
    chunks_of,
    confirmed_chunks,
    read_uids,
    sealed_end,
    stored_columns,
)
from .database import CHUNK_COLLECTION, LOOK_SECONDS, Database
from .sealed_rows import MARK_SECONDS, SEALED_MARK, chunk_of_mark
from .sealing import seal_descriptor, seal_rows, seal_tables
from .server_errors import REFUSED

MOST_DESCRIPTORS = 200
"""Maximum number of descriptors whose states are kept."""


@dataclass
class _DescriptorState:
    """Knowledge of this process about one descriptor.

    Attributes
    ----------
    chunks
        Manifests of its chunks when they were last looked up.
    sealed
        Sorted hashes of the uids in the chunks, an int64 array.
    looked
        Monotonic time of the last lookup.
    waiting_rows, waiting_bytes
        Rows and bytes in the journal that this process knows of, to decide when to seal.
    """

    chunks: list[Manifest] = field(default_factory=list)
    sealed: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    looked: float = 0.0
    waiting_rows: int = 0
    waiting_bytes: int = 0

    def may_know(self, uids: Sequence[str]) -> np.ndarray:
        """Return which uids may be of sealed events, as a bool array of shape ``(len(uids),)``.

        False is certain; True may be a collision of hashes.
        """
        # Nothing is sealed yet, as while a run is recorded.
        if not len(self.sealed):
            return np.zeros(len(uids), bool)
        wanted = np.fromiter(map(hash, uids), np.int64, len(uids))
        positions = np.searchsorted(self.sealed, wanted)
        return self.sealed[np.minimum(positions, len(self.sealed) - 1)] == wanted

    def add(self, chunks: Sequence[Manifest], uids: Sequence[str]) -> None:
        """Add new chunks and the uids in them."""
        hashes = np.sort(np.fromiter(map(hash, uids), np.int64, len(uids)))
        self.chunks = [*self.chunks, *chunks]
        # The stable sort merges two sorted sequences quickly.
        self.sealed = np.sort(np.concatenate([self.sealed, hashes]), kind="stable")


class EventWriter:
    """A writer that adds events to the journal, or directly to chunks.

    Parameters
    ----------
    database
        Databases of the store.
    seal_rows, seal_bytes
        Number of rows, and bytes, at which the journal of a descriptor is full.
    """

    def __init__(self, database: Database, seal_rows: int, seal_bytes: int) -> None:
        self._database = database
        self._states: BoundedDict[str, _DescriptorState] = BoundedDict(MOST_DESCRIPTORS)
        self._last_chunk: tuple[str, Mapping[str, Document]] = ("", {})
        self._seal_rows = seal_rows
        self._seal_bytes = seal_bytes

    def is_full(self, descriptor: str) -> bool:
        """Return whether the journal of a descriptor should be sealed."""
        state = self._states.get(descriptor)
        return state is not None and (
            state.waiting_rows >= self._seal_rows or state.waiting_bytes >= self._seal_bytes
        )

    def forget(self, descriptor: str) -> None:
        """Have the chunks of a descriptor looked up again before its next event."""
        state = self._states.get(descriptor)
        if state is not None:
            state.waiting_rows, state.waiting_bytes, state.looked = 0, 0, float("-inf")

    # -- rows --------------------------------------------------------------------------------

    def append(self, descriptor: Document, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store validated events, except those that are stored already.

        Raises
        ------
        DuplicateUID
            If a different event is stored under the same uid. Then none is stored.
        TooLarge
            If a column of an event is larger than a document of MongoDB may be.
        """
        state = self._state(descriptor)
        fresh = self._not_sealed(descriptor, state, self._each_once(rows))
        # A single row needs no query: the unique index refuses it if it is known.
        if len(fresh) > 1:
            fresh = self._not_in_journal(fresh)
        encoded = [to_bson(row) for row in fresh]
        try:
            if any(len(one.raw) > MAX_DOCUMENT_BYTES for one in encoded):
                self._seal_at_once(descriptor, fresh)
            elif len(encoded) == 1:
                self._insert_one(fresh[0], encoded[0])
            elif encoded:
                self._insert_many(fresh, encoded)
        # What was stored and what was not is unknown, so it is looked up again.
        except BaseException:
            self.forget(descriptor["uid"])
            raise
        state.waiting_rows += len(encoded)
        state.waiting_bytes += sum(len(one.raw) for one in encoded)
        # The marks of events sealed since the last look may have been removed before the insert.
        if encoded and time.monotonic() - state.looked > MARK_SECONDS / 2:
            self._take_back(descriptor, state, fresh)

    def _take_back(
        self, descriptor: Document, state: _DescriptorState, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Remove inserted rows from the journal if they had been sealed and their marks removed.

        If a row is in a chunk that is still waiting, this only does the work of a sealer.
        """
        self._look(descriptor, state)
        left: set[str] = set()  # stays empty if a row differs from the sealed event
        try:
            left = {row["uid"] for row in self._not_sealed(descriptor, state, rows)}
        finally:
            twice = [storable(row["uid"]) for row in rows if row["uid"] not in left]
            query = {"uid": {"$in": twice}, "descriptor": storable(descriptor["uid"])}
            # An empty $in would be sent to the server for nothing.
            if twice:
                with self._database.errors():
                    self._database.collection("event").delete_many(query)

    def _insert_one(
        self, row: Mapping[str, Any], encoded: RawBSONDocument, *, is_plain: bool = True
    ) -> None:
        label = f"event {row['uid']!r}"
        with self._database.errors(label):
            events = self._database.collection("event")
            try:
                events.insert_one(encoded)
            # The uid is known: the same event again, a mark of a sealed one, or a different
            # event.
            except DuplicateKeyError:
                same = {"uid": storable(row["uid"])}
                found = self._database.confirmed("event", same, waited=True)
                there = found[0] if found else self._database.insert_once("event", encoded, same)
                meant = self._meant(row, there)
                # The mark is of another descriptor; sealed uids are unique only within theirs.
                if there is not None and meant is None:
                    events.delete_one({**same, "descriptor": SEALED_MARK})
                    self._insert_one(row, encoded, is_plain=is_plain)
                    return
                self._compare(row, meant)
            except WriteError as error:
                # Only what the server cannot hold in its plain form is stored in another.
                if error.code not in REFUSED or not is_plain:
                    raise
                self._insert_one(row, sparse_bson(row), is_plain=False)

    def _insert_many(
        self, rows: Sequence[Mapping[str, Any]], encoded: Sequence[RawBSONDocument]
    ) -> None:
        label = f"event {rows[0]['uid']!r} and {len(rows) - 1} more"
        with self._database.errors(label):
            events = self._database.collection("event")
            insert_in_order(events, rows, encoded, self._not_in_journal, self._insert_one)

    def _each_once(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return the rows without repetitions; raises DuplicateUID if repeated rows differ."""
        by_uid: dict[str, Mapping[str, Any]] = {}
        for row in rows:
            self._compare(row, by_uid.setdefault(row["uid"], row))
        return rows if len(by_uid) == len(rows) else list(by_uid.values())

    def _not_in_journal(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the rows that are not in the journal."""
        uids = [storable(row["uid"]) for row in rows]
        with self._database.errors():
            query = {"uid": {"$in": uids}}
            found = list(self._database.collection("event").find(query))
            # Found documents may vanish with a primary; only those that a majority has count.
            if found:
                found = self._database.confirmed("event", query)
            there = {doc["uid"]: doc for doc in found if isinstance(doc["uid"], str)}
        fresh = []
        for row, uid in zip(rows, uids, strict=True):
            meant = self._meant(row, there.get(uid))
            if meant is None:
                fresh.append(row)
            else:
                self._compare(row, meant)
        return fresh

    def _compare(self, row: Mapping[str, Any], there: Mapping[str, Any] | None) -> None:
        if there is not None and there is not row and not equal(from_bson(there), dict(row)):
            raise DuplicateUID(f"event {row['uid']!r}: a different event is stored under this uid")

    def _meant(
        self, row: Mapping[str, Any], there: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """Return the event that a journal document with the uid of a row stands for.

        For a mark this is the sealed event. None if that is of another descriptor, as sealed
        events are unique only within their descriptor.
        """
        chunk = None if there is None else chunk_of_mark(there)
        if chunk is None:
            return there
        uid, owner = row["uid"], row["descriptor"]
        with self._database.errors():
            found = self._database.collection(CHUNK_COLLECTION).find_one(
                {"_id": chunk}, {"schema": 0}
            )
        # Sealed uids are unique only within their descriptor.
        if found is not None and found["owner"] != storable(owner):
            return None
        known = {} if found is None else self._events_in(owner, found, {uid})
        if uid not in known:
            raise StoreDamaged(
                f"{self._database.label}: event {uid!r} should be in chunk {chunk}, and is not"
            )
        return known[uid]

    def _seal_at_once(self, descriptor: Document, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows that are too large for the journal as a chunk, after sealing older rows."""
        uids = [storable(row["uid"]) for row in rows]
        with self._database.errors():
            for there in self._database.collection("event").find({"uid": {"$in": uids}}):
                row = next(row for row in rows if storable(row["uid"]) == there["uid"])
                self._compare(row, self._meant(row, there))
        rounds = self._rounds(descriptor)
        while True:
            seal_descriptor(self._database, descriptor)
            self.forget(descriptor["uid"])
            state = self._state(descriptor)
            rows = self._not_sealed(descriptor, state, rows)
            if not rows:  # another process has just sealed them
                return
            first = sealed_end(state.chunks)
            rounds.check(first)
            # False if another process has sealed at this position first: the next round looks
            # again.
            if seal_rows(self._database, descriptor, rows, first, GONE):
                self.forget(descriptor["uid"])
                return

    # -- pages -------------------------------------------------------------------------------

    def append_tables(
        self, descriptor: Document, tables: Sequence[pa.Table], uids: Sequence[str]
    ) -> bool:
        """Store the encoded tables of a page as chunks.

        If other processes have sealed rows since the last look, the position is taken, and
        everything is looked up again.

        Parameters
        ----------
        descriptor, tables
            Descriptor of the events, and their tables.
        uids
            Uids of all events in the tables.

        Returns
        -------
        bool
            False if some of the events may be stored already. Then nothing is stored.
        """
        rounds = self._rounds(descriptor)
        while True:
            state = self._state(descriptor)
            # The caller stores the events one by one, which tells the same event from a different
            # one.
            if len(set(uids)) < len(uids) or state.may_know(uids).any():
                return False
            journal = self._journal_has(descriptor, uids)
            # Pages and single rows with the same uids are compared one by one, too.
            if journal == "some":
                return False
            first = sealed_end(state.chunks)
            rounds.check((journal, first))
            try:
                if journal == "others":  # older rows are sealed first
                    seal_descriptor(self._database, descriptor)
                else:
                    made = seal_tables(self._database, descriptor, tables, first, GONE)
                    if made:
                        state.add(made, uids)
                        return True
            except BaseException:
                self.forget(descriptor["uid"])
                raise
            self.forget(descriptor["uid"])

    def _rounds(self, descriptor: Document) -> Rounds:
        uid = descriptor["uid"]
        return Rounds(f"storing events of descriptor {uid!r} in {self._database.label}")

    def _journal_has(self, descriptor: Document, uids: Sequence[str]) -> str:
        """Return what the journal has of a descriptor.

        ``"some"`` of these events, only ``"others"``, or ``"none"`` at all.
        """
        query = {"descriptor": storable(descriptor["uid"])}
        with self._database.errors():
            events = self._database.collection("event")
            if events.find_one(query, {"_id": 1}) is None:
                return "none"
            wanted = [storable(uid) for uid in uids]
            found = events.find_one({**query, "uid": {"$in": wanted}}, {"_id": 1})
            return "others" if found is None else "some"

    # -- what is sealed ----------------------------------------------------------------------

    def _state(self, descriptor: Document) -> _DescriptorState:
        uid = descriptor["uid"]
        state = self._states.get(uid)
        if state is None:
            state = self._states[uid] = _DescriptorState(looked=float("-inf"))
            with self._database.errors():
                events = self._database.collection("event")
                query = {"descriptor": storable(uid)}
                # With the limit, as it only matters whether the journal is full.
                state.waiting_rows = events.count_documents(query, limit=self._seal_rows)
        # Other processes may have sealed meanwhile; one look serves all events of a second.
        if time.monotonic() - state.looked > LOOK_SECONDS:
            self._look(descriptor, state)
        return state

    def _look(self, descriptor: Document, state: _DescriptorState) -> None:
        """Look up the chunks of a descriptor, and read the uids in new ones."""
        known = {chunk["_id"] for chunk in state.chunks}
        found = chunks_of(self._database, descriptor["uid"])
        if any(chunk["_id"] not in known for chunk in found):
            # A chunk that no majority has may vanish with a primary, so it does not count.
            found = confirmed_chunks(self._database, descriptor["uid"])
        new = [chunk for chunk in found if chunk["_id"] not in known]
        uids = [uid for chunk in new for uid in read_uids(self._database, chunk)]
        state.add(new, uids)
        state.chunks = found
        state.looked = time.monotonic()

    def _not_sealed(
        self, descriptor: Document, state: _DescriptorState, rows: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """Return the events that are in no chunk.

        Raises
        ------
        DuplicateUID
            If a chunk has a different event with the same uid.
        """
        uids = [row["uid"] for row in rows]
        doubtful = {uids[position] for position in np.flatnonzero(state.may_know(uids)).tolist()}
        # Usually: no query is needed for an event that is new.
        if not doubtful:
            return list(rows)
        there: dict[str, Document] = {}
        # The last chunk comes first, because its events are in memory.
        for chunk in sorted(state.chunks, key=lambda chunk: chunk["_id"] != self._last_chunk[0]):
            known = self._events_in(descriptor["uid"], chunk, doubtful)
            there.update((uid, known[uid]) for uid in doubtful & known.keys())
            # The remaining chunks have none of these uids.
            if len(there) == len(doubtful):
                break
        for row in rows:
            if row["uid"] in there:
                self._compare(row, there[row["uid"]])
        return [row for row in rows if row["uid"] not in there]

    def _events_in(self, owner: str, chunk: Manifest, wanted: set[str]) -> Mapping[str, Document]:
        """Return the events of a chunk by uid, or an empty dict if none is wanted.

        The events of the last chunk are remembered, as a run that is inserted again comes in
        order.
        """
        number, known = self._last_chunk
        # An event that is sent again is mostly among the last ones.
        if number == chunk["_id"]:
            return known
        # Uids are a column of their own, so a chunk without them is not read as a whole.
        if wanted.isdisjoint(read_uids(self._database, chunk)):
            return {}
        table = next(stored_columns(self._database, [chunk_key(chunk)], None))
        docs = iter_rows(EVENT, table, owner)
        self._last_chunk = chunk["_id"], {doc["uid"]: doc for doc in docs}
        return self._last_chunk[1]
