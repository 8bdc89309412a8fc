"""Which handler reads which spec, and how a task names it without carrying it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any, TypeAlias

import cloudpickle

from ...core.errors import FillError, HandlerExists, HandlerNotFound
from ...core.forking import in_each_process
from ..files.resolving import normal_spec

__all__ = ["Factory", "HandlerRegistry", "HandlerType"]

HandlerType: TypeAlias = "Callable[..., Any] | str"
"""What can be registered: a subclass of ``BlockHandler``, a classic handler class or any other
callable ``(path, **resource_kwargs) -> (**datum_kwargs) -> array``, or ``"module:Class"``."""

GROUP = "databroker.handlers"
_HANDLERS = __package__
OWN: dict[str, str] = {
    "AD_HDF5": f"{_HANDLERS}.hdf5.frames:AreaDetectorHDF5",
    "AD_HDF5_SWMR": f"{_HANDLERS}.hdf5.frames:AreaDetectorHDF5SWMR",
    "AD_HDF5_SWMR_STREAM": f"{_HANDLERS}.hdf5.frames:FrameHDF5",
    **dict.fromkeys(
        ("AD_EIGER", "AD_EIGER2", "AD_EIGER_SLICE"), f"{_HANDLERS}.hdf5.detectors:Eiger"
    ),
    "AD_HDF5_SINGLE": f"{_HANDLERS}.hdf5.detectors:SingleHDF5",
    "AD_HDF5_SWMR_TS": f"{_HANDLERS}.hdf5.detectors:AreaDetectorTimesSWMR",
    "AD_HDF5_TS": f"{_HANDLERS}.hdf5.detectors:AreaDetectorTimes",
    "TPX_HDF5": f"{_HANDLERS}.hdf5.detectors:Timepix",
    "XSP3": f"{_HANDLERS}.hdf5.detectors:Xspress3",
    **dict.fromkeys(
        ("XSP3_FLY", "XPS3_FLY", "DEXELA_FLY_V1", "MERLIN_FLY", "MERLIN_FLY_STREAM_V1"),
        f"{_HANDLERS}.hdf5.detectors:FlyScan",
    ),
    "AD_TIFF": f"{_HANDLERS}.tiff:AreaDetectorTIFF",
    "NPY_SEQ": f"{_HANDLERS}.npy:SequenceNPY",
    "RWFS_NPY": f"{_HANDLERS}.npy:SequenceNPY",
    "npy": f"{_HANDLERS}.npy:SingleNPY",
    "npy_FRAMEWISE": f"{_HANDLERS}.npy:FrameNPY",
    "AD_CBF": f"{_HANDLERS}.fabio:AreaDetectorCBF",
    "application/x-zarr": f"{_HANDLERS}.zarr:StreamZarr",
    "multipart/related;type=image/x-cbf": f"{_HANDLERS}.fabio:StreamCBF",
    "multipart/related;type=image/x-edf": f"{_HANDLERS}.fabio:StreamEDF",
    "application/x-hdf5": f"{_HANDLERS}.hdf5.frames:StreamHDF5",
    "multipart/related;type=application/x-npy": f"{_HANDLERS}.npy:StreamNPY",
    "image/tiff": f"{_HANDLERS}.tiff_pages:StreamPages",
    "multipart/related;type=image/jpeg": f"{_HANDLERS}.jpeg:StreamJPEG",
    "text/csv": f"{_HANDLERS}.csv:StreamCSVWithNames",
    "text/csv;header=absent": f"{_HANDLERS}.csv:StreamCSV",
    "text/csv;header=present": f"{_HANDLERS}.csv:StreamCSVWithNames",
    "multipart/related;type=image/tiff": f"{_HANDLERS}.tiff:StreamTIFF",
}
"""Our own block handlers, by name so that h5py and tifffile load where a file is read."""


@dataclass(frozen=True)
class Factory:
    """A handler class as a task carries it: by reference, never an instance.

    Attributes
    ----------
    spec
        That it was found for.
    reference
        ``"module:qualname"``; or, for what no module of that name has (a class made in
        ``__main__`` or in a function), cloudpickle's bytes of it.
    """

    spec: str
    reference: str | bytes

    @classmethod
    def of(cls, spec: str, handler: HandlerType) -> Factory:
        """From what was registered.

        Raises
        ------
        FillError
            For something that is neither callable nor ``"module:Class"``.
        """
        if isinstance(handler, Factory):
            return cls(spec, handler.reference)
        if isinstance(handler, str):
            module, _, name = handler.partition(":")
            if module and name:
                return cls(spec, handler)
        elif callable(handler):
            return cls(spec, _reference(handler) or cloudpickle.dumps(handler))
        raise FillError(f"{handler!r} is no handler for {spec!r}: give a class or 'module:Class'")

    def load(self) -> Callable[..., Any]:
        """The handler class, imported once a process.

        Raises
        ------
        FillError
            If it cannot be imported here.
        """
        return _load(self)

    def __repr__(self) -> str:
        name = self.reference if isinstance(self.reference, str) else "a class by value"
        return f"Factory({self.spec!r}, {name})"


def _reference(handler: Any) -> str | None:
    """``module:qualname`` if that is where the handler is found again, else None."""
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not module or not name or module == "__main__":
        return None
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
    return f"{module}:{name}" if found is handler else None


@lru_cache(maxsize=1024)
def _load(factory: Factory) -> Callable[..., Any]:
    try:
        if isinstance(factory.reference, bytes):
            return cloudpickle.loads(factory.reference)
        module, _, name = factory.reference.partition(":")
        return attrgetter(name)(importlib.import_module(module))
    except Exception as error:
        raise FillError(
            f"the handler for spec {factory.spec!r}, {factory!r}, cannot be imported here: {error}"
        ) from error


class HandlerRegistry:
    """Handlers by spec: those registered, then our own, then those of installed packages.

    Threads may use it at once. A mimetype is a spec too; its case and blanks do not matter.

    Parameters
    ----------
    handlers
        To register from the start, ``{spec: handler}``.
    """

    def __init__(self, handlers: Mapping[str, HandlerType] | None = None) -> None:
        self._explicit: dict[str, Factory] = {}
        in_each_process(self._begin)
        for spec, handler in (handlers or {}).items():
            self.register(spec, handler)

    def _begin(self) -> None:
        self._lock = threading.Lock()

    def register(self, spec: str, handler: HandlerType, overwrite: bool = False) -> None:
        """Say which handler reads a spec.

        Raises
        ------
        HandlerExists
            If another one is registered for it and ``overwrite`` is False.
        FillError
            If it is no handler.
        """
        spec = normal_spec(spec)
        factory = Factory.of(spec, handler)
        with self._lock:
            known = self._explicit.get(spec, factory)
            if known != factory and not overwrite:
                raise HandlerExists(
                    f"{known!r} is registered for this spec; overwrite=True replaces it"
                )
            self._explicit[spec] = factory

    def unregister(self, spec: str) -> None:
        """Forget what was registered; what is built in or installed comes forth again.

        Raises
        ------
        HandlerNotFound
            If nothing was registered for the spec.
        """
        with self._lock:
            if self._explicit.pop(normal_spec(spec), None) is None:
                raise HandlerNotFound(f"no handler is registered for spec {spec!r}")

    def specs(self) -> dict[str, str]:
        """Every spec that can be read, and by what: ``"module:Class"``."""
        found = {**_installed(), **OWN}
        with self._lock:
            found.update({spec: _shown(factory) for spec, factory in self._explicit.items()})
        return dict(sorted(found.items()))

    def registered(
        self, handler_registry: HandlerRegistry | Mapping[str, HandlerType] | None = None
    ) -> dict[str, Factory]:
        """What a task has to carry: the handlers that were registered, by spec.

        Parameters
        ----------
        handler_registry
            By spec, for one call, before what is registered here.
        """
        if isinstance(handler_registry, HandlerRegistry):
            more = handler_registry.registered()
        else:
            given = handler_registry or {}
            more = {normal_spec(spec): Factory.of(spec, given[spec]) for spec in given}
        with self._lock:
            return {**self._explicit, **more}

    def find(
        self,
        spec: str,
        *,
        data_key: str = "",
        handler_registry: Mapping[str, HandlerType] | None = None,
        handler_overrides: Mapping[str, HandlerType] | None = None,
        where: str = "",
    ) -> Factory:
        """The handler for a spec.

        Parameters
        ----------
        spec
            Or mimetype.
        data_key
            That is filled, looked up in ``handler_overrides`` before all else.
        handler_registry
            By spec, for this call, looked up before what is registered.
        handler_overrides
            By data key.
        where
            Begins the message of an error: run, stream and key.

        Raises
        ------
        HandlerNotFound
            If there is none.
        """
        spec = normal_spec(spec)
        if handler_overrides and data_key in handler_overrides:
            return Factory.of(spec, handler_overrides[data_key])
        for name, handler in (handler_registry or {}).items():
            if normal_spec(name) == spec:
                return Factory.of(spec, handler)
        with self._lock:
            if spec in self._explicit:
                return self._explicit[spec]
        reference = OWN.get(spec) or _installed().get(spec)
        if reference is not None:
            return Factory(spec, reference)
        label = f"{where}: " if where else ""
        raise HandlerNotFound(
            f"{label}no handler for spec {spec!r}; register one, or fill=False leaves references "
            "as they are"
        )


def _shown(factory: Factory) -> str:
    return factory.reference if isinstance(factory.reference, str) else "(class by value)"


@lru_cache(maxsize=1)
def _installed() -> Mapping[str, str]:
    """Handlers of installed packages, by name; they are imported only when they read."""
    return {normal_spec(point.name): point.value for point in entry_points(group=GROUP)}
