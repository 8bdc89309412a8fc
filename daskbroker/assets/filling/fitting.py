"""Bring the cells that a handler gave into the shape and dtype that are declared or known."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import FillError
from ...core.peeks import Cell
from ..files.resolving import ResolvedResource
from ..regions import Roi, take_roi
from ..shapes import Declared, Mismatch, cast, reshaped
from .contents import CellContents
from .knowledge import Known


class naming_cells:
    """Return a context that adds run, stream and key to a :class:`Mismatch` or a lack of memory.

    Parameters
    ----------
    where, resource
        Run, stream and key, and the resource if one is read.
    assumed
        Whether cells must match what other descriptors declare, as their own leaves it open.
    peeked
        Whether the files were looked into, so that looking again is no help.
    """

    def __init__(
        self,
        where: str,
        resource: ResolvedResource | None = None,
        *,
        assumed: bool = False,
        peeked: bool = False,
    ) -> None:
        self._where = where
        self._resource = resource
        self._assumed = assumed
        self._peeked = peeked

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, (Mismatch, MemoryError)):
            return
        label = self._where if self._resource is None else place_text(self._where, self._resource)
        if isinstance(error, MemoryError):
            raise FillError(
                f"{label}: there is not enough memory for the requested cells: "
                f"{error or 'MemoryError'}"
            ) from None
        if self._peeked:
            raise FillError(
                f"{label}: {error}; h.dataset(dtypes={{key: object}}) keeps the values of each file"
            ) from None
        others = " (what this descriptor leaves open is taken from others)" if self._assumed else ""
        raise FillError(
            f"{label}: {error}{others}; peek=True uses the shapes and dtypes in the files, the "
            "setting daskbroker.shape-mismatch 'keep' makes tables hold the cells as they are, and "
            "h.dataset(dtypes={key: dtype}) replaces the declared dtype"
        ) from None


def place_text(where: str, resource: ResolvedResource) -> str:
    """Return run, stream, key, spec and path, as the beginning of error messages."""
    return f"{where}, spec {resource.spec!r}, path {resource.path!r}"


def as_declared(block: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Return cells in the declared shape and dtype; those that are not arrays are unchanged."""
    if isinstance(block, np.ndarray):
        return cast(reshaped(block, shape), dtype)
    return [
        cast(reshaped(c[None], shape)[0], dtype) if isinstance(c, np.ndarray) else c for c in block
    ]


def as_known(block: Any, known: Known) -> Any:
    """Return cells in the shape and dtype that all known cells of their key have in common.

    Cells that are not among the known ones are unchanged, and so are those with values that the
    common dtype cannot represent: tables and documents show them as they are.
    """
    shape, dtype = known.declared.shape, known.declared.dtype
    if shape is None:
        return block
    if not isinstance(block, np.ndarray):  # cells of several files
        return [as_known(c[None], known)[0] if isinstance(c, np.ndarray) else c for c in block]
    if not known.has_shape(block.shape[1:]):
        return block
    block = block.reshape(len(block), *shape)
    own = block.dtype.newbyteorder("=")
    if own == dtype or dtype.kind == "O" or not known.has_dtype(own):
        return block
    try:
        return cast(block, dtype)
    except Mismatch:
        return block


def meet_block(known: Known, block: Any, given: tuple[int, ...] | None) -> None:
    """Check that the cells of a block are among the known ones.

    ``given`` is the shape of a whole cell; if it is None, the block must be of whole cells.

    Raises
    ------
    Differs
        If a cell has another shape or dtype than the known ones.
    """
    if isinstance(block, np.ndarray):
        shape = block.shape[1:] if given is None else given
        known.meet(Cell(shape, block.dtype.newbyteorder("=")))
        return
    for cell in block:
        if isinstance(cell, (np.ndarray, np.generic)):
            shape = cell.shape if given is None else given
            known.meet(Cell(shape, cell.dtype.newbyteorder("=")))
        else:
            known.meet(Cell(None, np.dtype(object)))


def stack_cells(cells: Any, declared: Declared) -> np.ndarray:
    """Stack single cells into a block of the declared shape."""
    assert declared.shape is not None
    if not len(cells):
        return np.empty((0, *declared.shape), declared.dtype)
    try:
        arrays = [np.asarray(cell)[None] for cell in cells]
    except ValueError:
        raise Mismatch("the handler returned cells that are not arrays") from None
    # One by one, as NumPy's dtype for all of them may not hold the integers of each.
    return np.concatenate([cast(reshaped(a, declared.shape), declared.dtype) for a in arrays])


def stack_alike(cells: Any, declared: Declared) -> np.ndarray:
    """Stack one region of cells of one shape, which may differ in dtype."""
    if len({np.shape(cell) for cell in cells}) != 1:
        raise Mismatch("the handler returned regions of several shapes")
    return np.concatenate([cast(np.asarray(cell)[None], declared.dtype) for cell in cells])


def values_of_events(
    where: str, contents: CellContents, declared: Declared, roi: Roi
) -> np.ndarray:
    """Return values that events already hold, in the declared shape and dtype."""
    assert declared.shape is not None
    with naming_cells(where):
        values = contents.values
        block = (
            reshaped(values, declared.shape)
            if isinstance(values, np.ndarray)
            else stack_cells(values, declared)
        )
        return cast(take_roi(block, roi), declared.dtype)
