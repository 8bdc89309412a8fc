"""A stream of a run with the interface of databroker's version 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.documents import Document
from ..core.errors import FieldNotFound
from ..header import Header
from .selecting import names_of
from .stream_datasets import stream_dataset

if TYPE_CHECKING:
    import xarray as xr


class BlueskyEventStream:
    """A stream of a run, such as ``run.primary``.

    Parameters
    ----------
    header
        The run with daskbroker's own views.
    name
        Name of the stream.
    include, exclude
        Data keys to have in the Dataset, or to leave out; only one of the two may be given.
    deregistered
        Function that is called before files are read; it raises if a handler was deregistered.

    Raises
    ------
    ValueError
        If both ``include`` and ``exclude`` are given.
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
        include = [include] if isinstance(include, str) else include  # the order is kept
        self._include = None if include is None else list(include)
        self._exclude = names_of(exclude) or set()
        self._check = deregistered

    def __call__(
        self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> BlueskyEventStream:
        """Return the same stream with only some data keys, or without some."""
        return BlueskyEventStream(self.header, self.name, include, exclude, self._check)

    get = __call__

    def __getitem__(self, key: Any) -> NoReturn:
        """Raise an error that names the methods: in databroker 2 a stream has ``["data"]``."""
        raise FieldNotFound(
            f"a stream has no {key!r}, as it has in databroker 2; stream.read() and "
            "stream.to_dask() are Datasets of its data keys"
        )

    @property
    def _descriptors(self) -> list[Document]:
        return self.header.descriptors[self.name]

    @property
    def metadata(self) -> dict[str, Any]:
        """``start`` and ``stop`` of the run, and ``descriptors`` of the stream, in a dict."""
        header = self.header
        descriptors = self._descriptors
        return {"start": header.start, "stop": header.stop, "descriptors": descriptors}

    def describe(self) -> dict[str, Any]:
        """Return ``{"name": …, "metadata": …}``."""
        return {"name": self.name, "metadata": self.metadata}

    def read(self, variables: Iterable[str] | None = None) -> xr.Dataset:
        """Read the stream into memory as a Dataset, with external data filled.

        Parameters
        ----------
        variables
            Data keys to read, as in databroker 2 and Tiled; those of the stream if None.
        """
        return (self if variables is None else self(include=variables)).to_dask().load()

    def to_dask(self) -> xr.Dataset:
        """Open the stream as a lazy Dataset; ``time`` is in POSIX seconds."""
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
        """Timestamps of each data key in POSIX seconds, as a lazy Dataset."""
        fields = {f"ts:{key}": key for key in self._keys}
        return stream_dataset(self.header, self.name, fields)

    @property
    def config(self) -> dict[str, ConfigurationOfDevice]:
        """``{device: configuration}``, as in ``run.primary.config["det"].read()``."""
        devices: dict[str, dict[str, None]] = {}
        for doc in self._descriptors:
            for device, configuration in (doc.get("configuration") or {}).items():
                names = dict.fromkeys(configuration.get("data") or {})
                devices.setdefault(device, {}).update(names)
        return {
            device: ConfigurationOfDevice(self.header, self.name, device, list(keys))
            for device, keys in devices.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        include, exclude = self._include, self._exclude or None
        return (BlueskyEventStream, (self.header, self.name, include, exclude))

    def __repr__(self) -> str:
        return f"<BlueskyEventStream {self.name!r} of run {self.header.uid!r}>"


class ConfigurationOfDevice:
    """The configuration of a device, with one value per event.

    Parameters
    ----------
    header, name
        Run, and name of the stream.
    device, keys
        Name of the device, and keys of its configuration.
    """

    def __init__(self, header: Header, name: str, device: str, keys: list[str]) -> None:
        self.header = header
        self.name = name
        self.device = device
        self.keys = keys

    def read(self) -> xr.Dataset:
        """Read the configuration into memory, as a Dataset along ``time``."""
        return self.to_dask().load()

    def to_dask(self) -> xr.Dataset:
        """Open the configuration as a lazy Dataset along ``time``."""
        fields = {f"config:{self.device}:{key}": key for key in self.keys}
        return stream_dataset(self.header, self.name, fields)

    def __repr__(self) -> str:
        return f"<Configuration of {self.device!r}: {', '.join(self.keys)}>"
