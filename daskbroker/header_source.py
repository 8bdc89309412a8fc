"""The contract of a header source: start and stop documents, and the search over them."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..core.documents import Document
from ..core.errors import AmbiguousUID, OffsetOutOfRange, RunNotFound
from ..core.search import Search, compile_search
from ..core.validate import prepare

__all__ = ["HeaderPair", "HeaderSource", "is_whole_number"]

LEAST_PREFIX = 5
UID_LENGTH = 36
"""Of those that a RunEngine makes: what is shorter is looked up as a prefix first."""

HeaderPair = tuple[Document, Document | None]
"""Start and stop of a run; stop is None while there is none."""


def is_whole_number(key: Any) -> bool:
    """An int, NumPy's included, but no bool."""
    return isinstance(key, numbers.Integral) and not isinstance(key, bool)


class HeaderSource(ABC):
    """Start and stop documents, and the search over them."""

    # -- primitives --------------------------------------------------------------------------

    @abstractmethod
    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a checked start or stop."""

    def insert_limit(self) -> AbstractContextManager[None]:
        """A context for the parts of one insert, which bounds their time together; none here."""
        return nullcontext()

    @abstractmethod
    def find_uid(self, uid: str) -> HeaderPair | None:
        """The run with exactly this uid."""

    @abstractmethod
    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """The first of the uids that begin so, in order."""

    @abstractmethod
    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[HeaderPair]:
        """The runs that a search finds, newest first, from one place to another."""

    @abstractmethod
    def count(self, search: Search) -> int:
        """How many runs a search finds."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    def create_indexes(self) -> list[str]:
        """Make the indexes that are missing; names of those made. Most stores have theirs."""
        return []

    # -- derived -----------------------------------------------------------------------------

    def insert(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a start or stop document; other documents are none of its business.

        Raises
        ------
        BadDocument, DuplicateUID, UnknownReference
        """
        if name in ("start", "stop"):
            self.insert_prepared(name, prepare(name, doc))

    def __getitem__(self, key: Any) -> HeaderPair:
        """``hs[uid]``, ``hs[prefix]``, ``hs[scan_id]`` (the newest such), ``hs[-offset]``.

        Raises
        ------
        RunNotFound, AmbiguousUID, OffsetOutOfRange
        """
        if isinstance(key, str):
            return self._by_uid(key)
        if not is_whole_number(key):
            raise TypeError(f"a run is found by uid (text), scan_id or offset, not by {key!r}")
        return self.by_offset(int(key), Search()) if key < 0 else self._by_scan_id(int(key))

    def _by_uid(self, uid: str) -> HeaderPair:
        looks_whole = not LEAST_PREFIX <= len(uid) < UID_LENGTH
        if looks_whole and (found := self.find_uid(uid)) is not None:
            return found
        is_short = len(uid) < LEAST_PREFIX
        matches = [] if is_short else self.find_prefix(uid)
        if not matches:
            hint = f"; a prefix needs {LEAST_PREFIX} characters or more" if is_short else ""
            raise RunNotFound(f"no run has the uid {uid!r}{hint}")
        if len(matches) > 1 and matches[0] != uid:
            raise AmbiguousUID(
                f"several runs have uids that begin with {uid!r}: {', '.join(matches)}"
            )
        pair = self.find_uid(matches[0])
        assert pair is not None
        return pair

    def _by_scan_id(self, scan_id: int) -> HeaderPair:
        for pair in self.find(compile_search(query={"scan_id": scan_id}), 0, 1):
            return pair
        raise RunNotFound(f"no run has the scan_id {scan_id}")

    def by_offset(self, offset: int, search: Search) -> HeaderPair:
        """The run ``-1`` (newest), ``-2`` … of those that a search finds."""
        for pair in self.find(search, -offset - 1, -offset):
            return pair
        raise OffsetOutOfRange(
            f"there are only {self.count(search)} runs; {offset} is too far back"
        )

    def __call__(
        self,
        full: str | None = None,
        search: str = "text",
        since: Any = None,
        until: Any = None,
        *,
        timezone: str = "UTC",
        **query: Any,
    ) -> Iterator[HeaderPair]:
        """Search; see :meth:`daskbroker.DataBroker.__call__`. Newest first, lazily."""
        return self.find(compile_search(full, search, since, until, query, timezone))

    def __iter__(self) -> Iterator[HeaderPair]:
        return self.find(Search())

    def __len__(self) -> int:
        return self.count(Search())
