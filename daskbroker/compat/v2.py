"""``db.v2``: the catalog of databroker 1, a mapping from uids to runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import header as today
from .. import results as found
from ..connect import temp as _temp
from ..core.arguments import is_whole
from ..core.errors import OffsetOutOfRange, RunNotFound
from ..core.query import Query
from ..core.search import Search
from ..finding import at_offset
from .bluesky_run import BlueskyRun
from .file_registry import HandlerView
from .queries import compiled

if TYPE_CHECKING:
    from ..broker import DataBroker

__all__ = ["BlueskyRun", "Broker", "Catalog", "temp"]


class Catalog(Mapping[Any, BlueskyRun]):
    """databroker's catalog of runs, ``db.v2``, or the part of it that a search finds.

    Parameters
    ----------
    db
        Broker that has the runs.
    search
        Search that restricts the runs; all runs if None.
    """

    def __init__(self, db: DataBroker, search: Search | None = None) -> None:
        self._db = db
        self._search = Search() if search is None else search

    @property
    def v1(self) -> Any:
        """``Broker`` of databroker 1, with the same runs."""
        return self._db.v1 if self._search == Search() else self._db.v1.narrowed(self._search)

    @property
    def v2(self) -> Catalog:
        """The catalog itself."""
        return self

    @property
    def name(self) -> str:
        """Location of the runs: the broker's ``uri``, or ``"unnamed"``."""
        return self._db.uri or "unnamed"

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the catalog; always empty."""
        return {}

    def __call__(self) -> Catalog:
        """Return the catalog itself."""
        return self

    # -- finding -----------------------------------------------------------------------------

    @property
    def runs(self) -> found.Results:
        """The same runs with daskbroker's own views, newest first."""
        return self._db().narrowed(self._search)

    def search(self, query: Mapping[str, Any]) -> Catalog:
        """Return a catalog of those of these runs that satisfy a query.

        Parameters
        ----------
        query
            Mongo-style query on start documents, or one of :mod:`daskbroker.compat.queries`.

        Raises
        ------
        BadQuery
            If the query is not valid.
        """
        return self.narrowed(compiled(query))

    def narrowed(self, search: Search) -> Catalog:
        """Return a catalog of those of these runs that a compiled search finds."""
        return Catalog(self._db, self._search & search)

    def __getitem__(self, key: Any) -> BlueskyRun:
        """Return a run by uid, prefix of a uid, scan_id, or ``-n`` (the n-th newest).

        Raises
        ------
        RunNotFound
            If there is no such run. It is a KeyError.
        AmbiguousUID
            If several uids begin with the prefix. It is a ValueError.
        OffsetOutOfRange
            If there are fewer runs. It is an IndexError.
        """
        return BlueskyRun(self.run_of(key))

    def run_of(self, key: Any) -> today.Header:
        """Return a run with daskbroker's own views; keys and errors are as for indexing."""
        if isinstance(key, str):
            return self.runs[key]
        if not is_whole(key):
            raise TypeError(
                f"a run is looked up by its uid, scan_id or offset, not by {key!r:.200}"
            )
        if key < 0:
            return at_offset(self.runs, int(key))
        scan = Search(queries=(Query({"scan_id": int(key)}),))
        for run in self.runs.narrowed(scan):
            return run
        raise RunNotFound(f"none of these runs has the scan_id {key}")

    def __contains__(self, key: object) -> bool:
        try:
            self.run_of(key)
        except (RunNotFound, OffsetOutOfRange, TypeError):
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (run.uid for run in self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def reload(self) -> None:
        """Do nothing: each access queries the store anyway."""

    force_reload = reload

    # -- detector files ----------------------------------------------------------------------

    @property
    def root_map(self) -> dict[str, str]:
        """``{root in the documents: root where the files are now}``; may be changed in place."""
        return self._db.root_map

    @property
    def handler_registry(self) -> HandlerView:
        """Read-only mapping ``{spec: handler class}``."""
        return self._db.v1.reg.handler_reg

    def register_handler(self, spec: str, handler: Any, overwrite: bool = False) -> None:
        """Register a handler; see :meth:`daskbroker.DataBroker.register_handler`."""
        self._db.v1.reg.register_handler(spec, handler, overwrite)

    def deregister_handler(self, spec: str) -> None:
        """Remove a handler; see :meth:`.file_registry.Registry.deregister_handler`."""
        self._db.v1.reg.deregister_handler(spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Catalog):
            return NotImplemented
        return other._db is self._db and other._search == self._search

    def __hash__(self) -> int:
        return hash((id(self._db), self._search.shown))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Catalog, (self._db, self._search))

    def __repr__(self) -> str:
        return f"<Catalog of {self.runs!r}>"


Broker = Catalog
"""databroker's own name of the class in its module ``v2``."""


def temp() -> Catalog:
    """Return a catalog whose runs are deleted when the process ends."""
    return _temp().v2
