"""The catalogue: a broker's runs, oldest first, which is the order of Tiled's own catalogues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tiled.structures.core import Spec

from ..broker import DataBroker
from ..connect import connect
from ..core.bad_runs import BadRun
from ..core.bounded_dict import BoundedDict
from ..core.query import Query
from ..core.run_plan import stream_of
from ..core.search import Search
from ..header import Header
from ..results import Results
from .folders import Folder, in_thread, metadata_form
from .queries import RUN_SPEC, search_of
from .runs import Run

CATALOG_SPEC = Spec("CatalogOfBlueskyRuns", version="3.0")
MOST_OPEN = 64
"""Maximum number of ended runs that are kept open, with their plans."""
BY_TIME = {"", "_", "time", "start.time"}
"""Sorting keys that mean the order of the store."""
Order = Sequence[tuple[str, int]]


def tree(place: str, metadata: Mapping[str, Any] | None = None) -> BrokerCatalog:
    """Open a store as a catalogue, for ``trees`` in the configuration of a Tiled server.

    Parameters
    ----------
    place
        Folder, MongoDB URI, or name of a configuration.
    metadata
        Metadata of the catalogue.
    """
    return BrokerCatalog(connect(place, create=False, mode="r"), metadata)


class BrokerCatalog(Folder):
    """The runs of a broker, or those that searches find, as a node of Tiled's tree.

    Parameters
    ----------
    db
        Broker that has the runs; its filters apply.
    metadata
        Metadata of the catalogue.
    search
        Search that restricts the runs; all runs if None.
    order
        Pairs of sorting key and direction (1 or -1).
    opened
        Cache of runs, shared with the catalogues that this one was made from.
    """

    def __init__(
        self,
        db: DataBroker,
        metadata: Mapping[str, Any] | None = None,
        *,
        search: Search | None = None,
        order: Order = (("_", 1),),
        opened: BoundedDict[str, Run] | None = None,
    ) -> None:
        super().__init__(dict(metadata or {}), [CATALOG_SPEC])
        self.db = db
        self._search = search or Search()
        self._order = tuple(order)
        self._opened = BoundedDict[str, Run](MOST_OPEN) if opened is None else opened

    def __repr__(self) -> str:
        return f"<BrokerCatalog of {self.db!r}>"

    # -- narrowing and sorting ---------------------------------------------------------------

    def search(self, query: Any) -> BrokerCatalog:
        """Return a catalogue of those of these runs that satisfy a query of Tiled."""
        return self._variation(search=self._search & search_of(query))

    def sort(self, sorting: Iterable[Any]) -> BrokerCatalog:
        """Return the same runs in another order, by keys such as ``start.scan_id``."""
        return self._variation(order=tuple((key, direction) for key, direction in sorting))

    @property
    def sorting(self) -> list[tuple[str, int]]:
        """Pairs of sorting key and direction (1 or -1)."""
        return [(key, direction) for key, direction in self._order]

    def _variation(self, search: Search | None = None, order: Order | None = None) -> BrokerCatalog:
        return BrokerCatalog(
            self.db,
            self.metadata(),
            search=self._search if search is None else search,
            order=self._order if order is None else order,
            opened=self._opened,
        )

    # -- runs --------------------------------------------------------------------------------

    @property
    def results(self) -> Results:
        """The runs as Results of the broker, newest first."""
        return self.db().narrowed(self._search)

    def __len__(self) -> int:
        return len(self.results)

    def names(self) -> list[str]:
        return [header.uid for header in self._page(0, None)]

    def child(self, name: str) -> Run | None:
        found = self._open_run(name)
        # With a search or filters, the store has to say whether the run is among these.
        if found is not None and self._search == Search() and not self.db.filters:
            return found
        exactly = Search(queries=(Query({"uid": name}),))
        for header in self.results.narrowed(exactly):
            if found is None:
                found = Run(header)
                # A run in progress is opened anew each time, as it grows.
                if header.known_stop is not None:
                    self._opened[name] = found
            return found
        return None

    def _open_run(self, uid: str) -> Run | None:
        """Return a run if it is kept, which makes it the last to be dropped."""
        found = self._opened.get(uid)
        if found is not None:
            self._opened.put_last(uid, found)
        return found

    async def keys_range(self, offset: int = 0, limit: int | None = None) -> list[str]:
        """Return ``limit`` uids from a position on; all that follow if None."""
        return [header.uid for header in await in_thread(self._page, offset, limit)]

    async def items_range(self, offset: int = 0, limit: int | None = None) -> list[tuple[str, Any]]:
        """Return pairs of uid and run from a position on; descriptors are looked up together."""
        return await in_thread(self._runs, offset, limit)

    def _page(self, offset: int, limit: int | None) -> list[Header]:
        """Return a range of the runs in the chosen order; the store has them newest first."""
        results = self.results
        key, direction = self._order[0] if self._order else ("_", 1)
        if key not in BY_TIME:
            return self._sorted(results)[offset : None if limit is None else offset + limit]
        if direction < 0:
            return list(results[offset : None if limit is None else offset + limit])
        # Oldest first: positions are counted from the end of what the store has.
        end = max(0, len(results) - offset)
        begin = 0 if limit is None else max(0, end - limit)
        return list(results[begin:end])[::-1]

    def _sorted(self, results: Results) -> list[Header]:
        """Sort by keys by which the store cannot sort; reads all runs.

        Runs without a value of the key come last in either direction.
        """
        headers = list(reversed(results))
        for key, direction in reversed(self._order):
            if key in BY_TIME:
                headers = headers[::direction]
                continue
            has = {header.uid: value_under(header, key) for header in headers}
            known = [header for header in headers if _sorts_as(has[header.uid])]
            known.sort(key=lambda h: _sorts_as(has[h.uid]) or (), reverse=direction < 0)
            known += [header for header in headers if not _sorts_as(has[header.uid])]
            headers = known
        return headers

    def _runs(self, offset: int, limit: int | None) -> list[tuple[str, Run]]:
        headers = self._page(offset, limit)
        streams: dict[str, dict[str, None]] = {header.uid: {} for header in headers}
        for source in self.db.event_sources:
            for one in source.store.list_descriptors(list(streams)):
                if not isinstance(one, BadRun):
                    streams[str(one["run_start"])][stream_of(one)] = None
        return [
            (h.uid, self._open_run(h.uid) or Run(h, names=list(streams[h.uid]))) for h in headers
        ]

    def get_distinct(
        self, metadata: Iterable[str], structure_families: bool, specs: bool, counts: bool
    ) -> dict[str, Any]:
        """Return the distinct values of some metadata keys, and how often each occurs.

        Structure families and specs are the same for all runs. For metadata, all runs are read.
        """

        def told(counter: Counter[Any]) -> list[dict[str, Any]]:
            return [
                {"value": value, **({"count": count} if counts else {})}
                for value, count in counter.items()
            ]

        found: dict[str, Any] = {}
        if metadata:
            headers = list(self.results)
            found["metadata"] = {}
            for key in metadata:
                values = (value_under(header, key) for header in headers)
                some = (value for value in values if isinstance(value, (str, int, float)))
                found["metadata"][key] = told(Counter(some))
        number = len(self.results) if structure_families or specs else 0
        if structure_families:
            found["structure_families"] = told(Counter({self.structure_family: number}))
        if specs:
            found["specs"] = told(Counter({(RUN_SPEC,): number}))
        return found


def value_under(header: Header, key: str) -> Any:
    """Return the value of a run under a dotted key of its metadata; None if it has none."""
    document, _, rest = key.partition(".")
    if document not in ("start", "stop") or not rest:
        document, rest = "start", key
    value: Any = header.start if document == "start" else header.known_stop
    for step in rest.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return metadata_form(value)


def _sorts_as(value: object) -> tuple[int, Any] | None:
    """Return a sorting key that puts numbers before texts; None for any other value."""
    if isinstance(value, (int, float)):
        return (0, value)
    return (1, value) if isinstance(value, str) else None
