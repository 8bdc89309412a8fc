"""Knowledge of the cells of a resource group: it shapes variables and is checked by reads.

A resource group is the cells of one data key of one descriptor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...core.bounded_dict import BoundedDict
from ...core.errors import FillError
from ...core.peeks import Cell, ExtraFrames
from ..shapes import Declared, are_alike, contradicts, is_open


@dataclass(frozen=True)
class Known:
    """Cells that the files of a resource group are known, or guessed, to hold.

    Attributes
    ----------
    cells
        Distinct shapes and dtypes of cells.
    declared
        Shape and dtype of a variable made of them.
    guessed
        Whether the cells are those of other groups of the same specs, key and claim.
    wrong
        How the file contradicts the claim; "" if it does not.
    refused
        Whether a contradiction, or frames in no event, is an error when the variable is computed
        (``daskbroker.shape-mismatch: raise``).
    extra
        Description of frames that are in no event, with advice; "" if there are none.
    """

    cells: tuple[Cell, ...]
    declared: Declared
    guessed: bool = False
    wrong: str = ""
    refused: bool = False
    extra: str = ""

    @property
    def complaint(self) -> str:
        """Reason why the file is refused, as text."""
        return self.wrong or self.extra

    @cached_property
    def token(self) -> str:
        """Text that depends on the cells of the variable, and not on how they became known."""
        return repr((self.cells, self.declared, self.refused))

    def meet(self, cell: Cell) -> None:
        """Check that a cell has the shape of a known one, and the dtype of one, maybe of another.

        Raises
        ------
        Differs
            If not; see :meth:`has_shape` for axes of length 1.
        """
        if cell in self.cells:
            return
        if cell.shape is None or not self.has_shape(cell.shape) or not self.has_dtype(cell.dtype):
            raise Differs(cell)

    def has_shape(self, shape: tuple[int, ...]) -> bool:
        """Return whether a cell has this shape, except for axes of length 1 if all have one."""
        if self.declared.shape is not None:
            return are_alike(self.declared.shape, shape)
        return any(cell.shape == shape for cell in self.cells)

    def has_dtype(self, dtype: np.dtype) -> bool:
        """Return whether one of the cells has this dtype."""
        return any(cell.dtype == dtype for cell in self.cells)

    def refusal(self, where: str) -> FillError:
        """Return the error of reading a file that is :attr:`refused`."""
        return FillError(
            f"{where}: {self.complaint}. "
            "Set daskbroker.shape-mismatch to 'warn' to read the cells of the file"
        )

    def unforeseen(self, where: str, group: GroupId, cell: Cell) -> UnforeseenCells:
        """Return the error of a cell that differs from all known ones, which notes it."""
        if self.guessed:
            why = (
                "its cells were guessed from the files of similar runs, which hold "
                f"{cells_text(self.cells)}; peek='each' looks into those of each run"
            )
        else:
            why = f"the first and the last resource of this run hold {cells_text(self.cells)}"
        return UnforeseenCells(
            f"{where}: the file holds {cell}; {why}. This is noted: open the run again to read it",
            group,
            cell,
        )


KnownOfRun = Mapping[tuple[str, str], Known]
"""Knowledge of a run's files, by descriptor and data key."""


def known_of(
    claim: Mapping[str, Any],
    cells: Iterable[Cell],
    *,
    guessed: bool = False,
    asked: bool = False,
    strict: bool = False,
    extra: str = "",
) -> Known:
    """Return the knowledge that follows from cells found in files.

    Parameters
    ----------
    claim
        The descriptor's entry. If it is full, and the file's shape differs only by axes of length
        1, the shape of the claim is kept: it is then the same whether files were looked into or
        not.
    cells
        One or more cells.
    guessed
        See :class:`Known`.
    asked
        Whether looking was requested explicitly; even such a shape is then that of the file.
    strict
        Whether a contradiction is an error when it is computed.
    extra
        See :class:`Known`.
    """
    found = tuple(dict.fromkeys(cells))
    declared, claimed = Declared.of_cells(found), Declared.of([claim])
    loosely = not asked and not is_open(claim)
    if loosely and are_alike(declared.shape, claimed.shape):
        declared = Declared(claimed.shape, declared.dtype)
    wrong = ""
    contradictions = [contradicts(claim, cell, loosely=loosely) for cell in found]
    if all(contradictions) if guessed else any(contradictions):
        wrong = f"the descriptor declares {claim_text(claim)}, the file holds {cells_text(found)}"
    return Known(found, declared, guessed, wrong, strict and bool(wrong or extra), extra)


def claim_text(claim: Mapping[str, Any]) -> str:
    """Describe a claim for messages."""
    dtype = next(
        (claim[n] for n in ("dtype_descr", "dtype_numpy", "dtype_str") if claim.get(n)), ""
    )
    return f"the shape {claim.get('shape')}" + (f" and the dtype {dtype}" if dtype else "")


def cells_text(cells: Iterable[Cell]) -> str:
    """Describe cells for messages."""
    return " and ".join(map(str, cells))


def extra_text(key: str, handler: str, some: Sequence[ExtraFrames]) -> str:
    """Describe frames that are in no event for messages; "" if there are none.

    Parameters
    ----------
    key, handler
        Data key, and its handler as named by :class:`~daskbroker.core.peeks.Peek`.
    some
        Extra frames of the key's files; the first file is described.
    """
    if not some:
        return ""
    one = some[0]
    # Whether another run has them is not looked up: no store finds references by their file.
    text = (
        f"path {one.path!r}: the file has {one.there:,} frames, but the documents of the run refer "
        f"to {one.described:,}; the others belong to no event of this run, as after an aborted "
        "run, or to another run if runs share the file"
    )
    if not one.per_event:
        return text
    name = handler.replace(":", ".") if ":" in handler else "Handler"
    return (
        f"{text}. If the file is of this run alone and each event has {one.per_event:,} frames, "
        f"handler_overrides={{{key!r}: functools.partial({name}, {one.option}={one.per_event})}} "
        "with peek=True reads them"
    )


# -- cells that nobody expected --------------------------------------------------------------


class Differs(Exception):
    """Raised if a cell is not one of those known of its resource group."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.cell = cell


GroupId = tuple[str, str, str]
"""Identity of a group of resources over all stores: store, descriptor and data key."""

_noted: BoundedDict[GroupId, tuple[Cell, ...]] = BoundedDict()


def cells_noted(group: GroupId) -> tuple[Cell, ...]:
    """Return cells that were found to differ when computing, here or on a worker that reported."""
    return _noted.get(group, ())


def are_cells_noted() -> bool:
    """Return whether :func:`cells_noted` returns cells for any place."""
    return bool(_noted)


class UnforeseenCells(FillError):
    """Raised if a file holds cells other than the known ones, which the next opening then knows.

    The cell is noted in the process that makes the error and in each one that unpickles it.

    Parameters
    ----------
    message
        Message of the error.
    group, cell
        Identity of the resource group, and the cell that is noted for it.
    """

    def __init__(self, message: str, group: GroupId, cell: Cell) -> None:
        super().__init__(message)
        self._group, self._cell = group, cell
        if cell not in cells_noted(group):
            _noted[group] = (*cells_noted(group), cell)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self._group, self._cell))
