"""Event store of an embedded store: its descriptors, events and references."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...core.bad_runs import BadRun
from ...core.chunks import ChunkPlan, damage_of
from ...core.documents import ALL, Document, StreamName, pack, unpack, unpack_document
from ...core.errors import BadQuery, StoreDamaged, StoreError
from ...core.layouts import EVENT, LAYOUTS, Layout, encode_page
from ...core.page_parts import is_large
from ...core.plan_builder import PlanBuilder
from ...core.run_plan import run_owners, stream_of
from ..backing_up import BackupSource
from ..contract import is_repeated
from ..journalled import PeekRow
from ..stored_text import storable
from .backup import EmbeddedBackup
from .checking import EmbeddedChecks
from .database import Database
from .format import COUNTED, ENDED, FORMAT_VERSION
from .packing import PACK_BYTES, pack_small_chunks, size_of_small_chunks
from .peeks import replace_peeks, select_peeks
from .planning import (
    HAS_TOO_FEW,
    LOST_ROWS,
    SEALED,
    TOO_FEW,
    PlannedSequence,
    add_sequences,
    among,
    lost_rows,
)
from .row_sequences import POSITIONS, RowSequence
from .sealing import add_chunks, discard_files, seal_page, seal_sequence, sweep
from .sequence_store import SequenceStore

logger = logging.getLogger(__name__)


class EmbeddedEventStore(EmbeddedChecks, SequenceStore):
    """Event store with its journal in SQLite and sealed chunks in Parquet, small ones in SQLite.

    Parameters
    ----------
    database
        Database of the store, shared with the header store.
    """

    least_page_rows = 50

    def _begin(self) -> None:
        super()._begin()
        self._put_off: dict[int, tuple[int, int]] = {}
        self._small_bytes_then = 0

    @property
    def store_id(self) -> str:
        return self._database.store_id

    @property
    def is_in_place(self) -> bool:
        return self._database.is_in_place

    @property
    def format_version(self) -> int:
        return FORMAT_VERSION

    def make_room(self) -> bool:
        return self._database.make_room()

    def stored_bytes(self) -> int:
        """See :meth:`EventStore.stored_bytes`: the sum of the sizes of its files."""
        return self._database.stored_bytes()

    # -- runs, descriptors, assets -----------------------------------------------------------

    def put_run(self, uid: str) -> None:
        with self._database.write() as connection:
            number = self.add_run(connection, uid)
        self.know_run(uid, number)

    def is_in(self, database: Database) -> bool:
        """Return whether the events are kept in this database."""
        return self._database is database

    def add_run(self, connection: sqlite3.Connection, uid: str) -> int | None:
        """Register a run in a transaction; return its key if it is new, and None if not."""
        done = connection.execute("INSERT OR IGNORE INTO run VALUES (NULL, ?, 0)", (storable(uid),))
        return done.lastrowid if done.rowcount == 1 else None

    def know_run(self, uid: str, number: int | None) -> None:
        """Remember the key that :meth:`add_run` has returned, once it is committed."""
        # Another process has added it, and its key is looked up when needed.
        if number is not None:
            self._runs[uid] = number

    def _look_up_run(self, uid: str) -> int | None:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT id FROM run WHERE uid = ?", (storable(uid),)
            ).fetchone()
        return None if row is None else int(row[0])

    def current_run(self) -> str | None:
        with self._database.read() as connection:
            row = connection.execute("SELECT uid FROM run ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def stop_run(self, uid: str) -> None:
        self.seal(uid)
        with self._database.write(durable=True) as connection:
            self.end_run(connection, uid)

    def end_run(self, connection: sqlite3.Connection, uid: str, *, with_stop: bool = False) -> None:
        """Note in the transaction, or that of the stop, that a run has ended and is sealed."""
        state = f"{COUNTED} + {SEALED}" if with_stop else str(ENDED)
        connection.execute(f"UPDATE run SET stopped = {state} WHERE uid = ?", (storable(uid),))
        self._journal.claims.forget(self._known_run(uid))

    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        uid, body = doc["uid"], pack(doc)
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT body FROM descriptor WHERE uid = ?", (storable(uid),)
            ).fetchone()
            is_new = not is_repeated("descriptor", doc, None if row is None else unpack(row[0]))
            if is_new:
                connection.execute(
                    "INSERT INTO descriptor VALUES (NULL, ?, ?, ?, ?, ?)",
                    (
                        storable(uid),
                        self._known_run(doc["run_start"]),
                        storable(stream_of(doc)),
                        doc["time"],
                        body,
                    ),
                )
        if is_new:  # remembered only once it is committed
            self._descriptors[uid] = unpack_document(body)

    def _look_up_descriptor(self, uid: str) -> Document | None:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT body FROM descriptor WHERE uid = ?", (storable(uid),)
            ).fetchone()
        with damage_of(f"descriptor {uid!r}"):
            return None if row is None else unpack_document(row[0])

    def put_asset(self, layout: Layout, doc: Mapping[str, Any], run: str) -> None:
        with self._writing(layout, run, run) as (connection, sequence):
            self._journal.append(connection, sequence, [doc])
            connection.execute(
                "INSERT OR IGNORE INTO asset VALUES (NULL, ?, ?, ?)",
                (storable(doc["uid"]), layout.kind, self._known_run(run)),
            )
        self._seal_if_full(sequence)

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        number = None if run is None else self._known_run(run)
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT run.uid FROM asset JOIN run ON run.id = asset.run "
                "WHERE asset.uid = ? AND kind = ? "
                "ORDER BY asset.run = ? DESC, asset.id DESC LIMIT 1",
                (storable(uid), layout.kind, number),
            ).fetchone()
        return None if row is None else str(row[0])

    # -- rows --------------------------------------------------------------------------------

    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        with self._writing(layout, owner, run) as (connection, sequence):
            self._journal.append(connection, sequence, rows)
        self._seal_if_full(sequence)

    def _seal_if_full(self, sequence: RowSequence) -> None:
        """Seal the journal of a sequence if it has reached the limits.

        If that fails, a warning is logged and no error raised: the rows are stored, in the
        journal. Sealing is tried again when as many rows have been added. Damage is raised, and
        any error while the log could not be synced.
        """
        rows, nbytes = self._put_off.get(sequence.number, (0, 0))
        # After a failure, the next attempt waits until as much has come again.
        if (
            sequence.waiting_rows - rows < self._seal_rows
            and sequence.waiting_bytes - nbytes < self._seal_bytes
        ):
            return
        try:
            seal_sequence(self._database, self._journal, sequence)
            self._put_off.pop(sequence.number, None)
        except StoreError as error:
            # The insert must raise the error of a damaged store, or of a log that cannot be synced.
            if isinstance(error, StoreDamaged) or self._database.log.is_in_trouble:
                raise
            logger.warning(
                "no chunk can be made in the store at %s: %d rows of run %r stay in the journal "
                "(%s)", self._database.root, sequence.waiting_rows, sequence.run, error,
            )  # fmt: skip
            self._put_off[sequence.number] = sequence.waiting_rows, sequence.waiting_bytes

    def _append_columns(
        self, layout: Layout, owner: str, page: Mapping[str, Any], run: str
    ) -> bool:
        # Larger pages become chunks at once, without a second copy in the journal.
        if is_large(layout, page):
            return self._append_chunks(layout, owner, page, run)
        return self._append_to_journal(layout, owner, page, run)

    def _append_to_journal(
        self, layout: Layout, owner: str, page: Mapping[str, Any], run: str
    ) -> bool:
        """Put a page into the journal; return False if some of its documents are stored."""
        with self._writing(layout, owner, run) as (connection, sequence):
            # Some are stored: each is compared with what is there.
            if not self._journal.claims.hold_page(connection, sequence, page[layout.uid]):
                return False
            table = encode_page(layout, page, sequence.metadata)
            self._journal.append_table(connection, sequence, table)
        self._seal_if_full(sequence)
        return True

    def _append_chunks(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> bool:
        """Make chunks of a page; return False if some of its documents are stored."""
        with self._writing(layout, owner, run) as (_, sequence):  # makes the sequence
            pass
        # Rows in the journal come before the page, so they are sealed first. The files are written
        # before the transaction, so that others can write meanwhile.
        seal_sequence(self._database, self._journal, sequence)
        written = seal_page(self._database, sequence, page)
        try:
            with self._writing(layout, owner, run) as (connection, sequence):
                claims = self._journal.claims
                # Another process has put rows into the journal since it was sealed above.
                if sequence.waiting_rows or not claims.claim_page(
                    connection, sequence, page[layout.uid]
                ):
                    raise _RowByRow
                add_chunks(connection, self._database, sequence, written)
        except _RowByRow:
            return False
        finally:
            discard_files(written)
        return True

    # -- reading -----------------------------------------------------------------------------

    def list_descriptors(
        self, runs: Sequence[str], stream_name: StreamName = ALL
    ) -> Sequence[Document | BadRun]:
        order = {storable(uid): position for position, uid in enumerate(runs)}
        condition, values = among(list(order))
        query = (
            "SELECT run.uid, descriptor.uid, stream, body, descriptor.time, descriptor.id, "
            f"{HAS_TOO_FEW} "
            f"FROM run JOIN descriptor ON descriptor.run = run.id WHERE run.uid {condition}"
        )
        # One more condition for the index; all streams are listed without it.
        if stream_name is not ALL:
            query += " AND stream = ?"
            values += (storable(str(stream_name)),)
        else:
            query += " UNION ALL " + LOST_ROWS.format(among=condition)
            values *= 3
        with self._database.read() as connection:
            rows = connection.execute(f"{query} ORDER BY 5, 6", values).fetchall()
            # If a run has the stream, no other row is looked for that it may have lost.
            without = order.keys() - {row[0] for row in rows}
            lost = {} if stream_name is ALL else lost_rows(connection, without)
        lost |= {run: reason for run, _, reason, *_, number, _ in rows if number is None}
        rows = [row for row in rows if row[5] is not None]
        lost |= dict.fromkeys((row[0] for row in rows if row[6]), TOO_FEW)
        rows.sort(key=lambda row: order[row[0]])
        listed = [self._listed(runs[order[row[0]]], *row[:4]) for row in rows]
        path = str(self._database.path)
        return [*listed, *(BadRun(runs[order[uid]], lost[uid], path) for uid in lost)]

    def _listed(
        self, run: str, stored_run: str, uid: str, stream: str, body: bytes
    ) -> Document | BadRun:
        try:
            doc = unpack_document(body)
            told_by = storable(doc["uid"]), storable(doc["run_start"]), storable(stream_of(doc))
            # Else its events would not be found, or those of another run.
            if told_by != (uid, stored_run, stream):
                raise StoreDamaged("it has another uid, run or stream than its row")
            return doc
        except (StoreDamaged, LookupError, TypeError, AttributeError) as error:
            return BadRun(run, f"descriptor {uid!r}: {error}", str(self._database.path))

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        builder = PlanBuilder(self.reader, EVENT, self._database.identity, descriptors)
        condition, uids = among([storable(d["uid"]) for d in descriptors])
        with self._database.snapshot() as connection:
            found = connection.execute(
                # CROSS makes SQLite begin with the descriptors; else it goes through all sequences.
                "SELECT descriptor.uid, sequence.id FROM descriptor CROSS JOIN sequence ON "
                "sequence.kind = 'event' AND sequence.owner = descriptor.id "
                f"WHERE descriptor.uid {condition}",
                uids,
            )
            numbers = dict(found)
            without = {
                storable(descriptor["run_start"]): index
                for index, descriptor in enumerate(descriptors)
                if storable(descriptor["uid"]) not in numbers
            }
            for run, reason in lost_rows(connection, without).items():
                builder.note_bad(without[run], reason)
            add_sequences(
                connection,
                [
                    PlannedSequence(numbers[uid], EVENT, builder, index, descriptor)
                    for index, descriptor in enumerate(descriptors)
                    if (uid := storable(descriptor["uid"])) in numbers
                ],
            )
        return builder.plan()

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        owners, store = run_owners(runs), self._database.identity
        builders = {
            layout.kind: PlanBuilder(self.reader, layout, store, owners) for layout in layouts
        }
        positions = {storable(uid): position for position, uid in enumerate(runs)}
        condition, uids = among(list(positions))
        with self._database.snapshot() as connection:
            found = connection.execute(
                "SELECT run.uid, kind, sequence.id FROM run JOIN sequence ON "
                f"sequence.run = run.id WHERE run.uid {condition}",
                uids,
            )
            sequences = [
                PlannedSequence(
                    number, LAYOUTS[kind], builders[kind], positions[uid], owners[positions[uid]]
                )
                for uid, kind, number in found
                if kind in builders
            ]
            add_sequences(connection, sequences)
        return {kind: builder.plan() for kind, builder in builders.items()}

    # -- what detector files say -------------------------------------------------------------

    def _select_peeks(self, by: str, values: Sequence[str]) -> Iterable[PeekRow]:
        return select_peeks(self._database, by, values)

    def _replace_peeks(self, rows: Sequence[PeekRow]) -> None:
        replace_peeks(self._database, rows)

    # -- upkeep ------------------------------------------------------------------------------

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """See :meth:`EventStore.seal`; sealing all also removes files left by killed processes."""
        # Refused, as no other program reads this journal.
        if keep_journal:
            raise BadQuery(
                f"the journal of the store at {self._database.root} cannot be kept: nothing else "
                "reads it; keep_journal is for MongoDB"
            )
        self._database.check_writable()
        where, values = ("", []) if run is None else ("AND run.uid = ?", [storable(run)])
        low = f"sequence.id * {POSITIONS}"
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT sequence.kind, run.uid, coalesce(descriptor.uid, run.uid) FROM sequence "
                "JOIN run ON run.id = sequence.run "
                "LEFT JOIN descriptor ON sequence.kind = 'event' AND descriptor.id = owner "
                f"WHERE EXISTS (SELECT 1 FROM journal WHERE id >= {low} AND id < {low} + "
                f"{POSITIONS}) {where}",
                values,
            ).fetchall()
        sequences = ((uid, (kind, uid, owner)) for kind, uid, owner in rows)
        made = self._seal_each(sequences, self._seal_sequence, one_run=run is not None)
        self._pack_if_many()
        # Only with all runs, as it reads whole folders.
        if run is None:
            sweep(self._database)
        return made

    def _seal_sequence(self, key: tuple[str, str, str]) -> int:
        kind, run, owner = key
        if kind not in LAYOUTS:
            raise StoreDamaged(f"run {run!r}: documents of no known kind: {kind!r}")
        # One flipped bit makes bytes of a text.
        if not isinstance(run, str) or not isinstance(owner, str):
            raise StoreDamaged(
                f"{kind}s of run {run!r}: the uid {owner!r} of their owner is no text"
            )
        sequence = self._sequences.get((kind, owner, run)) if self._is_sure else None
        # This process has not written to it; the context makes the sequence known.
        if sequence is None:
            with self._writing(LAYOUTS[kind], owner, run) as (_, sequence):
                pass
        with damage_of(f"{kind}s of run {run!r}"):
            return seal_sequence(self._database, self._journal, sequence)

    def _pack_if_many(self) -> None:
        """Pack small chunks if there are too many; their size is read only if this is possible."""
        # Nothing has been added that could make them too many.
        if self._database.small_bytes < self._small_bytes_then:
            return
        size = size_of_small_chunks(self._database)
        if size > PACK_BYTES:
            pack_small_chunks(self._database, PACK_BYTES)
            size = 0
        self._small_bytes_then = self._database.small_bytes + PACK_BYTES - size

    def flush(self) -> None:
        """See :meth:`EventStore.flush`; everything then survives a loss of power."""
        self._database.bring_to_disk()

    @property
    def backup_source(self) -> BackupSource:  # type: ignore[override]
        """See :attr:`EventStore.backup_source`."""
        return EmbeddedBackup(self._database)

    def close(self) -> None:
        self._database.close()


class _RowByRow(Exception):
    """Raised to roll back a page with rows that are stored; they are then compared one by one."""
