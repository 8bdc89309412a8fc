"""The interface of stores of start and stop documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ..core.bad_runs import BadRun
from ..core.documents import Document
from ..core.search import Search
from .already_stored import is_repeated, unknown_run
from .backing_up import BackupSource
from .checking import CheckedHeader, check_headers

if TYPE_CHECKING:
    from .event_store import EventStore

FARTHEST = 2**62
"""Upper bound of a run's position in a search; SQLite and MongoDB accept numbers up to it."""
MOST_READ_OVER = 8
"""Maximum number of runs to skip by reading them; more are skipped by an index."""

HeaderPair = tuple[Document, Document | None]
"""Start and stop document of a run; the stop is None until it is stored."""
FoundHeader = HeaderPair | BadRun
"""Result of a search: a run, or a placeholder for a run that cannot be read."""


def matching(headers: Iterable[FoundHeader], search: Search) -> Iterator[FoundHeader]:
    """Yield the runs that match a search, and the placeholders of runs that cannot be read."""
    return (one for one in headers if isinstance(one, BadRun) or search.matches(*one))


class HeaderStore(ABC):
    """Store of start and stop documents, with the search over them.

    A store must implement :meth:`insert_prepared`, :meth:`find_uid` and :meth:`find`. The other
    methods are built on these; a store with an index, or with connections, overrides them.
    """

    # -- primitives --------------------------------------------------------------------------

    @abstractmethod
    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a validated start or stop durably; do nothing if the same one is stored.

        Raises
        ------
        DuplicateUID
            If a different run has this uid, or the run has a different stop.
        UnknownReference
            If the run of a stop is not stored.
        """

    def insert_with(self, name: str, doc: Mapping[str, Any], stores: Sequence[EventStore]) -> None:
        """Store a validated start or stop in the event stores of its run, then in this store.

        In this order, a reader that sees a stop finds all events of the run. A store that keeps
        headers and events in one file may do both in one transaction.

        Raises
        ------
        DuplicateUID, UnknownReference
            As for :meth:`insert_prepared`.
        """
        is_start = name == "start"
        # A stop makes the event stores seal, which may take longer than one insert.
        with self.insert_limit() if is_start else nullcontext():
            with self.insert_limit():
                known = self.has_uid(doc["uid" if is_start else "run_start"])
            if not known and not is_start:
                raise unknown_run("stop", doc, doc["run_start"])
            # A start that is already here is already in the event stores, which come first.
            for store in () if is_start and known else stores:
                store.insert_prepared(name, doc)
            self.insert_prepared(name, doc)

    def insert_limit(self) -> AbstractContextManager[None]:
        """Return a context that bounds the total time of one insert; no bound by default."""
        return nullcontext()

    def one_sync(self, *, batch: bool = False) -> AbstractContextManager[None]:
        """Return a context that defers the syncs of its inserts to its end.

        Each stop promises that its run survives a loss of power. Within the context this holds
        only once the context has ended, so a store may sync its file once for all inserts,
        including events that it keeps in the same file. Inserts by other threads are not
        affected.

        Parameters
        ----------
        batch
            Whether the context spans many inserts rather than the parts of one. In a batch, a
            store that is configured to sync every insert still does so.
        """
        return nullcontext()

    @abstractmethod
    def find_uid(self, uid: str) -> HeaderPair | None:
        """Return the run with exactly this uid, or None.

        Raises
        ------
        StoreDamaged
            If the run cannot be read.
        """

    @abstractmethod
    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[FoundHeader]:
        """Yield the runs that match a search, newest first, from one position to another.

        The newest run is the one with the latest ``time``; among equals, the one inserted last.
        A store narrows the search as far as it can, and asks :meth:`Search.matches` for the rest.

        A run that cannot be read and may match is yielded as a
        :class:`~daskbroker.core.bad_runs.BadRun`. Such runs are not counted in ``start`` and
        ``stop``; see :func:`~daskbroker.core.bad_runs.take_sound`.

        Parameters
        ----------
        search
            Conditions that the runs must meet.
        start, stop
            Positions among the matching runs that can be read, as in a slice; all that follow
            ``start`` if ``stop`` is None.
        oldest_first
            Whether to reverse the order.
        """

    # -- what follows from these -------------------------------------------------------------

    def has_uid(self, uid: str) -> bool:
        """Return whether there is a run with exactly this uid."""
        return self.find_uid(uid) is not None

    def check(self, search: Search) -> Iterator[CheckedHeader]:
        """Yield the runs that match a search with the damage in their start and stop documents.

        A store whose :meth:`find` omits runs with a damaged document overrides this, so that they
        are reported too, also if it cannot be known whether they match the search.
        """
        return check_headers(self.find(search))

    backup_source: BackupSource | None = None
    """Object that backs up the store while it is written; None if daskbroker has none for it."""

    def is_new(self, name: str, doc: Mapping[str, Any]) -> bool:
        """Return whether a start or stop is not stored yet.

        A store that relies on the answer must prevent other inserts until it has acted on it.

        Raises
        ------
        DuplicateUID, UnknownReference
            As for :meth:`insert_prepared`.
        """
        run = doc["uid"] if name == "start" else doc["run_start"]
        start, stop = self.find_uid(run) or (None, None)
        if name == "stop" and start is None:
            raise unknown_run(name, doc, run)
        return not is_repeated(name, doc, start if name == "start" else stop)

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """Return the first uids with a prefix, sorted; by default every run is looked at."""
        found = self.find(Search())
        uids = (one.uid if isinstance(one, BadRun) else one[0]["uid"] for one in found)
        return sorted(uid for uid in uids if uid is not None and uid.startswith(prefix))[:limit]

    def count(self, search: Search) -> int:
        """Return the number of matching runs that can be read; by default each is read."""
        return sum(1 for found in self.find(search) if not isinstance(found, BadRun))

    def close(self) -> None:
        """Release connections; may be called again. Does nothing by default."""
        return

    def create_indexes(self) -> list[str]:
        """Create missing indexes and return their names; by default there are none to create."""
        return []
