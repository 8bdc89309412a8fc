"""Filling: external data in place of references, a block of cells in one read of each file.

A :class:`Filling` is what a task carries: where the references of its runs are, which handlers are
not found by themselves, and where files may be. It holds no open file and no handler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...core.errors import FillError, FrameMissing
from ...core.external import is_stream_key
from ...core.peeks import Cell
from ..files.readable import ANYWHERE, ReadableRoots
from ..files.resolving import ResolvedResource, normal_spec, resolve
from ..handlers.contract import Datums
from ..handlers.registry import Factory, HandlerRegistry
from ..handlers.stored_frames import CellFrames, NoReference
from ..references.locating import Found, ReferenceMissing, References
from ..shapes import (
    Declared,
    Mismatch,
    Roi,
    cast,
    check,
    fit,
    is_open,
    long_axes,
    outer_index,
    reshaped,
)
from .blocks import cell_shape, locate_block, look_at_cells, read_block, touch_block
from .held import FilledBlock, Held
from .knowledge import Differs, Known, KnownOfRun, UnforeseenCells, cells_text
from .missing import DEFAULT_RULE, GO_ON, Gathered, Rule, Rules, none_missing

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
    mismatch
        ``daskbroker.shape-mismatch`` as it was: with ``"raise"`` a file that contradicts its claim
        is an error; with ``"keep"`` tables and documents have the cells of files that nobody has
        looked into as they are; otherwise, ``"warn"``, such cells must be what is declared.
    known
        What is known of the detector files, by run, descriptor and data key.
    rules
        What becomes of missing cells, by stream and data key; of others, that is
        :data:`DEFAULT_RULE`.
    """

    references: Mapping[str, References]
    factories: Mapping[str, Factory]
    overrides: Mapping[str, Factory]
    root_map: Mapping[str, str]
    readable: ReadableRoots = ANYWHERE
    mismatch: str = "warn"
    known: Mapping[str, KnownOfRun] = field(default_factory=dict)
    rules: Rules = field(default_factory=dict)

    def of_runs(self, runs: Collection[str]) -> Filling:
        """The same with the references of only some runs, of those that have any."""
        if all(run in runs for run in self.references):
            return self
        found = {run: self.references[run] for run in runs if run in self.references}
        known = {run: self.known[run] for run in runs if run in self.known}
        return replace(self, references=found, known=known)

    def known_of(self, target: Target) -> Known | None:
        """What is known of the files of a target, None where nobody has looked."""
        return self.known.get(target.run, {}).get((target.descriptor, target.key))

    def declared(self, target: Target) -> Declared:
        """What is believed of the cells of a target."""
        known = self.known_of(target) if target.external else None
        return Declared.of([target.claim]) if known is None else known.declared

    def handler_reference(self, spec: str, key: str) -> str:
        """What would read a spec now, as text that tells it from others; "" if nothing would."""
        try:
            reference = self._factory(spec, key, "").reference
        except FillError:
            return ""
        if isinstance(reference, str):
            return reference
        return hashlib.blake2b(reference, digest_size=16).hexdigest()

    @property
    def token(self) -> str:
        """Changes with whatever changes what is read, but for the files themselves."""
        parts = (
            [(run, found.token) for run, found in self.references.items()],
            sorted((spec, factory.reference) for spec, factory in self.factories.items()),
            sorted((key, factory.reference) for key, factory in self.overrides.items()),
            sorted(self.root_map.items()),
            self.readable,
            self.mismatch,
            sorted((key, repr(rule)) for key, rule in self.rules.items()),
            sorted(
                (run, label, one.token)
                for run, known in self.known.items()
                for label, one in known.items()
            ),
        )
        return hashlib.blake2b(repr(parts).encode("utf8", "replace"), digest_size=16).hexdigest()

    def rule(self, target: Target) -> Rule:
        """What becomes of the missing cells of a target."""
        return self.rules.get((target.stream, target.key), DEFAULT_RULE)

    # -- which cells there are ---------------------------------------------------------------

    def present(self, target: Target, held: Held, near: float = 0.0) -> np.ndarray:
        """Which of some events have a cell, without reading values where handlers can tell.

        Parameters
        ----------
        target, held, near
            As for :meth:`cells`.
        """
        there = np.zeros(len(held), bool)
        there[held.valued] = True

        def touch(found: Found) -> bool:
            resource, factory = self.handler(target, found)
            touch_block(resource, factory, found.datums, data_key=target.claim, where=target.where)
            return True

        for places, _ in self._there(target, held, near, touch, strict=False):
            there[places] = True
        return there

    def frames(self, target: Target, held: Held, near: float = 0.0) -> CellFrames:
        """Which bytes of which files the cells of some events are.

        Parameters
        ----------
        target, held, near
            As for :meth:`cells`.

        Raises
        ------
        NoReference
            If some are none, or it cannot be told.
        FillError
            As for :meth:`cells`.
        """
        if len(held.valued):
            raise NoReference(f"{len(held.valued):,} events have values in place of references")
        parts = []
        for found in self._find(target, held, near, True):
            resource, factory = self.handler(target, found)
            more: dict[str, Any] = {"data_key": target.claim, "where": target.where}
            parts.append((found.places, locate_block(resource, factory, found.datums, **more)))
        return CellFrames.joined(len(held), parts)

    def has_frames_again(self, target: Target) -> bool:
        """Whether stream_datums claim several frames for some event."""
        found = self.references.get(target.run)
        return found is not None and found.has_frames_again(target.descriptor, target.key)

    def count_frames(self, target: Target, seq_nums: np.ndarray) -> np.ndarray:
        """How many frames stream_datums claim for each event."""
        found = self.references[target.run]
        return found.count_frames(target.descriptor, target.key, seq_nums)

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
            Of dtype ``object``, one cell an event: what the handler gives, of a full claim that
            nobody has looked into in the declared shape and dtype; None for one that is missing,
            or what :attr:`rules` say.

        Raises
        ------
        FillError
            Naming run, stream, key and, where there is a file, spec and path.
        """
        cells, missing = self.cells_of(target, held, self.blocks(target, held, near))
        if self.rule(target).drops:
            none_missing(held, missing, target.where)
        return cells

    def blocks(self, target: Target, held: Held, near: float = 0.0) -> Iterator[FilledBlock]:
        """The same, file by file, without values that are there already; see :meth:`cells`."""

        def read(found: Found) -> Any:
            resource, factory = self.handler(target, found)
            with _naming(target, resource):
                return self._as_shown(target, resource, factory, found.datums)

        yield from self._there(target, held, near, read)

    def cells_of(
        self, target: Target, held: Held, blocks: Iterable[FilledBlock]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cells as :meth:`cells` gives them, from what was read, and places of missing ones."""
        out = np.empty(len(held), dtype=object)
        for place, value in zip(held.valued.tolist(), held.values, strict=True):
            out[place] = value
        gathered = Gathered(held, is_stream_key(target.claim))
        for places, block in blocks:
            gathered.note(places)
            for place, cell in zip(places.tolist(), block, strict=True):
                out[place] = cell
        rule = self.rule(target)
        missing = gathered.missing(rule, target.where)
        for place in missing.tolist() if rule.gap == "fill" else ():
            out[place] = rule.cell()
        return out, missing

    def _as_shown(
        self, target: Target, resource: ResolvedResource, factory: Factory, datums: Datums
    ) -> Any:
        """A block of cells as tables and documents have them."""
        more: dict[str, Any] = {"data_key": target.claim, "where": target.where}
        known = self.known_of(target)
        if known is not None and known.refused:
            raise self._refused(target, resource, known)
        if self.mismatch == "keep" or is_open(target.claim):
            return read_block(resource, factory, datums, **more)
        if known is not None:
            block = read_block(resource, factory, datums, **more)
            return _in_shape_if_it_fits(block, known.declared.shape)
        declared = Declared.of([target.claim])
        assert declared.shape is not None
        given = cell_shape(resource, factory, datums, **more)
        if given is not None:  # before memory is taken for it
            check(declared.shape, given)
        block = read_block(resource, factory, datums, declared=declared.shape, **more)
        return _as_declared(block, declared.shape, declared.dtype)

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
            Shape ``(events, *declared.shape[roi])``. A missing cell is NaN, or None, or what
            :attr:`rules` say.

        Raises
        ------
        FillError
            As for :meth:`cells`; also for an event without value where the dtype has no NaN.
        """

        def read(found: Found) -> np.ndarray:
            return self._region(target, found, declared, roi)

        parts = list(self._there(target, held, near, read))
        if len(held.valued):
            parts.append((held.valued, _inline(target, held, declared, roi)))
        if len(parts) == 1 and len(parts[0][0]) == len(held):
            return parts[0][1]
        gathered = Gathered(held, is_stream_key(target.claim))
        with _naming(target):
            return gathered.array(self.rule(target), target.where, declared, roi, parts)

    def _region(self, target: Target, found: Found, declared: Declared, roi: Roi) -> np.ndarray:
        assert declared.shape is not None
        resource, factory = self.handler(target, found)
        more: dict[str, Any] = {"data_key": target.claim, "where": target.where}
        known = self.known_of(target)

        def read(part: Roi) -> np.ndarray:
            block = read_block(
                resource, factory, found.datums, part, declared=declared.shape, **more
            )
            if known is not None:
                _meet(known, block, given)
            return block if isinstance(block, np.ndarray) else _stack(block, declared)

        with _naming(target, resource):
            if known is not None and known.refused:
                raise self._refused(target, resource, known)
            given = cell_shape(resource, factory, found.datums, **more)
            try:
                if known is not None and given is not None and not known.has_shape(given):
                    first = found.datums.take(slice(0, 1))
                    known.meet(*look_at_cells(resource, factory, first, **more))
                return cast(fit(read, given, declared.shape, roi), declared.dtype)
            except Differs as differs:
                raise self._unforeseen(target, resource, differs.cell) from None

    @staticmethod
    def _refused(target: Target, resource: ResolvedResource, known: Known) -> FillError:
        return FillError(
            f"{target.where}, spec {resource.spec!r}, path {resource.path!r}: {known.complaint}; "
            "daskbroker.shape-mismatch 'warn' would take the file's word"
        )

    def _unforeseen(
        self, target: Target, resource: ResolvedResource, cell: Cell
    ) -> UnforeseenCells:
        known = self.known_of(target)
        assert known is not None
        if known.guessed:
            why = (
                f"nobody has looked into the files of this run; those of others of its kind hold "
                f"{cells_text(known.cells)}. peek='each' looks into those of each run"
            )
        else:
            why = f"the first and the last resource of this run hold {cells_text(known.cells)}"
        return UnforeseenCells(
            f"{target.where}, spec {resource.spec!r}, path {resource.path!r}: the file holds "
            f"{cell}; {why}. It is noted: opened again, this run is right",
            (self.references[target.run].store, target.descriptor, target.key),
            cell,
        )

    # -- common ------------------------------------------------------------------------------

    def _there(
        self,
        target: Target,
        held: Held,
        near: float,
        read: Callable[[Found], Any],
        *,
        strict: bool | None = None,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Places and what is read of them, of those cells that are there.

        With ``strict`` a lost one is an error; None: as the rule of the key says.
        """
        if strict is None:
            strict = self.rule(target).lost == "raise"
        for found in self._find(target, held, near, strict):
            yield from _read_there(found, read, strict)

    def _find(self, target: Target, held: Held, near: float, strict: bool) -> Iterator[Found]:
        """Where the cells are, resource by resource; those of one read at a time."""
        try:
            if len(held.references):
                references = self._references(target)
                for found in references.find(held.references, near, strict=strict):
                    yield found._replace(places=held.referring[found.places])
            if len(held.bare) and is_stream_key(target.claim):
                references = self._references(target)
                later = None if held.later is None else held.later[held.bare]
                frames = references.find_frames(
                    target.descriptor, target.key, held.seq_nums[held.bare], later, strict=strict
                )
                for found in frames:
                    yield found._replace(places=held.bare[found.places])
        except ReferenceMissing as error:
            raise FrameMissing(
                f"{target.where}: {error}; fill=False leaves references as they are, {GO_ON}"
            ) from None

    def _references(self, target: Target) -> References:
        try:
            return self.references[target.run]
        except KeyError:
            raise ReferenceMissing("the references of this run are not at hand") from None

    def handler(self, target: Target, found: Found) -> tuple[ResolvedResource, Factory]:
        """What reads some cells: a resource, and the handler for it.

        Raises
        ------
        FillError
        """
        resource = resolve(
            found.resource,
            root_map=self.root_map,
            readable_roots=self.readable,
            stream=found.indices is not None,
            where=target.where,
        )
        if found.indices is not None and found.indices[0] > 0:  # its file may begin there
            resource = replace(resource, kwargs={**resource.kwargs, "indices": found.indices})
        return resource, self._factory(resource.spec, target.key, target.where)

    def _factory(self, spec: str, key: str, where: str) -> Factory:
        factory = self.overrides.get(key) or self.factories.get(normal_spec(spec))
        if factory is None:
            factory = _FOUND_BY_THEMSELVES.find(spec, where=where)
        return factory


def _read_there(
    found: Found, read: Callable[[Found], Any], strict: bool
) -> Iterator[tuple[np.ndarray, Any]]:
    """Read some cells; where some are lost, and that is no error, those that are there.

    Handlers do not tell which these are, so halves are tried, and halves of halves.
    """
    try:
        block = read(found)
    except FrameMissing as error:
        if strict:
            raise FrameMissing(f"{error}; {GO_ON}") from error
    else:
        yield found.places, block
        return
    middle = len(found.places) // 2
    for some in (slice(0, middle), slice(middle, None)) if middle else ():
        half = found._replace(datums=found.datums.take(some), places=found.places[some])
        yield from _read_there(half, read, strict)


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
            f"{label}: {error}; peek=True looks into the files and believes them, a table gives "
            "cells as they are with the configuration daskbroker.shape-mismatch 'keep', and "
            "h.dataset(dtypes={key: dtype}) takes another dtype than the declared one"
        ) from None


def _as_declared(block: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Cells in the declared shape and dtype; those that are no arrays as they are."""
    if isinstance(block, np.ndarray):
        return cast(reshaped(block, shape), dtype)
    return [
        cast(reshaped(c[None], shape)[0], dtype) if isinstance(c, np.ndarray) else c for c in block
    ]


def _in_shape_if_it_fits(block: Any, shape: tuple[int, ...] | None) -> Any:
    """Cells in a shape that differs by axes of length 1; all others as they are."""
    if shape is None or not isinstance(block, np.ndarray):
        return block
    if long_axes(block.shape[1:]) != long_axes(shape):
        return block
    return block.reshape(len(block), *shape)


def _meet(known: Known, block: Any, given: tuple[int, ...] | None) -> None:
    """Check a block, which is of whole cells where ``given``, their shape, is not known.

    Raises
    ------
    Differs
    """
    if isinstance(block, np.ndarray):
        shape = block.shape[1:] if given is None else given
        known.meet(Cell(shape, block.dtype.newbyteorder("=")))
        return
    for cell in block:
        array = isinstance(cell, (np.ndarray, np.generic))
        known.meet(Cell(cell.shape, cell.dtype) if array else Cell(None, np.dtype(object)))


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
