"""Transactions on the sequences of a store, and what this process knows of those it writes."""

from __future__ import annotations

import sqlite3
from typing import Any

from ...core.bounded_dict import BoundedDict
from ...core.errors import StoreDamaged
from ...core.layouts import EVENT, Layout, chunk_metadata
from ..journalled import JournalledEventStore
from ..stored_text import storable
from .database import Database
from .journal import Journal
from .reader import EmbeddedReader
from .row_sequences import RowSequence


class SequenceStore(JournalledEventStore):
    """An event store that adds rows to sequences, each in a transaction on the sequence.

    Parameters
    ----------
    database
        Database of the store.
    """

    reader: EmbeddedReader

    def __init__(self, database: Database) -> None:
        self._database = database
        root = str(database.root)
        self.reader = EmbeddedReader(root, database.read_only, database.identity)
        super().__init__()

    def _begin(self) -> None:
        super()._begin()
        self._journal = Journal(self.reader)
        self._sequences: BoundedDict[tuple[str, str, str], RowSequence] = BoundedDict()
        self._rollbacks = 0
        self._turn = 0
        """Number of the last transaction on a sequence, see :attr:`Database.begun`."""

    def _writing(self, layout: Layout, owner: str, run: str) -> _Writing:
        """Return a context with the connection of a transaction, and the sequence of an owner."""
        return _Writing(self, layout, owner, run)

    @property
    def _is_sure(self) -> bool:
        """Whether no transaction has failed since what is known was looked up."""
        return self._rollbacks == self._database.rollbacks

    def _refreshed(
        self, connection: sqlite3.Connection, layout: Layout, owner: str, run: str
    ) -> RowSequence:
        """Return the sequence of an owner with its present counters, in a transaction."""
        database = self._database
        # Another one came in between, perhaps of another broker, which has the same connection.
        if database.begun != self._turn + 1:
            self._journal.look_again()
        self._turn = database.begun
        # A rollback has undone the key of a new sequence, and positions that were counted up. They
        # are forgotten here, as another thread may be in a transaction when one has failed.
        if database.rollbacks != self._rollbacks:
            self._sequences.clear()
            self._journal.forget()
            self._rollbacks = database.rollbacks
        return self._journal.refresh(connection, self._sequence(connection, layout, owner, run))

    def _sequence(
        self, connection: sqlite3.Connection, layout: Layout, owner: str, run: str
    ) -> RowSequence:
        """Return the sequence of an owner, made at its first row."""
        key = (layout.kind, owner, run)
        if key not in self._sequences:
            number = position = self._known_run(run) or 0
            descriptor = None
            if layout is EVENT:
                found = connection.execute(
                    "SELECT id FROM descriptor WHERE uid = ?", (storable(owner),)
                ).fetchone()
                if found is None:
                    raise StoreDamaged(f"run {run!r}: the descriptor {owner!r} of events is gone")
                position = found[0]
                descriptor = self.find_descriptor(owner)
            metadata = chunk_metadata(layout, descriptor or {"run_start": run})
            values = (layout.kind, position, number)
            connection.execute("INSERT OR IGNORE INTO sequence VALUES (NULL, ?, ?, ?)", values)
            row = connection.execute(
                "SELECT id FROM sequence WHERE kind = ? AND owner = ?", values[:2]
            ).fetchone()
            self._sequences[key] = RowSequence(row[0], layout, owner, run, number, metadata)
        return self._sequences[key]


class _Writing:
    """Context of a transaction on one sequence."""

    def __init__(self, store: SequenceStore, layout: Layout, owner: str, run: str) -> None:
        self._store = store
        self._what = (layout, owner, run)
        self._transaction = store._database.write()

    def __enter__(self) -> tuple[sqlite3.Connection, RowSequence]:
        connection = self._transaction.__enter__()
        try:
            return connection, self._store._refreshed(connection, *self._what)
        except BaseException as error:
            self._transaction.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *exception: Any) -> None:
        self._transaction.__exit__(*exception)
