"""A run, and the results of a search, with the interface of databroker 1."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import header as today
from .. import results as found
from ..core.clock import seconds_of
from ..core.documents import ALL, StreamName
from .stream_datasets import stream_dataset
from .v1_documents import descriptors_of, hooked

if TYPE_CHECKING:
    import xarray as xr

    from .v1 import Broker

KEYS = ("start", "descriptors", "stop", "ext")


class Header:
    """A run of ``db.v1``; its tables are computed, and unfilled unless ``fill=True``.

    Parameters
    ----------
    db
        Broker whose ``prepare_hook`` is applied to documents.
    run
        The same run with daskbroker's own views.

    Attributes
    ----------
    run
        The same run with daskbroker's own views.
    ext
        Namespace of the results of ``db.external_fetchers`` for the run.
    """

    def __init__(self, db: Broker, run: today.Header) -> None:
        self.db = db
        self.run = run
        external = db.fetch_external(self.start, self.stop) if db.external_fetchers else {}
        self.ext = SimpleNamespace(**external)

    @property
    def uid(self) -> str:
        """Uid of the run."""
        return self.run.uid

    @property
    def start(self) -> Any:
        """Start document."""
        return hooked(self.db.prepare_hook, "start", self.run.start)

    @property
    def stop(self) -> Any:
        """Stop document; an empty one while the run has none."""
        if self.run.stop is None:
            self.run = self.run.db[self.uid]  # the stop may have been inserted since
        return hooked(self.db.prepare_hook, "stop", self.run.stop or {})

    @property
    def descriptors(self) -> list[Any]:
        """Descriptors of all streams, newest first."""
        docs = sorted(descriptors_of(self.run, ALL), key=seconds_of, reverse=True)
        return [hooked(self.db.prepare_hook, "descriptor", doc) for doc in docs]

    @property
    def stream_names(self) -> list[str]:
        """Names of the streams."""
        return self.run.streams

    def fields(self, stream_name: StreamName = ALL) -> set[str]:
        """Return the names of the data keys of one stream, or of all streams."""
        return {key for doc in descriptors_of(self.run, stream_name) for key in doc["data_keys"]}

    def devices(self, stream_name: StreamName = ALL) -> set[str]:
        """Return the names of the devices of one stream, or of all streams."""
        descriptors = descriptors_of(self.run, stream_name)
        return {device for doc in descriptors for device in doc.get("object_keys", {})}

    def config_data(self, device_name: str) -> dict[str, list[dict[str, Any]]]:
        """Return the configuration of a device: by stream, one mapping per descriptor that has it.

        It is empty if no descriptor has the device.
        """
        read: dict[str, list[dict[str, Any]]] = {}
        for stream, docs in self.run.descriptors.items():
            for doc in docs:
                device = doc.get("configuration", {}).get(device_name)
                if device:
                    read.setdefault(stream, []).append(dict(device["data"]))
        return read

    # -- data --------------------------------------------------------------------------------

    def documents(
        self, stream_name: StreamName = ALL, fields: Iterable[str] | None = None, fill: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Iterate over the documents; see :meth:`Broker.get_documents`."""
        return self.db.get_documents(self, stream_name, fields, fill)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Old name of :meth:`documents`; warns."""
        warnings.warn(
            "Header.stream was renamed to Header.documents; use documents",
            UserWarning,
            stacklevel=2,
        )
        return self.documents(*args, **kwargs)

    def events(
        self,
        stream_name: StreamName = "primary",
        fields: Iterable[str] | None = None,
        fill: bool = False,
    ) -> Iterator[Any]:
        """Iterate over the events of one stream; see :meth:`Broker.get_events`."""
        return self.db.get_events(self, stream_name, fields, fill)

    def table(
        self,
        stream_name: str = "primary",
        fields: Iterable[str] | None = None,
        fill: bool = False,
        timezone: str | None = None,
        convert_times: bool = True,
        localize_times: bool = True,
    ) -> pd.DataFrame:
        """Return one stream as a pandas DataFrame; see :meth:`Broker.get_table`."""
        return self.db.get_table(
            self,
            stream_name,
            fields,
            fill,
            convert_times=convert_times,
            timezone=timezone,
            localize_times=localize_times,
        )

    def data(self, field: str, stream_name: str = "primary", fill: bool = True) -> Iterator[Any]:
        """Yield the values of one field, event by event. Lazy."""
        descriptors = self.run.descriptors.get(stream_name, [])
        # A field that is no data key may be metadata, or a pattern; `events` knows those.
        if not all(field in doc["data_keys"] for doc in descriptors):
            for event in self.events(stream_name, [field], fill):
                yield event["data"][field]
        elif descriptors:  # no other key is read or filled
            if fill:
                self.db.reg.check(self.run)
            for name, doc in self.run.stream(stream_name, fill, [f"data:{field}"]):
                if name == "event" and field in doc["data"]:
                    yield doc["data"][field]

    def xarray(self, stream_name: str = "primary") -> xr.Dataset:
        """Read one stream into memory as a Dataset, with external data filled."""
        return self.xarray_dask(stream_name).load()

    def xarray_dask(self, stream_name: str = "primary") -> xr.Dataset:
        """Open one stream as a lazy Dataset; ``time`` is in POSIX seconds."""
        self.db.reg.check(self.run)
        return stream_dataset(self.run, stream_name)

    # -- as a mapping ------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def get(self, *args: Any) -> Any:
        """Return any attribute, or a default: ``get(name[, default])``, as in databroker."""
        return getattr(self, *args)

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of ``h[...]``."""
        return iter(KEYS)

    def values(self) -> Iterator[Any]:
        """Iterate over the values of ``h[...]``."""
        return (getattr(self, key) for key in KEYS)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over pairs of key and value of ``h[...]``."""
        return ((key, getattr(self, key)) for key in KEYS)

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Header) and self.run.start == other.run.start

    def __hash__(self) -> int:
        return hash(self.uid)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Header, (self.db, self.run))

    def __repr__(self) -> str:
        return repr(self.run)

    def _repr_html_(self) -> str:
        return self.run._repr_html_()


class Results:
    """The runs that a search of ``db.v1`` finds, newest first; each iteration searches again.

    Parameters
    ----------
    db
        Broker of databroker 1 that the runs come from.
    runs
        The same runs with daskbroker's own views.
    """

    def __init__(self, db: Broker, runs: found.Results) -> None:
        self._db = db
        self.runs = runs

    def __iter__(self) -> Iterator[Header]:
        return (Header(self._db, run) for run in self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        return repr(self.runs)

    def _repr_html_(self) -> str:
        return self.runs._repr_html_()


Headers = Header | today.Header | Iterable[Header | today.Header]
"""One or more runs."""


def runs_of(headers: Headers) -> Iterator[today.Header]:
    """Yield runs as Headers of daskbroker itself.

    Raises
    ------
    TypeError
        If one of them is no Header.
    """
    single = (Header, today.Header, str, Mapping)  # the last two are refused as they are
    for one in [headers] if isinstance(headers, single) else headers:
        run = one.run if isinstance(one, Header) else one
        if not isinstance(run, today.Header):
            raise TypeError(f"a Header is needed, such as db[uid], not {run!r:.80}")
        yield run
