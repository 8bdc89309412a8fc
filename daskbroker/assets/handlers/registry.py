"""Registry of the handlers by spec, and how a task refers to a handler without carrying it."""

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

from ...core.digests import digest_of
from ...core.errors import FillError, HandlerExists, HandlerNotFound
from ...core.forking import in_each_process
from ..files.resolving import normal_spec

HandlerType: TypeAlias = "Callable[..., Any] | str"
"""What can be registered: a subclass of ``BlockHandler``, a classic handler class or any other
callable ``(path, **resource_kwargs) -> (**datum_kwargs) -> array``, or the name of one as
``"module:Class"``."""

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
    "AD_SPE": f"{_HANDLERS}.spe:AreaDetectorSPE",
    "AD_TIFF": f"{_HANDLERS}.tiff:AreaDetectorTIFF",
    "IMM": f"{_HANDLERS}.imm:IMM",
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
"""The built-in block handlers, by name, so that h5py and tifffile are imported only where a file is
read."""


@dataclass(frozen=True)
class Factory:
    """A handler class in the form that a task carries: a reference, never an instance.

    Attributes
    ----------
    spec
        Spec that the handler was found for.
    reference
        ``"module:qualname"``, or the class pickled by cloudpickle if it cannot be imported by such
        a name (a class defined in ``__main__`` or in a function).
    """

    spec: str
    reference: str | bytes

    @classmethod
    def of(cls, spec: str, handler: HandlerType) -> Factory:
        """Build from what was registered.

        Raises
        ------
        FillError
            If it is neither callable nor of the form ``"module:Class"``.
        """
        if isinstance(handler, Factory):
            return cls(spec, handler.reference)
        if isinstance(handler, str):
            module, _, name = handler.partition(":")
            if module and name:
                return cls(spec, handler)
        elif callable(handler):
            return cls(spec, _reference(handler) or cloudpickle.dumps(handler))
        raise FillError(
            f"{handler!r} is not a valid handler for {spec!r}: give a class or 'module:Class'"
        )

    def load(self) -> Callable[..., Any]:
        """Return the handler class, which is imported once per process.

        Raises
        ------
        FillError
            If it cannot be imported in this process.
        """
        return _load(self)

    @property
    def label(self) -> str:
        """Short text that identifies the handler: ``reference``, or a hash of a pickled class."""
        if isinstance(self.reference, str):
            return self.reference
        return digest_of(self.reference)

    def __repr__(self) -> str:
        name = self.reference if isinstance(self.reference, str) else "a class by value"
        return f"Factory({self.spec!r}, {name})"


def _reference(handler: object) -> str | None:
    """Return ``module:qualname`` if importing that gives the same handler, else None."""
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
    """Handlers by spec: registered ones first, then built-in ones, then those of other packages.

    Several threads may use it at once. A mimetype is a spec too; its case and blanks do not matter.

    Parameters
    ----------
    handlers
        Handlers to register from the start, ``{spec: handler}``.
    """

    def __init__(self, handlers: Mapping[str, HandlerType] | None = None) -> None:
        self._explicit: dict[str, Factory] = {}
        in_each_process(self._begin)
        for spec, handler in (handlers or {}).items():
            self.register(spec, handler)

    def _begin(self) -> None:
        self._lock = threading.Lock()

    def register(self, spec: str, handler: HandlerType, *, overwrite: bool = False) -> None:
        """Register the handler of a spec.

        Parameters
        ----------
        spec
            Spec or mimetype.
        handler
            Handler class, other callable, or ``"module:Class"``; see :data:`HandlerType`.
        overwrite
            If True, replace another handler that is registered for the spec.

        Raises
        ------
        HandlerExists
            If another handler is registered for the spec and ``overwrite`` is False.
        FillError
            If it is not a handler.
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
        """Remove the registered handler of a spec; a built-in or installed one applies again.

        Raises
        ------
        HandlerNotFound
            If nothing was registered for the spec.
        """
        with self._lock:
            if self._explicit.pop(normal_spec(spec), None) is None:
                raise HandlerNotFound(f"no handler is registered for spec {spec!r}")

    def specs(self) -> dict[str, str]:
        """Return every spec that can be read, and its handler as ``"module:Class"``."""
        found = {**_installed(), **OWN}
        with self._lock:
            explicit = {spec: factory.reference for spec, factory in self._explicit.items()}
        for spec, reference in explicit.items():
            found[spec] = reference if isinstance(reference, str) else "(class by value)"
        return dict(sorted(found.items()))

    def registered(
        self, handler_registry: HandlerRegistry | Mapping[str, HandlerType] | None = None
    ) -> dict[str, Factory]:
        """Return the registered handlers by spec, in the form that a task carries.

        Parameters
        ----------
        handler_registry
            Handlers by spec for one call; they take precedence over those registered here.
        """
        if isinstance(handler_registry, HandlerRegistry):
            more = handler_registry.registered()
        else:
            given = handler_registry or {}
            more = {normal_spec(spec): Factory.of(spec, given[spec]) for spec in given}
        with self._lock:
            return {**self._explicit, **more}

    def find(self, spec: str, *, where: str = "") -> Factory:
        """Return the handler for a spec: the registered one, else ours, else an installed one.

        Parameters
        ----------
        spec
            Spec or mimetype.
        where
            Beginning of an error message: run, stream and key.

        Raises
        ------
        HandlerNotFound
            If there is no handler for the spec.
        """
        spec = normal_spec(spec)
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


@lru_cache(maxsize=1)
def _installed() -> Mapping[str, str]:
    """Return the names of installed packages' handlers by spec, without importing them."""
    return {normal_spec(point.name): point.value for point in entry_points(group=GROUP)}
