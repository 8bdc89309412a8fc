"""Treatment of missing cells: those of events without a reference, and those not on disk.

A *gap* is an event that has neither a value nor a reference. A *lost* frame is one that should
exist, but its file does not exist or ends before it, or its documents are not in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from ...core.errors import FillError, FrameMissing
from ..files.sizes import SMALL_BLOCK, is_believable
from ..references.locating import CellsOfResource
from ..regions import Roi, axes_of, shape_of
from ..shapes import HAVE_MISSING, Declared, Mismatch, cast
from .contents import CellContents

GO_ON = "pass missing='nan', missing='drop' or fill_value= to go on without it"
"""Advice in the error messages of missing cells."""

MissingMode = Literal["nan", "drop", "raise"]
"""Values of ``missing=`` besides None, which means NaN for a gap and an error for a lost frame."""

Treatment = Literal["nan", "drop", "raise", "fill"]

T = TypeVar("T")


def is_mode(given: object) -> bool:
    """Return whether this is a valid value of ``missing=`` other than None."""
    return isinstance(given, str) and given in get_args(MissingMode)


@dataclass(frozen=True)
class Rule:
    """Treatment of the missing cells of one key.

    Attributes
    ----------
    gap, lost
        Treatment of an event without a reference, and of a lost frame.
    value
        Fill value, for ``"fill"``.
    declared
        Shape and dtype of a cell over all descriptors, for ``"fill"``.
    """

    gap: Treatment = "nan"
    lost: Treatment = "raise"
    value: Any = None
    declared: Declared = field(default=Declared(None, np.dtype(object)))

    @property
    def drops(self) -> bool:
        """Whether rows with missing cells are left out."""
        return "drop" in (self.gap, self.lost)

    def cell(self) -> Any:
        """Return a cell of the fill value, or the value itself if cells have no known shape."""
        if self.declared.shape is None:
            return self.value
        return np.full(self.declared.shape, self.value, self.declared.dtype)


DEFAULT_RULE = Rule()


def filler(value: Any, dtype: np.dtype) -> Any:
    """Return a fill value in the dtype of the cells.

    Raises
    ------
    Mismatch
        If it is not a single value, or the dtype cannot represent it.
    """
    if np.ndim(value):
        raise Mismatch("it is not a single value")
    if dtype.kind == "O":
        return value
    given = np.asarray(value)
    # NumPy would convert booleans to numbers, and numbers to booleans, without an error.
    if given.dtype.kind not in "biufc" or (given.dtype.kind == "b") != (dtype.kind == "b"):
        raise Mismatch(f"it is not of dtype {dtype}")
    try:
        return cast(given[None], dtype)[0]
    except Mismatch:
        raise Mismatch(f"it is not a valid {dtype}") from None


Rules = Mapping[tuple[str, str], Rule]
"""Rules by stream and data key; all others have :data:`DEFAULT_RULE`."""


def read_there(
    cells: CellsOfResource, read: Callable[[CellsOfResource], T], *, strict: bool
) -> Iterator[tuple[np.ndarray, T]]:
    """Yield the positions of cells that exist, and what ``read`` returns for them.

    Handlers do not tell which cells are lost, so the datums are bisected.

    Parameters
    ----------
    cells
        Cells of one resource.
    read
        Reads cells of the resource in one call.
    strict
        Whether a lost cell is an error, rather than left out.

    Raises
    ------
    FrameMissing
        If ``strict`` and a cell is lost.
    """
    try:
        block = read(cells)
    except FrameMissing as error:
        if strict:
            raise FrameMissing(f"{error}; {GO_ON}") from error
    else:
        yield cells.positions, block
        return
    # A single lost cell has no halves: it is left out.
    middle = len(cells.positions) // 2
    for some in (slice(0, middle), slice(middle, None)) if middle else ():
        half = cells._replace(datums=cells.datums.take(some), positions=cells.positions[some])
        yield from read_there(half, read, strict=strict)


def none_missing(contents: CellContents, missing: np.ndarray, where: str) -> None:
    """Check that no cell is missing, after rows with missing cells were left out.

    Raises
    ------
    FrameMissing
        If a frame has disappeared since then.
    """
    if len(missing):
        raise FrameMissing(
            f"{where}: the frame of event {int(contents.seq_nums[missing[0]])} existed when the "
            "run was opened and no longer does; open the run again"
        )


class Gathered:
    """Collects the cells of some events from parts; those in no part are missing.

    Parameters
    ----------
    contents
        What the events hold.
    streamed
        Whether stream_datums describe the frames; an event without a frame then has lost it,
        rather than being a gap.
    """

    def __init__(self, contents: CellContents, *, streamed: bool) -> None:
        self._contents = contents
        self._missing = np.ones(len(contents), bool)
        self._missing[contents.valued] = False
        self._gap = np.zeros(len(contents), bool)
        # An event without a reference never had a frame; of a stream it has lost it.
        if not streamed:
            self._gap[contents.bare] = True

    def note(self, positions: np.ndarray) -> None:
        """Note that the cells at these positions exist."""
        self._missing[positions] = False

    def missing(self, rule: Rule, where: str) -> np.ndarray:
        """Return the positions of the missing cells.

        Raises
        ------
        FrameMissing
            If there is a gap and the rule's treatment of gaps is ``"raise"``.
        """
        gaps = np.flatnonzero(self._missing & self._gap)
        if len(gaps) and rule.gap == "raise":
            raise FrameMissing(
                f"{where}: event {int(self._contents.seq_nums[gaps[0]])} has neither value nor "
                f"reference; {GO_ON}"
            )
        return np.flatnonzero(self._missing)

    def array(
        self,
        rule: Rule,
        where: str,
        declared: Declared,
        roi: Roi,
        blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> np.ndarray:
        """Return the blocks in the order of the events, with missing cells treated by the rule.

        Raises
        ------
        FillError
            If the rule makes a missing cell an error, the dtype has no NaN for one, or none of
            the events has a value and the declared cells are implausibly large.
        """
        assert declared.shape is not None
        cell = shape_of(axes_of(roi, declared.shape))
        size = len(self._contents) * prod(cell) * declared.dtype.itemsize
        # No file confirms the declared shape here, and it must not allocate any amount of memory.
        if not blocks and not is_believable(size, 0, SMALL_BLOCK):
            raise FillError(
                f"{where}: the descriptor declares cells of {declared.shape}, {size:,} bytes "
                f"for {len(self._contents)} events of which none has a value"
            )
        out = np.empty((len(self._contents), *cell), declared.dtype)
        for positions, block in blocks:
            out[positions] = block
            self.note(positions)
        missing = self.missing(rule, where)
        if rule.drops:
            none_missing(self._contents, missing, where)
        if len(missing):
            out[missing] = self._instead(rule, where, declared.dtype, missing)
        return out

    def _instead(self, rule: Rule, where: str, dtype: np.dtype, missing: np.ndarray) -> Any:
        if rule.gap == "fill":
            return filler(rule.value, dtype)
        if dtype.kind not in HAVE_MISSING:
            event = int(self._contents.seq_nums[missing[0]])
            raise FillError(
                f"{where}: event {event} has no value, and {dtype} "
                "has no NaN; pass missing='drop' or fill_value= to keep the dtype, or "
                "dtypes={key: 'float64'}"
            )
        if dtype.kind in "mM":
            return np.array("NaT", dtype)
        return None if dtype.kind == "O" else np.nan
