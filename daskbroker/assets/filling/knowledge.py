"""What is known of the cells of a resource group, by which a variable is made and cells are met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...core.errors import FillError
from ...core.peeks import Cell, ExtraFrames
from ...core.remembered import Remembered
from ..shapes import Declared, contradicts, is_open, long_axes

__all__ = [
    "Differs",
    "Known",
    "KnownOfRun",
    "Place",
    "UnforeseenCells",
    "cells_noted",
    "cells_text",
    "extra_text",
    "known_of",
]


@dataclass(frozen=True)
class Known:
    """What the files of a resource group are known, or thought, to hold.

    Attributes
    ----------
    cells
        The different ones.
    declared
        What a variable made of them has.
    guessed
        Whether they are those of other groups of the same specs, key and claim.
    wrong
        Where the file contradicts the claim: how.
    refused
        Whether that, or frames in no event, is an error when it is computed
        (``daskbroker.shape-mismatch: raise``).
    extra
        Where files have frames that are in no event: which, and what to do.
    """

    cells: tuple[Cell, ...]
    declared: Declared
    guessed: bool = False
    wrong: str = ""
    refused: bool = False
    extra: str = ""

    @property
    def complaint(self) -> str:
        """Why it is refused."""
        return self.wrong or self.extra

    @cached_property
    def token(self) -> str:
        """Changes with what is made of it; not with how it is known."""
        return repr((self.cells, self.declared, self.refused))

    def meet(self, cell: Cell) -> None:
        """Check that a cell is one of those that are known.

        Raises
        ------
        Differs
        """
        if cell not in self.cells:
            raise Differs(cell)

    def has_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether some of the cells have this shape."""
        return any(cell.shape == shape for cell in self.cells)


KnownOfRun = Mapping[tuple[str, str], Known]
"""By descriptor and data key."""


def known_of(
    claim: Mapping[str, Any],
    cells: Iterable[Cell],
    *,
    guessed: bool = False,
    asked: bool = False,
    strict: bool = False,
    extra: str = "",
) -> Known:
    """What is known where files hold some cells.

    Parameters
    ----------
    claim
        The descriptor's. If it is full, and the file's shape is the same but for axes of length
        1, the shape stays that of the claim: it is the same whether somebody has looked or not.
    cells
        One or more.
    guessed
        See :class:`Known`.
    asked
        Looking was asked for, so even such a shape is that of the file.
    strict
        A contradiction is refused when it is computed.
    extra
        See :class:`Known`.
    """
    found = tuple(dict.fromkeys(cells))
    declared, claimed = Declared.of_cells(found), Declared.of([claim])
    loosely = not asked and not is_open(claim)
    if loosely and _are_alike(declared, claimed):
        declared = Declared(claimed.shape, declared.dtype)
    wrong = ""
    contradictions = [contradicts(claim, cell, loosely=loosely) for cell in found]
    if all(contradictions) if guessed else any(contradictions):
        wrong = f"the descriptor declares {claim_text(claim)}, the file holds {cells_text(found)}"
    return Known(found, declared, guessed, wrong, strict and bool(wrong or extra), extra)


def _are_alike(one: Declared, other: Declared) -> bool:
    """Whether shapes are equal but for axes of length 1."""
    if one.shape is None or other.shape is None:
        return False
    return long_axes(one.shape) == long_axes(other.shape)


def claim_text(claim: Mapping[str, Any]) -> str:
    """A claim as messages show it."""
    dtype = next(
        (claim[n] for n in ("dtype_descr", "dtype_numpy", "dtype_str") if claim.get(n)), ""
    )
    return f"the shape {claim.get('shape')}" + (f" and the dtype {dtype}" if dtype else "")


def cells_text(cells: Iterable[Cell]) -> str:
    """Cells as messages show them."""
    return " and ".join(map(str, cells))


def extra_text(key: str, handler: str, some: Sequence[ExtraFrames]) -> str:
    """Frames that are in no event, as messages show them, "" if there are none.

    Parameters
    ----------
    key, handler
        The data key, and what reads it, as :class:`~daskbroker.core.peeks.Peek` names it.
    some
        Of its files.
    """
    if not some:
        return ""
    one = some[0]
    text = (
        f"path {one.path!r}: there are {one.there:,} frames, and the documents of the run tell of "
        f"{one.told:,}; the others are in no event"
    )
    if not one.per_event:
        return f"{text}, as those of an aborted run"
    name = handler.replace(":", ".") if ":" in handler else "Handler"
    return (
        f"{text}. If each event has {one.per_event:,}, handler_overrides={{{key!r}: "
        f"functools.partial({name}, {one.option}={one.per_event})}} with peek=True shows them"
    )


# -- cells that nobody expected --------------------------------------------------------------


class Differs(Exception):
    """A cell is not what is known of its resource group."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.cell = cell


Place = tuple[str, str, str]
"""Store, descriptor, data key."""

_noted: Remembered[Place, tuple[Cell, ...]] = Remembered()


def cells_noted(place: Place) -> tuple[Cell, ...]:
    """Cells that computing has found to differ, in this process or on a worker that told so."""
    return _noted.get(place, ())


class UnforeseenCells(FillError):
    """A file holds other cells than was known. The next opening knows of them.

    Where the error is made, and where it is unpickled, the cell is noted.

    Parameters
    ----------
    message
        Of the error.
    place, cell
        What is noted: that the resource group at this place has such a cell.
    """

    def __init__(self, message: str, place: Place, cell: Cell) -> None:
        super().__init__(message)
        self._place, self._cell = place, cell
        if cell not in cells_noted(place):
            _noted[place] = (*cells_noted(place), cell)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self._place, self._cell))
