"""Fill external cells: replace references by data, with one read of each file for a block of cells.

A task carries a :class:`Filling`: where the references of its runs are, the registered
handlers, and where files may be. It holds neither open files nor instances of handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...core.digests import digest_of
from ...core.errors import FillError, FrameMissing
from ...core.external import is_stream_key
from ..files.readable import ANYWHERE, ReadableRoots
from ..files.resolving import ResolvedResource, normal_spec, resolve
from ..handlers.contract import CellsDiffer, Datums
from ..handlers.registry import Factory, HandlerRegistry
from ..handlers.stored_frames import CellFrames, NoReference
from ..references.by_run import facts_of
from ..references.locating import CellsOfResource, ReferenceMissing, References
from ..regions import Roi
from ..shapes import Declared, cast, check_shape, fit, is_open
from .blocks import BlockReader
from .contents import CellContents, FilledBlock
from .extra import tell_extra_frames
from .fitting import (
    as_declared,
    as_known,
    meet_block,
    naming_cells,
    place_text,
    stack_alike,
    stack_cells,
    values_of_events,
)
from .knowledge import Differs, Known, KnownOfRun
from .missing import DEFAULT_RULE, GO_ON, Gathered, Rule, Rules, none_missing, read_there
from .target import Target

_DEFAULT_HANDLERS = HandlerRegistry()
"""Built-in handlers and those of installed packages, which every process finds without help."""


@dataclass(frozen=True, eq=False)
class Filling:
    """Everything needed to fill the external cells of some runs, in any process.

    Attributes
    ----------
    references
        References of each run.
    factories
        Registered handlers by spec.
    overrides
        Handlers by data key, which take precedence.
    root_map
        Maps roots in documents to folders of this machine.
    readable
        Limit on which files may be opened.
    mismatch
        Setting ``daskbroker.shape-mismatch`` when this was made. With ``"raise"`` a file that
        contradicts its claim is an error. With ``"keep"`` tables and documents have unchanged the
        cells of files that were not looked into. With ``"warn"``, the default, such cells must
        match the descriptor.
    known
        Knowledge of the detector files, by run, descriptor and data key.
    assumed
        By stream and data key, the shape and dtype of cells whose claim is open and whose files
        were out of sight when a view was opened. Tables and documents then have what a Dataset,
        which must know it beforehand, declares.
    rules
        Treatment of missing cells by stream and data key, :data:`DEFAULT_RULE` for all others.
    stopped
        Uids of runs that had stopped when this was made. While a run goes on, its files may have
        frames that its documents do not refer to yet.
    """

    references: Mapping[str, References]
    factories: Mapping[str, Factory]
    overrides: Mapping[str, Factory]
    root_map: Mapping[str, str]
    readable: ReadableRoots = ANYWHERE
    mismatch: str = "warn"
    known: Mapping[str, KnownOfRun] = field(default_factory=dict)
    assumed: Mapping[tuple[str, str], Declared] = field(default_factory=dict)
    rules: Rules = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()

    def of_runs(self, runs: Collection[str]) -> Filling:
        """Return the filling limited to some runs; runs without references are ignored."""
        if all(run in runs for run in self.references):
            return self
        found = {run: self.references[run] for run in runs if run in self.references}
        known = {run: self.known[run] for run in runs if run in self.known}
        return replace(self, references=found, known=known, stopped=self.stopped.intersection(runs))

    def known_of(self, target: Target) -> Known | None:
        """Return what is known of the files of a target; None if they were not looked into."""
        return self.known.get(target.run, {}).get((target.descriptor, target.key))

    def declared(self, target: Target) -> Declared:
        """Return the shape and dtype that the cells of a target are taken to have."""
        known = self.known_of(target) if target.external else None
        return Declared.of([target.claim]) if known is None else known.declared

    def handler_reference(self, spec: str, key: str) -> str:
        """Return a text that identifies the handler of a spec; "" if there is no handler."""
        try:
            return self._factory(spec, key, "").label
        except FillError:
            return ""

    @property
    def token(self) -> str:
        """Hash of everything that determines what is read, except the files themselves."""
        parts = (
            facts_of(self.references),
            sorted((spec, factory.reference) for spec, factory in self.factories.items()),
            sorted((key, factory.reference) for key, factory in self.overrides.items()),
            sorted(self.root_map.items()),
            self.readable,
            self.mismatch,
            sorted((key, repr(rule)) for key, rule in self.rules.items()),
            sorted((key, repr(declared)) for key, declared in self.assumed.items()),
            sorted(
                (run, label, one.token)
                for run, known in self.known.items()
                for label, one in known.items()
            ),
        )
        return digest_of(repr(parts))

    def rule(self, target: Target) -> Rule:
        """Return the rule for missing cells of a target."""
        return self.rules.get((target.stream, target.key), DEFAULT_RULE)

    # -- which cells there are ---------------------------------------------------------------

    def present(
        self, target: Target, contents: CellContents, run_fraction: float = 0.0
    ) -> np.ndarray:
        """Return which events have a cell, without reading values if handlers can tell.

        Parameters
        ----------
        target, contents, run_fraction
            See :meth:`cells`.

        Returns
        -------
        numpy.ndarray
            Booleans, one per event.
        """
        there = np.zeros(len(contents), bool)
        there[contents.valued] = True

        def touch(cells: CellsOfResource) -> bool:
            self.reader(target, cells).touch(cells.datums)
            return True

        for positions, _ in self._there(target, contents, run_fraction, touch, strict=False):
            there[positions] = True
        return there

    def frames(
        self, target: Target, contents: CellContents, run_fraction: float = 0.0
    ) -> CellFrames:
        """Return which bytes of which files hold the cells of some events.

        Parameters
        ----------
        target, contents, run_fraction
            See :meth:`cells`.

        Raises
        ------
        NoReference
            If some cells are not ranges of bytes of files, or if these cannot be told.
        FillError
            Under the conditions of :meth:`cells`.
        """
        if len(contents.valued):
            raise NoReference(f"{len(contents.valued):,} events have values in place of references")
        parts = []
        for found in self._find(target, contents, run_fraction, strict=True):
            reader = self.reader(target, found)
            parts.append((found.positions, reader.locate(found.datums)))
            self._tell_extra(target, reader, found.datums)
        return CellFrames.joined(len(contents), parts)

    def has_frames_again(self, target: Target) -> bool:
        """Return whether stream_datums claim several frames for an event."""
        found = self.references.get(target.run)
        return found is not None and found.has_frames_again(target.descriptor, target.key)

    def count_frames(self, target: Target, seq_nums: np.ndarray) -> np.ndarray:
        """Return the number of frames that stream_datums claim for each event."""
        found = self.references[target.run]
        return found.count_frames(target.descriptor, target.key, seq_nums)

    # -- cells as they come ------------------------------------------------------------------

    def cells(
        self, target: Target, contents: CellContents, run_fraction: float = 0.0
    ) -> np.ndarray:
        """Return the cells of some events as in a table: views of one block of each file.

        Parameters
        ----------
        target
            Data key and descriptor to fill.
        contents
            What the events hold of the key.
        run_fraction
            Position of the events in the run, from 0 to 1, to find their datums quickly.

        Returns
        -------
        numpy.ndarray
            Array of dtype ``object`` with one cell per event, as the handler returns it. If the
            claim is full and the file was not looked into, the cell has the declared shape and
            dtype. A missing cell is None, or what :attr:`rules` say.

        Raises
        ------
        FillError
            If a cell cannot be filled. The message names run, stream, key and, if there is a file,
            spec and path.
        """
        cells, missing = self.cells_of(
            target, contents, self.blocks(target, contents, run_fraction)
        )
        if self.rule(target).drops:
            none_missing(contents, missing, target.where)
        return cells

    def blocks(
        self, target: Target, contents: CellContents, run_fraction: float = 0.0
    ) -> Iterator[FilledBlock]:
        """Yield the cells of :meth:`cells` file by file, without values that events hold."""

        def read(cells: CellsOfResource) -> Any:
            reader = self.reader(target, cells)
            with naming_cells(target.where, reader.resource, assumed=self._assumes(target)):
                block = self._as_shown(target, reader, cells.datums)
            self._tell_extra(target, reader, cells.datums)
            return block

        yield from self._there(target, contents, run_fraction, read)

    def cells_of(
        self, target: Target, contents: CellContents, blocks: Iterable[FilledBlock]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what :meth:`cells` does, from blocks already read, and the missing positions."""
        out = np.empty(len(contents), dtype=object)
        for position, value in zip(contents.valued.tolist(), contents.values, strict=True):
            out[position] = value
        gathered = Gathered(contents, streamed=is_stream_key(target.claim))
        for positions, block in blocks:
            gathered.note(positions)
            for position, cell in zip(positions.tolist(), block, strict=True):
                out[position] = cell
        rule = self.rule(target)
        missing = gathered.missing(rule, target.where)
        for position in missing.tolist() if rule.gap == "fill" else ():
            out[position] = rule.cell()
        return out, missing

    def _as_shown(self, target: Target, reader: BlockReader, datums: Datums) -> Any:
        """Read a block of cells as tables and documents have them."""
        known = self.known_of(target)
        if known is not None and known.refused:
            raise known.refusal(place_text(target.where, reader.resource))
        if self.mismatch == "keep":
            return reader.read(datums)
        if known is not None:
            return as_known(reader.read(datums), known)
        declared = self._believed(target)
        if declared.shape is None:
            return reader.read(datums)
        given = reader.cell_shape(datums)
        if given is not None:  # before memory is taken for it
            check_shape(declared.shape, given)
        block = reader.read(datums, declared=declared.shape)
        return as_declared(block, declared.shape, declared.dtype)

    def _believed(self, target: Target) -> Declared:
        """Return what the cells of files that nobody looked into must match."""
        if not is_open(target.claim):
            return Declared.of([target.claim])
        nothing = Declared(None, np.dtype(object))
        return self.assumed.get((target.stream, target.key), nothing)

    def _assumes(self, target: Target) -> bool:
        """Return whether cells must match what is neither known of them nor in their claim."""
        return self.known_of(target) is None and is_open(target.claim)

    # -- arrays of a variable ----------------------------------------------------------------

    def array(
        self,
        target: Target,
        contents: CellContents,
        declared: Declared,
        roi: Roi = (),
        run_fraction: float = 0.0,
    ) -> np.ndarray:
        """Return one region of the cells of some events, in the declared shape and dtype.

        Parameters
        ----------
        target, contents, run_fraction
            See :meth:`cells`.
        declared
            Shape and dtype of a cell; the shape must not be None.
        roi
            Region to read of each cell.

        Returns
        -------
        numpy.ndarray
            Shape ``(events, *declared.shape[roi])``. A missing cell is NaN, None for the dtype
            ``object``, or what :attr:`rules` say.

        Raises
        ------
        FillError
            Under the conditions of :meth:`cells`, and if an event has no value and the dtype has
            no NaN.
        """

        def read(cells: CellsOfResource) -> np.ndarray:
            return self._region(target, cells, declared, roi)

        parts = list(self._there(target, contents, run_fraction, read))
        if len(contents.valued):
            parts.append((contents.valued, values_of_events(target.where, contents, declared, roi)))
        # One part that has all cells needs no copy into another array.
        if len(parts) == 1 and len(parts[0][0]) == len(contents):
            return parts[0][1]
        gathered = Gathered(contents, streamed=is_stream_key(target.claim))
        with naming_cells(target.where):
            return gathered.array(self.rule(target), target.where, declared, roi, parts)

    def _region(
        self, target: Target, cells: CellsOfResource, declared: Declared, roi: Roi
    ) -> np.ndarray:
        assert declared.shape is not None
        reader = self.reader(target, cells)
        known = self.known_of(target)

        def read(roi: Roi) -> np.ndarray:
            block = reader.read(cells.datums, roi, declared.shape)
            if known is not None:
                meet_block(known, block, given)
            if isinstance(block, np.ndarray):
                return block
            return stack_cells(block, declared) if given is None else stack_alike(block, declared)

        peeked = known is not None
        assumed = self._assumes(target)
        with naming_cells(target.where, reader.resource, assumed=assumed, peeked=peeked):
            if known is not None and known.refused:
                raise known.refusal(place_text(target.where, reader.resource))
            given = reader.cell_shape(cells.datums)
            try:
                # The shape differs; the error needs the dtype too, for the next opening.
                if known is not None and given is not None and not known.has_shape(given):
                    known.meet(*reader.cells_of(cells.datums.take(slice(0, 1))))
                try:
                    block = fit(read, given, declared.shape, roi)
                except CellsDiffer:  # the error must name the shape of whole cells
                    given = None
                    block = fit(read, given, declared.shape, roi)
                if declared.exact is not None:  # a wider dtype would hide a wrong claim
                    block = cast(block, declared.exact)
                who = "the variable has" if peeked else "the descriptor declares"
                block = cast(block, declared.dtype, who=who)
            except Differs as differs:
                assert known is not None
                group = (self.references[target.run].store, target.descriptor, target.key)
                where = place_text(target.where, reader.resource)
                raise known.unforeseen(where, group, differs.cell) from None
        self._tell_extra(target, reader, cells.datums)
        return block

    def _tell_extra(self, target: Target, reader: BlockReader, datums: Datums) -> None:
        """Warn of frames in no event in a file that was just read without a look into it before."""
        known = self.known_of(target)
        peeked = known is not None and not known.guessed
        # A peek has reported them already. Files of open runs may be ahead of their documents.
        if peeked or target.run not in self.stopped or self.mismatch == "keep":
            return
        references, strict = self.references[target.run], self.mismatch == "raise"
        tell_extra_frames(target, references, reader, datums, strict=strict)

    # -- common ------------------------------------------------------------------------------

    def _there(
        self,
        target: Target,
        contents: CellContents,
        run_fraction: float,
        read: Callable[[CellsOfResource], Any],
        *,
        strict: bool | None = None,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the positions of cells that exist, and what ``read`` returns for them.

        If ``strict``, a lost frame is an error; None: the rule of the key decides.
        """
        if strict is None:
            strict = self.rule(target).lost == "raise"
        for found in self._find(target, contents, run_fraction, strict=strict):
            yield from read_there(found, read, strict=strict)

    def _find(
        self, target: Target, contents: CellContents, run_fraction: float, *, strict: bool
    ) -> Iterator[CellsOfResource]:
        """Yield where the cells are, one resource at a time, each to be read in one call."""
        try:
            if len(contents.references):
                references = self.references_of(target)
                for found in references.find(contents.references, run_fraction, strict=strict):
                    yield found._replace(positions=contents.referring[found.positions])
            if len(contents.bare) and is_stream_key(target.claim):
                references = self.references_of(target)
                later = None if contents.later is None else contents.later[contents.bare]
                frames = references.find_frames(
                    target.descriptor,
                    target.key,
                    contents.seq_nums[contents.bare],
                    later,
                    strict=strict,
                )
                for found in frames:
                    yield found._replace(positions=contents.bare[found.positions])
        except ReferenceMissing as error:
            raise FrameMissing(
                f"{target.where}: {error}; fill=False leaves references as they are, {GO_ON}"
            ) from None

    def references_of(self, target: Target) -> References:
        """Return the references of the run of a target.

        Raises
        ------
        ReferenceMissing
            If they were not loaded.
        """
        try:
            return self.references[target.run]
        except KeyError:
            raise ReferenceMissing("the references of this run were not loaded") from None

    def reader(self, target: Target, cells: CellsOfResource) -> BlockReader:
        """Return what reads some cells: their resolved resource, and its handler.

        Raises
        ------
        FillError
            If the resource's document cannot be resolved or there is no handler for its spec.
        """
        resource = self.resolved(target, cells)
        # Its file may begin there; a parameter of that name in the document means something else.
        if cells.indices is not None and (cells.indices[0] > 0 or "indices" in resource.kwargs):
            resource = replace(resource, kwargs={**resource.kwargs, "indices": cells.indices})
        factory = self._factory(resource.spec, target.key, target.where)
        return BlockReader(resource, factory, target.claim, target.where)

    def resolved(self, target: Target, cells: CellsOfResource) -> ResolvedResource:
        """Return where the resource of some cells is here; see :func:`~.files.resolving.resolve`.

        Raises
        ------
        FillError
            If its document cannot be resolved.
        """
        return resolve(
            cells.resource,
            root_map=self.root_map,
            readable=self.readable,
            stream=cells.indices is not None,
            where=target.where,
        )

    def _factory(self, spec: str, key: str, where: str) -> Factory:
        factory = self.overrides.get(key) or self.factories.get(normal_spec(spec))
        if factory is None:
            factory = _DEFAULT_HANDLERS.find(spec, where=where)
        return factory
