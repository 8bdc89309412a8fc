"""A stream of a run as databroker's version 2 shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..core.documents import Document
from ..header import Header
from .datasets import stream_dataset

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BlueskyEventStream"]


class BlueskyEventStream:
    """A stream; ``run.primary``.

    Parameters
    ----------
    header
        The run, with today's views.
    name
        Of the stream.
    include, exclude
        Data keys that are, or are not, in the Dataset; not both.
    deregistered
        Called before files are read; raises if a handler was deregistered.
    """

    def __init__(
        self,
        header: Header,
        name: str,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        deregistered: Callable[[], None] = lambda: None,
    ) -> None:
        if include is not None and exclude is not None:
            raise ValueError("give include or exclude, not both")
        self.header = header
        self.name = name
        self._include = None if include is None else list(include)
        self._exclude = frozenset(exclude or ())
        self._check = deregistered

    def __call__(
        self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> BlueskyEventStream:
        """The same stream with some data keys, or without some."""
        return BlueskyEventStream(self.header, self.name, include, exclude, self._check)

    get = __call__

    @property
    def _descriptors(self) -> list[Document]:
        return self.header.descriptors[self.name]

    @property
    def metadata(self) -> dict[str, Any]:
        """``start`` and ``stop`` of the run, and the ``descriptors`` of the stream."""
        header = self.header
        descriptors = self._descriptors
        return {"start": header.start, "stop": header.stop, "descriptors": descriptors}

    def describe(self) -> dict[str, Any]:
        """Name and metadata."""
        return {"name": self.name, "metadata": self.metadata}

    def read(self) -> xr.Dataset:
        """The stream, read and filled."""
        return self.to_dask().load()

    def to_dask(self) -> xr.Dataset:
        """The stream as a lazy Dataset; ``time`` is in POSIX seconds."""
        self._check()
        if self._include is None and not self._exclude:
            return stream_dataset(self.header, self.name)
        chosen = self._include or [key for key in self._keys if key not in self._exclude]
        fields = {f"data:{key}": key for key in chosen if key in self._keys}
        return stream_dataset(self.header, self.name, fields)

    @property
    def _keys(self) -> list[str]:
        return list({key: None for doc in self._descriptors for key in doc["data_keys"]})

    @property
    def timestamps(self) -> xr.Dataset:
        """When each value was read, POSIX seconds, by data key; a lazy Dataset."""
        fields = {f"ts:{key}": key for key in self._keys}
        return stream_dataset(self.header, self.name, fields)

    @property
    def config(self) -> dict[str, Configuration]:
        """``{device: configuration}``; ``run.primary.config["det"].read()``."""
        devices: dict[str, dict[str, None]] = {}
        for doc in self._descriptors:
            for device, configuration in (doc.get("configuration") or {}).items():
                names = dict.fromkeys(configuration.get("data") or {})
                devices.setdefault(device, {}).update(names)
        return {
            device: Configuration(self.header, self.name, device, list(keys))
            for device, keys in devices.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        include, exclude = self._include, self._exclude or None
        return (BlueskyEventStream, (self.header, self.name, include, exclude))

    def __repr__(self) -> str:
        return f"<BlueskyEventStream {self.name!r} of run {self.header.uid!r}>"


class Configuration:
    """The configuration of a device, event by event.

    Parameters
    ----------
    header, name
        Run and stream.
    device, keys
        The device, and what is known of it.
    """

    def __init__(self, header: Header, name: str, device: str, keys: list[str]) -> None:
        self.header = header
        self.name = name
        self.device = device
        self.keys = keys

    def read(self) -> xr.Dataset:
        """As a Dataset along ``time``."""
        return self.to_dask().load()

    def to_dask(self) -> xr.Dataset:
        """As a lazy Dataset along ``time``."""
        fields = {f"config:{self.device}:{key}": key for key in self.keys}
        return stream_dataset(self.header, self.name, fields)

    def __repr__(self) -> str:
        return f"<Configuration of {self.device!r}: {', '.join(self.keys)}>"
