"""A run with the interface of databroker's version 2."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from event_model import pack_datum_page, pack_event_page

from ..core.documents import Document
from ..core.name_lists import listed
from ..header import Header
from .delayed import delayed_events
from .event_stream import BlueskyEventStream
from .file_registry import file_list

if TYPE_CHECKING:
    import xarray as xr

FILL = ("yes", "no", "delayed")
PACKED = {
    "event": ("event_page", pack_event_page),
    "datum": ("datum_page", pack_datum_page),
}


class BlueskyRun(Mapping[str, BlueskyEventStream]):
    """A run of ``db.v2``: a mapping from names to streams; ``run.primary`` is ``run["primary"]``.

    Parameters
    ----------
    header
        The same run with daskbroker's own views.
    """

    def __init__(self, header: Header) -> None:
        self.header = header

    def __call__(self) -> BlueskyRun:
        """Return the run itself: databroker's catalog entry and run are one object here."""
        return self

    get = __call__  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """Uid of the run."""
        return self.header.uid

    @property
    def cat(self) -> Any:
        """Catalog that the run comes from."""
        return self.header.db.v2

    @property
    def metadata(self) -> dict[str, Any]:
        """``{"start": …, "stop": …}``; the stop is None while there is none."""
        if self.header.stop is None:
            self.header = self.header.db[self.header.uid]  # the stop may have been inserted since
        return {"start": self.header.start, "stop": self.header.stop}

    def describe(self) -> dict[str, Any]:
        """Return ``{"name": …, "metadata": …}``."""
        return {"name": self.name, "metadata": self.metadata}

    # -- streams -----------------------------------------------------------------------------

    def __getitem__(self, name: str) -> BlueskyEventStream:
        if name not in self.header.streams:
            self.header.es_given_stream(name)  # raises a StreamNotFound that lists the streams
        return BlueskyEventStream(self.header, name, deregistered=self._check)

    def __getattr__(self, name: str) -> BlueskyEventStream:
        if not name.startswith("_") and name in self.header.streams:
            return self[name]
        text = f"a BlueskyRun has no attribute or stream {name!r}"
        # Protocols of other packages look for many names that begin so.
        if not name.startswith("_"):
            text += f"; its streams are: {listed(self.header.streams, name)}"
        raise AttributeError(text, name=name, obj=self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.header.streams]

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.streams)

    def __len__(self) -> int:
        return len(self.header.streams)

    def _check(self) -> None:
        self.header.db.v1.reg.check(self.header)

    # -- data --------------------------------------------------------------------------------

    def documents(self, *, fill: str, strict_order: bool = True) -> Iterator[tuple[str, Any]]:
        """Iterate over the documents as ``(name, doc)``, each event and datum as a page. Lazy.

        Each page has one event or datum.

        Parameters
        ----------
        fill
            Form of external data: arrays (``"yes"``), references (``"no"``), or one Dask array
            per cell (``"delayed"``).
        strict_order
            Ignored: events are always ordered by time.

        Raises
        ------
        ValueError
            If ``fill`` is another value.
        HandlerNotFound
            If a handler that filling needs was deregistered.
        """
        if fill not in FILL:
            raise ValueError(f"fill is one of {', '.join(FILL)}, not {fill!r}")
        if fill != "no":
            self._check()
        if fill == "delayed":
            stream: Iterator[tuple[str, Any]] = delayed_events(self.header)
        else:
            stream = self.header.documents(fill == "yes")
        return (_paged(name, doc) for name, doc in stream)

    def canonical(self, *, fill: str, strict_order: bool = True) -> Iterator[tuple[str, Any]]:
        """Old name of :meth:`documents`; warns."""
        _warn_of("canonical")
        yield from self.documents(fill=fill, strict_order=strict_order)

    def read_canonical(self) -> Iterator[tuple[str, Any]]:
        """Old name of ``documents(fill="yes")``; warns."""
        _warn_of("read_canonical")
        yield from self.documents(fill="yes")

    def get_file_list(self, resource: Mapping[str, Any]) -> list[str]:
        """Return the paths of the files of a resource document."""
        return file_list(self.header, resource)

    def read(self) -> xr.Dataset:
        """Not supported; read a stream instead, ``run.primary.read()``."""
        raise NotImplementedError("read one of its streams, run.primary.read()")

    def to_dask(self) -> xr.Dataset:
        """Not supported; open a stream instead, ``run.primary.to_dask()``."""
        raise NotImplementedError("read one of its streams, run.primary.to_dask()")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlueskyRun) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (BlueskyRun, (self.header,))

    def __repr__(self) -> str:
        return f"<BlueskyRun uid={self.name!r}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        streams = "".join(f"\n  * {name}" for name in self)
        printer.text(f"BlueskyRun\n  uid={self.name!r}\n  Streams:{streams}")


def _paged(name: str, doc: Document) -> tuple[str, Any]:
    if name not in PACKED:
        return name, doc
    name, pack = PACKED[name]
    return name, pack(doc.copy())


def _warn_of(old: str) -> None:
    warnings.warn(
        f"BlueskyRun.{old} was renamed to BlueskyRun.documents; use documents",
        UserWarning,
        stacklevel=3,
    )
