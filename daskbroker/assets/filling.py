"""Filling: external data in place of references, a block of cells in one read of each file.

A :class:`Filling` is what a task carries: where the references of its runs are, which handlers are
not found by themselves, and where files may be. It holds no open file and no handler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ..core.errors import FillError
from ..core.external import is_stream_key
from .blocks import cell_shape, read_block
from .handlers.regions import axes_of, shape_of
from .held import Held
from .readable import ANYWHERE, ReadableRoots
from .references import Found, ReferenceMissing, References
from .registry import Factory, HandlerRegistry
from .resolving import ResolvedResource, normal_spec, resolve
from .shapes import Declared, Mismatch, Roi, cast, check, fit, outer_index, reshaped
from .sizes import SMALL_BLOCK, is_believable

__all__ = ["Filling", "Target"]

_FOUND_BY_THEMSELVES = HandlerRegistry()
"""Our own handlers and those of installed packages, which every process finds."""


@dataclass(frozen=True)
class Target:
    """What is filled: one key of one descriptor.

    Attributes
    ----------
    run, stream, descriptor
        Uid, name, uid.
    key
        Data key.
    claim
        Its entry in the descriptor's ``data_keys``.
    """

    run: str
    stream: str
    descriptor: str
    key: str
    claim: Mapping[str, Any]

    @classmethod
    def of(cls, descriptor: Mapping[str, Any], key: str) -> Target:
        """Of a descriptor, which may lack the key."""
        stream = str(descriptor.get("name") or "primary")
        claim = descriptor["data_keys"].get(key, {})
        # Of a descriptor made by selecting fields, stream_datums name the one it was made of.
        uid = descriptor.get("derived_from")
        uid = uid if isinstance(uid, str) else descriptor["uid"]
        return cls(descriptor["run_start"], stream, uid, key, claim)

    @property
    def external(self) -> bool:
        """Whether the descriptor says that values are outside the store."""
        return bool(self.claim.get("external"))

    @property
    def where(self) -> str:
        """Run, stream and key, as errors begin."""
        return f"run {self.run!r}, stream {self.stream!r}, key {self.key!r}"


@dataclass(frozen=True, eq=False)
class Filling:
    """How external cells of some runs are filled, in whatever process.

    Attributes
    ----------
    references
        Of each run.
    factories
        Handlers that were registered, by spec.
    overrides
        Handlers by data key.
    root_map
        From roots in documents to folders here.
    readable
        Which files may be opened.
    keep_shapes
        In tables and documents, cells whose shape is not what is declared stay as they are;
        otherwise they are an error. Variables of a dataset always have the declared shape.
    """

    references: Mapping[str, References]
    factories: Mapping[str, Factory]
    overrides: Mapping[str, Factory]
    root_map: Mapping[str, str]
    readable: ReadableRoots = ANYWHERE
    keep_shapes: bool = False

    def of_runs(self, runs: Collection[str]) -> Filling:
        """The same with the references of only some runs, of those that have any."""
        if all(run in runs for run in self.references):
            return self
        found = {run: self.references[run] for run in runs if run in self.references}
        return replace(self, references=found)

    @property
    def token(self) -> str:
        """Changes with whatever changes what is read, but for the files themselves."""
        parts = (
            [(run, found.token) for run, found in self.references.items()],
            sorted((spec, factory.reference) for spec, factory in self.factories.items()),
            sorted((key, factory.reference) for key, factory in self.overrides.items()),
            sorted(self.root_map.items()),
            self.readable,
            self.keep_shapes,
        )
        return hashlib.blake2b(repr(parts).encode("utf8", "replace"), digest_size=16).hexdigest()

    # -- cells as they come ------------------------------------------------------------------

    def cells(self, target: Target, held: Held, near: float = 0.0) -> np.ndarray:
        """The cells of some events as they are in a table: views of one block of each file.

        Parameters
        ----------
        target, held
            Which cells.
        near
            Where in the run the events are, from 0 to 1, to find their datums quickly.

        Returns
        -------
        numpy.ndarray
            Of dtype ``object``, one cell an event: what the handler gives, in the declared
            shape; None for an event that has neither value nor reference.

        Raises
        ------
        FillError
            Naming run, stream, key and, where there is a file, spec and path.
        """
        out = np.empty(len(held), dtype=object)
        for place, value in zip(held.valued.tolist(), held.values, strict=True):
            out[place] = value
        declared = Declared.of([target.claim]).shape
        for found in self._find(target, held, near):
            resource, factory = self._handler(target, found)
            more: dict[str, Any] = {"data_key": target.claim, "where": target.where}
            with _naming(target, resource):
                if declared is None or self.keep_shapes:
                    block = read_block(resource, factory, found.datums, **more)
                else:
                    given = cell_shape(resource, factory, found.datums, **more)
                    if given is not None:  # before memory is taken for it
                        check(declared, given)
                    block = _in_shape(
                        read_block(resource, factory, found.datums, declared=declared, **more),
                        declared,
                    )
            for place, cell in zip(found.places.tolist(), block, strict=True):
                out[place] = cell
        return out

    # -- arrays of a variable ----------------------------------------------------------------

    def array(
        self, target: Target, held: Held, declared: Declared, roi: Roi = (), near: float = 0.0
    ) -> np.ndarray:
        """One region of the cells of some events, in the declared shape and dtype.

        Parameters
        ----------
        target, held, near
            As for :meth:`cells`.
        declared
            With a shape.
        roi
            What to read of each cell.

        Returns
        -------
        numpy.ndarray
            Shape ``(events, *declared.shape[roi])``. An event that has neither value nor
            reference is NaN, or None.

        Raises
        ------
        FillError
            As for :meth:`cells`; also for an event without value where the dtype has no NaN.
        """
        parts = [
            (found.places, self._region(target, found, declared, roi))
            for found in self._find(target, held, near)
        ]
        if len(held.valued):
            parts.append((held.valued, _inline(target, held, declared, roi)))
        if len(parts) == 1 and len(parts[0][0]) == len(held):
            return parts[0][1]
        with _naming(target):
            return _assemble(target, held, declared, roi, parts)

    def _region(self, target: Target, found: Found, declared: Declared, roi: Roi) -> np.ndarray:
        assert declared.shape is not None
        resource, factory = self._handler(target, found)
        more: dict[str, Any] = {"data_key": target.claim, "where": target.where}
        given = cell_shape(resource, factory, found.datums, **more)

        def read(part: Roi) -> np.ndarray:
            block = read_block(
                resource, factory, found.datums, part, declared=declared.shape, **more
            )
            return block if isinstance(block, np.ndarray) else _stack(block, declared)

        with _naming(target, resource):
            return cast(fit(read, given, declared.shape, roi), declared.dtype)

    # -- common ------------------------------------------------------------------------------

    def _find(self, target: Target, held: Held, near: float) -> Iterator[Found]:
        """Where the cells are, resource by resource; those of one read at a time."""
        try:
            if len(held.references):
                references = self._references(target)
                for found in references.find(held.references, near):
                    yield found._replace(places=held.referring[found.places])
            if len(held.bare) and is_stream_key(target.claim):
                references = self._references(target)
                frames = references.find_frames(
                    target.descriptor, target.key, held.seq_nums[held.bare]
                )
                for found in frames:
                    yield found._replace(places=held.bare[found.places])
        except ReferenceMissing as error:
            raise FillError(
                f"{target.where}: {error}; fill=False leaves references as they are"
            ) from None

    def _references(self, target: Target) -> References:
        try:
            return self.references[target.run]
        except KeyError:
            raise ReferenceMissing("the references of this run are not at hand") from None

    def _handler(self, target: Target, found: Found) -> tuple[ResolvedResource, Factory]:
        resource = resolve(
            found.resource,
            root_map=self.root_map,
            readable_roots=self.readable,
            stream=found.indices is not None,
            where=target.where,
        )
        if found.indices is not None and found.indices[0] > 0:  # its file may begin there
            resource = replace(resource, kwargs={**resource.kwargs, "indices": found.indices})
        factory = self.overrides.get(target.key) or self.factories.get(normal_spec(resource.spec))
        if factory is None:
            factory = _FOUND_BY_THEMSELVES.find(resource.spec, where=target.where)
        return resource, factory


class _naming:
    """Turns a :class:`Mismatch` or a lack of memory into an error that says where."""

    def __init__(self, target: Target, resource: ResolvedResource | None = None) -> None:
        self._target = target
        self._resource = resource

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, (Mismatch, MemoryError)):
            return
        label = self._target.where
        if self._resource is not None:
            label += f", spec {self._resource.spec!r}, path {self._resource.path!r}"
        if isinstance(error, MemoryError):
            raise FillError(
                f"{label}: there is not enough memory for what is asked: {error or 'MemoryError'}"
            ) from None
        raise FillError(
            f"{label}: {error}; a table gives cells as they are with the configuration "
            "daskbroker.shape-mismatch 'keep', and h.dataset(dtypes={key: dtype}) takes another "
            "dtype than the declared one"
        ) from None


def _in_shape(block: Any, declared: tuple[int, ...]) -> Any:
    """Cells in the declared shape; those that are no arrays as they are."""
    if isinstance(block, np.ndarray):
        return reshaped(block, declared)
    return [reshaped(c[None], declared)[0] if isinstance(c, np.ndarray) else c for c in block]


def _stack(cells: Any, declared: Declared) -> np.ndarray:
    """Cells one by one as a block of the declared shape."""
    assert declared.shape is not None
    if not len(cells):
        return np.empty((0, *declared.shape), declared.dtype)
    try:
        arrays = [np.asarray(cell)[None] for cell in cells]
    except ValueError:
        raise Mismatch("the cells that the handler gives are no arrays") from None
    return np.concatenate([reshaped(array, declared.shape) for array in arrays])


def _inline(target: Target, held: Held, declared: Declared, roi: Roi) -> np.ndarray:
    """Values that are there already, as a variable has them."""
    assert declared.shape is not None
    with _naming(target):
        values = held.values
        block = (
            reshaped(values, declared.shape)
            if isinstance(values, np.ndarray)
            else _stack(values, declared)
        )
        return cast(outer_index(block, roi), declared.dtype)


def _assemble(
    target: Target,
    held: Held,
    declared: Declared,
    roi: Roi,
    parts: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Parts in the order of the events; events of none are NaN."""
    assert declared.shape is not None
    cell = shape_of(axes_of(roi, declared.shape))
    size = len(held) * prod(cell) * declared.dtype.itemsize
    if not parts and not is_believable(size, 0, SMALL_BLOCK):
        raise FillError(
            f"{target.where}: the descriptor declares cells of {declared.shape}, {size:,} bytes "
            f"for {len(held)} events of which none has a value"
        )
    out = np.empty((len(held), *cell), declared.dtype)
    missing = np.ones(len(held), bool)
    for places, block in parts:
        out[places] = block
        missing[places] = False
    if missing.any():
        if declared.dtype.kind not in "fcO":
            raise FillError(
                f"{target.where}: event {int(held.seq_nums[missing][0])} has neither value nor "
                f"reference, and {declared.dtype} has no NaN; "
                "h.dataset(dtypes={key: 'float64'}) has"
            )
        out[missing] = None if declared.dtype.kind == "O" else np.nan
    return out
