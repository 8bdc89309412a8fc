"""``db.v1``: a Broker that behaves like that of databroker 1.

Tables and Datasets are computed, external data are references unless ``fill=True``, and keyword
arguments of a search are keys of the start document.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import header as today
from .. import results as today_results
from ..core.documents import ALL, Document, StreamName
from ..core.errors import AmbiguousUID
from ..core.name_lists import listed
from ..core.query import Query
from ..core.search import LEAST_PREFIX, Search, compile_search
from .file_registry import Registry, file_list
from .human_time import seconds
from .images import Images
from .selecting import names_of
from .v1_documents import Hook, hooked_document, run_documents
from .v1_runs import Header, Headers, Results, runs_of
from .v1_tables import table_of

if TYPE_CHECKING:
    from ..broker import DataBroker

__all__ = ["Broker", "Header", "Results"]

OLD_NAMES = {"start_time": "since", "stop_time": "until"}


class Broker:
    """databroker's ``Broker``: ``db.v1`` of a :class:`daskbroker.DataBroker`.

    Parameters
    ----------
    db
        Broker that has the runs.
    search
        Search that restricts the runs; all runs if None.

    Attributes
    ----------
    prepare_hook
        Function ``hook(name, doc)`` that is called for each document; its result is given to the
        user in place of the document. A hook of your own gets a plain dict.
    aliases
        Queries, or functions that return one, by the name of the attribute that searches for them.
    filters
        Query that restricts every search, but not ``db.v1[-1]``.
    external_fetchers
        Functions of start and stop, by the name of the attribute of ``header.ext`` that holds
        their result.

    Notes
    -----
    It pickles as ``db.v1`` of the same location, with its search; attributes that were set on it
    are not pickled.
    """

    def __init__(self, db: DataBroker, search: Search | None = None) -> None:
        self._db = db
        self._search = search
        self._reg = Registry(db)
        self.prepare_hook: Hook = hooked_document
        self.aliases: dict[str, Any] = {}
        self.filters: dict[str, Any] = {}
        self.external_fetchers: dict[str, Callable[[Any, Any], Any]] = {}

    @classmethod
    def named(cls, name: str, auto_register: bool = True) -> Broker:
        """Open the broker of a named configuration; see :meth:`daskbroker.DataBroker.named`."""
        from ..broker import DataBroker

        return DataBroker.named(name).v1.registering(auto_register=auto_register)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], auto_register: bool = True, name: str | None = None
    ) -> Broker:
        """Open the broker of a configuration; see :meth:`daskbroker.DataBroker.from_config`."""
        from ..broker import DataBroker

        return DataBroker.from_config(config).v1.registering(auto_register=auto_register)

    def registering(self, *, auto_register: bool) -> Broker:
        """Return the broker itself; without ``auto_register`` it has only registered handlers."""
        if not auto_register:
            registry = self._db.handler_registry
            self.reg.handler_reg.gone.update(set(registry.specs()) - set(registry.registered()))
        return self

    @property
    def v1(self) -> Broker:
        """The broker itself."""
        return self

    @property
    def v2(self) -> Any:
        """Catalog of the same runs."""
        return self._db.v2 if self._search is None else self._db.v2.narrowed(self._search)

    def narrowed(self, search: Search) -> Broker:
        """Return a broker of those of the runs that a search finds, with the same state."""
        found = Broker(self._db, search if self._search is None else self._search & search)
        found._reg = self._reg
        found.prepare_hook = self.prepare_hook
        found.aliases, found.filters = self.aliases, self.filters
        found.external_fetchers = self.external_fetchers
        return found

    @property
    def _all(self) -> today_results.Results:
        """The runs, with daskbroker's own views, newest first."""
        runs = self._db()
        return runs if self._search is None else runs.narrowed(self._search)

    @property
    def name(self) -> str:
        """Location of the runs: the broker's ``uri``, or ``"unnamed"``."""
        return self._db.uri or "unnamed"

    @property
    def reg(self) -> Registry:
        """Registry of handlers, which also copies detector files."""
        return self._reg

    @property
    def fs(self) -> Registry:
        """Old name of :attr:`reg`; warns."""
        warnings.warn("db.fs was renamed to db.reg; use db.reg", UserWarning, stacklevel=2)
        return self._reg

    # -- inserting and searching -------------------------------------------------------------

    def insert(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a document; see :meth:`daskbroker.DataBroker.insert`."""
        self._db.insert(name, doc)

    def __call__(self, text_search: str | None = None, **query: Any) -> Results:
        """Search for runs.

        Parameters
        ----------
        text_search
            Words to look for in the values of start and stop documents.
        **query
            Mongo-style filter on start documents, except ``since`` and ``until`` (earliest and
            latest time, inclusive) and ``data_key`` (a data key of some descriptor).

        Raises
        ------
        BadQuery
            If the query is not valid.
        TypeError
            If both ``since`` and its old name ``start_time`` are given, or ``until`` and
            ``stop_time``.
        """
        runs = self._all.narrowed(_search(None, self.filters) & _search(text_search, query))
        return Results(self, runs)

    def __getitem__(self, key: Any) -> Any:
        """Return a run by uid, prefix of any length, scan_id or ``-n``; a list of several keys.

        Several keys are a slice of negative offsets, or an iterable of keys.

        Raises
        ------
        KeyError
            If there is no such run.
        IndexError
            If there are fewer runs.
        ValueError
            If several uids begin with the prefix, or the slice is not valid.
        """
        if isinstance(key, slice):
            return self._sliced(key)
        if isinstance(key, str):
            return Header(self, self._named_run(key))
        if isinstance(key, Iterable):
            return [self[item] for item in key]
        return Header(self, self._run(key))

    def _named_run(self, uid: str) -> today.Header:
        if len(uid) < LEAST_PREFIX:
            beginning = Query({"uid": {"$gte": uid, "$lt": uid + "\U0010ffff"}})
            found = list(islice(self._all.narrowed(Search(queries=(beginning,))), 10))
            if len(found) > 1:
                uids = listed([run.uid for run in found])
                raise AmbiguousUID(f"several uids begin with {uid!r}: {uids}")
            if found:
                return found[0]
        return self._run(uid)

    def _run(self, key: object) -> today.Header:
        """Return a run by what daskbroker itself takes; of a search, one of those that it found."""
        return self._db[key] if self._search is None else self.v2.run_of(key)

    def _sliced(self, key: slice) -> list[Header]:
        if key.start is None or key.start >= 0 or (key.stop is not None and key.stop > 0):
            raise ValueError(
                f"{key} must have a negative start and a stop of at most 0: db[-5:], db[-10:-5]"
            )
        offsets = range(key.start, key.stop or 0, key.step or 1)
        newest = list(self._all[: -key.start])
        if len(newest) < -key.start:
            raise self._all.out_of_range(f"{key.start} is too far back")
        return [Header(self, newest[-offset - 1]) for offset in reversed(offsets)]

    # -- aliases, filters, more --------------------------------------------------------------

    def alias(self, key: str, **query: Any) -> None:
        """Make ``db.<key>`` a search for runs.

        Raises
        ------
        ValueError
            If the broker has another attribute of that name.
        """
        self._set_alias(key, query)

    def dynamic_alias(self, key: str, func: Callable[[], Mapping[str, Any]]) -> None:
        """Make ``db.<key>`` a search for the query that a function returns on each access.

        Raises
        ------
        ValueError
            If the broker has another attribute of that name.
        """
        self._set_alias(key, func)

    def _set_alias(self, key: str, query: object) -> None:
        if key not in self.aliases and hasattr(self, key):
            raise ValueError(
                f"{key!r} is not a valid alias: a broker has an attribute of that name"
            )
        self.aliases[key] = query

    def __getattr__(self, key: str) -> Results:
        query = self.__dict__.get("aliases", {}).get(key)
        if query is None:
            raise AttributeError(f"a databroker Broker has no attribute or alias {key!r}")
        return self(**(query() if callable(query) else query))

    def add_filter(self, **query: Any) -> None:
        """Restrict every later search; a key that was already given is replaced."""
        self.filters.update(query)

    def clear_filters(self) -> None:
        """Remove all filters."""
        self.filters.clear()

    def fetch_external(self, start: Any, stop: Any) -> dict[str, Any]:
        """Return the results of :attr:`external_fetchers` for a run, by name."""
        return {key: fetch(start, stop) for key, fetch in self.external_fetchers.items()}

    # -- data --------------------------------------------------------------------------------

    @staticmethod
    def get_fields(header: Header, name: str | None = None) -> set[str]:
        """Return the names of the data keys of a run, of one stream or of all."""
        return header.fields(ALL if name is None else name)

    def get_documents(
        self,
        headers: Headers,
        stream_name: StreamName = ALL,
        fields: Iterable[str] | None = None,
        fill: bool = False,
        handler_registry: None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Iterate over the documents of runs as ``(name, doc)``. Lazy.

        Parameters
        ----------
        headers
            One or more runs.
        stream_name
            Name of one stream; all streams by default.
        fields
            Regular expressions that match whole data keys; or keys of the configuration, of start
            or of stop, which become data. All data keys if None.
        fill
            Whether to replace references by external data.
        handler_registry
            Must be None; register handlers with ``db.reg`` instead.

        Raises
        ------
        NotImplementedError
            If ``handler_registry`` is given.
        """
        _no_handlers(handler_registry)
        fields = names_of(fields)

        def documents() -> Iterator[tuple[str, Any]]:
            for run in runs_of(headers):
                if fill:
                    self.reg.check(run)
                yield from run_documents(run, self.prepare_hook, stream_name, fields, fill=fill)

        return documents()

    def get_events(
        self,
        headers: Headers,
        stream_name: StreamName = "primary",
        fields: Iterable[str] | None = None,
        fill: bool = False,
        handler_registry: None = None,
    ) -> Iterator[Any]:
        """Iterate over the events of one stream; parameters are as for :meth:`get_documents`."""
        documents = self.get_documents(headers, stream_name, fields, fill, handler_registry)
        return (doc for name, doc in documents if name == "event")

    def get_table(
        self,
        headers: Headers,
        stream_name: str = "primary",
        fields: Iterable[str] | None = None,
        fill: bool = False,
        handler_registry: None = None,
        convert_times: bool = True,
        timezone: str | None = None,
        localize_times: bool = True,
    ) -> pd.DataFrame:
        """Return one stream of runs as a ``pandas.DataFrame`` with one row per event.

        Parameters
        ----------
        headers, stream_name, fields, fill, handler_registry
            As for :meth:`get_documents`; metadata become constant columns.
        convert_times, localize_times
            If both are False, ``time`` is in POSIX seconds; otherwise it is ``datetime64[ns]`` in
            UTC, without a zone.
        timezone
            Ignored, as in databroker 1.2.
        """
        _no_handlers(handler_registry)
        runs = list(runs_of(headers))
        if fill:
            for run in runs:
                self.reg.check(run)
        as_datetime = convert_times or localize_times
        return table_of(runs, stream_name, fields, fill=fill, as_datetime=as_datetime)

    def get_images(
        self,
        headers: Headers,
        name: str,
        stream_name: str = "primary",
        handler_registry: None = None,
    ) -> Images:
        """Return the values of a data key as a sequence of arrays, each read when it is indexed."""
        _no_handlers(handler_registry)
        runs = list(runs_of(headers))
        for run in runs:
            self.reg.check(run)
        return Images([run.dataset(stream_name, [f"data:{name}"])[name] for run in runs])

    def restream(
        self, headers: Headers, fields: Iterable[str] | None = None, fill: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Iterate over all documents of runs as ``(name, doc)``. Lazy."""
        return self.get_documents(headers, ALL, fields, fill)

    stream = restream

    def process(
        self,
        headers: Headers,
        func: Callable[[str, Any], Any],
        fields: Iterable[str] | None = None,
        fill: bool = False,
    ) -> None:
        """Call a function with the name and document of each document, as a RunEngine does."""
        for name, doc in self.restream(headers, fields, fill):
            func(name, doc)

    def fill_event(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported, as in databroker 1; see :meth:`Broker.restream`."""
        raise NotImplementedError("documents are filled by fill=True")

    fill_events = fill_event

    # -- files -------------------------------------------------------------------------------

    def export(
        self,
        headers: Headers,
        db: Any,
        new_root: str | None = None,
        copy_kwargs: Mapping[str, Any] | None = None,
    ) -> list[tuple[str, str]]:
        """Insert runs into another broker.

        Parameters
        ----------
        headers
            One or more runs.
        db
            Broker to insert into: any object with ``insert(name, doc)``.
        new_root
            Folder to copy detector files to; inserted resources then refer to the copies. No file
            is copied if None.
        copy_kwargs
            Keyword arguments of :meth:`~daskbroker.compat.file_registry.Registry.copy_files`.

        Returns
        -------
        list of tuple
            ``(old path, new path)`` of each copied file.
        """
        copied: list[tuple[str, str]] = []
        for run in runs_of(headers):
            for name, doc in run.documents(fill=False):
                if name == "resource" and new_root:
                    asked = {"run_start_uid": run.uid, **(copy_kwargs or {})}
                    copied += self.reg.copy_files(doc, new_root, **asked)
                    doc = _moved(doc, new_root)
                db.insert(name, doc)
        return copied

    def export_size(self, headers: Headers) -> float:
        """Return the size of the detector files of runs, in GB."""
        sizes = (
            os.path.getsize(path)
            for run in runs_of(headers)
            for name, doc in run.documents(fill=False)
            if name == "resource"
            for path in file_list(run, doc)
        )
        return sum(sizes) * 1e-9

    def __reduce__(self) -> tuple[Any, ...]:
        return (_of, (self._db, self._search))

    def __repr__(self) -> str:
        whose = self._db if self._search is None else self._all
        return f"<databroker Broker of {whose!r}>"


def _of(db: DataBroker, search: Search | None) -> Any:
    return db.v1 if search is None else db.v1.narrowed(search)


def _no_handlers(handler_registry: object) -> None:
    if handler_registry is not None:
        raise NotImplementedError("register handlers by db.reg.register_handler instead")


def _moved(resource: Mapping[str, Any], new_root: str) -> Document:
    path = str(resource.get("resource_path", "")).lstrip("/")
    return Document({**resource, "root": str(new_root), "resource_path": path})


def _search(text: str | None, query: Mapping[str, Any]) -> Search:
    rest = dict(query)
    data_key = rest.pop("data_key", None)
    for old, new in OLD_NAMES.items():
        if old in rest:
            if new in rest:
                raise TypeError(f"{old!r} is the old name of {new!r}; give one of them")
            warnings.warn(
                f"the argument {old!r} was renamed to {new!r}; use {new!r}",
                UserWarning,
                stacklevel=3,
            )
            rest[new] = rest.pop(old)
    since, until = seconds(rest.pop("since", None)), seconds(rest.pop("until", None))
    words = {"start": rest} if rest else {}
    if data_key is not None:
        words["data_key"] = data_key
    return compile_search(text, None, since, until, words)
