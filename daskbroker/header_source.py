"""HeaderSource: the manifesto's source of start and stop documents, over a store of headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .core.arguments import is_whole
from .core.bad_runs import BadRun, leave_out_bad
from .core.batches import batched
from .core.errors import AmbiguousUID, BadQuery, OffsetOutOfRange, RunNotFound
from .core.name_lists import listed
from .core.printable import counted, shown
from .core.query import Query
from .core.search import LEAST_PREFIX, Search, compile_search, is_derived
from .core.validate import prepare
from .stores.header_store import FARTHEST, HeaderPair, HeaderStore

UID_LENGTH = 36
"""Length of the uids that a RunEngine makes: a shorter one is looked up as a prefix first."""
UIDS_IN_A_QUERY = 1000
"""Maximum number of uids that are looked up by one query."""


class HeaderSource:
    """Start and stop documents, and the search over them.

    Runs that cannot be read are left out, each with a :class:`daskbroker.BadRunWarning`.

    Parameters
    ----------
    store
        Store that holds the documents.
    """

    def __init__(self, store: HeaderStore) -> None:
        self.store = store

    def insert(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a start or stop document; documents of other names are ignored.

        Raises
        ------
        BadDocument
            If the document is not valid.
        DuplicateUID
            If a different document has this uid.
        UnknownReference
            If the run of a stop is not stored.
        """
        if name in ("start", "stop"):
            self.store.insert_prepared(name, prepare(name, doc))

    def __getitem__(self, key: Any) -> HeaderPair:
        """``hs[uid]``, ``hs[prefix]``, ``hs[scan_id]`` (the newest raw run), ``hs[-offset]``.

        Returns
        -------
        tuple
            Start and stop document; the stop is None while there is none.

        Raises
        ------
        RunNotFound
            If no run has this uid or scan_id.
        AmbiguousUID
            If several uids begin with the prefix.
        OffsetOutOfRange
            If there are fewer runs.
        StoreDamaged
            If the run of this uid cannot be read.
        """
        if isinstance(key, str):
            return self._by_uid(key)
        if not is_whole(key):
            raise TypeError(
                f"a run is looked up by uid (text), scan_id or offset, not by {shown(key)}"
            )
        return self._by_offset(int(key)) if key < 0 else self._by_scan_id(int(key))

    def _by_uid(self, uid: str) -> HeaderPair:
        # One lookup suffices for a uid of the usual length; a shorter text is mostly a prefix.
        looks_whole = not LEAST_PREFIX <= len(uid) < UID_LENGTH
        if looks_whole and (found := self.store.find_uid(uid)) is not None:
            return found
        is_short = len(uid) < LEAST_PREFIX
        matches = [] if is_short else self.store.find_prefix(uid)
        if not matches:
            hint = f"; a prefix needs {LEAST_PREFIX} characters or more" if is_short else ""
            if re.fullmatch(r"-?\d{1,9}", uid, re.ASCII):
                hint += f"; a scan_id or an offset is a number: db[{int(uid)}]"
            raise RunNotFound(f"no run has the uid {uid!r:.200}{hint}")
        if len(matches) > 1 and matches[0] != uid:
            raise AmbiguousUID(
                f"several runs have uids that begin with {uid!r}: {listed(matches, uid)}"
            )
        pair = self.store.find_uid(matches[0])
        assert pair is not None
        return pair

    def by_uids(self, uids: Iterable[str]) -> dict[str, HeaderPair]:
        """Return the runs that have some of these uids, by uid.

        There is one query for a thousand uids, and none for each. Runs that cannot be read are
        left out without a warning.
        """
        pairs = (
            found
            for some in batched(uids, UIDS_IN_A_QUERY)
            for found in self.store.find(Search((Query({"uid": {"$in": some}}),)))
        )
        return {str(pair[0]["uid"]): pair for pair in pairs if not isinstance(pair, BadRun)}

    def _by_scan_id(self, scan_id: int) -> HeaderPair:
        """Return the newest raw run with a scan_id, which derived runs may repeat.

        If all runs with it are derived, return the newest of these.
        """
        wanted = {"scan_id": scan_id}
        newest = next(self._found(compile_search(query=wanted), 0, 1), None)
        if newest is None:
            raise RunNotFound(f"no run has the scan_id {scan_id}")
        if not is_derived(newest[0]):
            return newest
        raw = compile_search(query={**wanted, "derived": False})
        return next(self._found(raw, 0, 1), newest)

    def _by_offset(self, offset: int) -> HeaderPair:
        """Return the run at an offset: -1 is the newest."""
        position = min(-offset, FARTHEST)
        for pair in self._found(Search(), position - 1, position):
            return pair
        count = len(self)
        there = f"the store has {counted(count, 'run') if count else 'no runs'}"
        raise OffsetOutOfRange(f"{there}; {offset} is too far back")

    def __call__(
        self,
        full: str | None = None,
        search: str | None = None,
        since: Any = None,
        until: Any = None,
        *,
        timezone: str = "UTC",
        **query: Any,
    ) -> Iterator[HeaderPair]:
        """Search for runs, newest first; see :meth:`daskbroker.DataBroker.__call__`. Lazy.

        Raises
        ------
        BadQuery
            If the query is not valid, or is on descriptors, which a header source does not have.
        """
        wanted = compile_search(full, search, since, until, query, timezone)
        if wanted.descriptors:
            raise BadQuery(
                f"a header source has no descriptors and cannot search by {wanted.shown[-1]}; "
                "a broker can"
            )
        return self._found(wanted)

    def __iter__(self) -> Iterator[HeaderPair]:
        return self._found(Search())

    def _found(
        self, search: Search, start: int = 0, stop: int | None = None
    ) -> Iterator[HeaderPair]:
        return leave_out_bad(self.store.find(search, start, stop))

    def __len__(self) -> int:
        return self.store.count(Search())
