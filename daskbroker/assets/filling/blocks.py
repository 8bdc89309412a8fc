"""Read one block of external data: the cells of some datums of one resource."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from ...core.documents import to_json
from ...core.errors import FillError, FrameMissing
from ...core.peeks import Cell
from ..files.resolving import ResolvedResource
from ..handlers.classic import ClassicHandler
from ..handlers.contract import Block, BlockHandler, CellsDiffer, Datums, FramesThere
from ..handlers.registry import Factory
from ..handlers.stored_frames import CellFrames, NoReference
from ..regions import Roi
from ..shapes import Declared
from .open_handlers import HandlerCache, open_handlers

__all__ = [
    "cell_shape",
    "count_frames",
    "locate_block",
    "look_at_cells",
    "look_into_file",
    "read_block",
    "touch_block",
]


LOST = (FrameMissing, FileNotFoundError, NotADirectoryError)
"""Errors of handlers that mean a lost frame."""


def read_block(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    roi: Roi = (),
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
    declared: tuple[int, ...] | None = None,
) -> Block:
    """Read one region of the cells of some datums, by the open handlers of this process.

    Parameters
    ----------
    resource, factory
        Results of :func:`~daskbroker.assets.files.resolving.resolve` and
        :meth:`~daskbroker.assets.handlers.registry.HandlerRegistry.find`.
    datums
        Datums of this resource.
    roi
        Region to read of each cell.
    data_key
        The descriptor's entry of the data key, needed for stream resources.
    where
        Beginning of an error message: run, stream and key.
    declared
        Shape of a cell in the descriptor, for handlers that only know the shape of a cell after
        reading it: cells of another shape are not stacked.

    Returns
    -------
    numpy.ndarray or list
        Array of shape ``(len(datums), *cell[roi].shape)``, or a list if the cells have no common
        shape.

    Raises
    ------
    CellsDiffer
        If a region is requested of cells that differ in shape.
    FillError
        If anything else goes wrong, at once and without a retry. The message names ``where``, spec
        and path. It is a :class:`FrameMissing` if a frame is not on disk.
    """
    with _open(resource, factory, data_key, where) as handler:
        if isinstance(handler, ClassicHandler):
            block = handler.read(datums, roi, declared)
        else:
            block = handler.read(datums, roi)
        # Handlers of users may return anything; a block of other length would shift the cells.
        if not isinstance(block, (np.ndarray, list)) or len(block) != len(datums):
            raise FillError(
                f"the handler returned a {type(block).__name__} that is not a block of "
                f"{len(datums)} cells"
            )
        return block


def touch_block(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
) -> None:
    """Check that the cells of some datums exist, reading as little as possible.

    A block handler reads an empty region: no values, but each file is opened. A classic handler
    reads the cells.

    Raises
    ------
    FrameMissing
        If a cell does not exist.
    FillError
        Under the conditions of :func:`read_block`.
    """
    with _open(resource, factory, data_key, where) as handler:
        shape = None if isinstance(handler, ClassicHandler) else handler.cell_shape(datums)
        nothing = () if not shape else (*[slice(None)] * (len(shape) - 1), slice(0, 0))
        try:
            handler.read(datums, nothing)
        except CellsDiffer:
            handler.read(datums)


def locate_block(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
) -> CellFrames:
    """Return which bytes hold the cells of some datums; see :meth:`BlockHandler.frames_of`.

    Raises
    ------
    NoReference
        If the cells are not ranges of bytes of files, or if these cannot be told.
    FillError
        Under the conditions of :func:`read_block`.
    """
    with _open(resource, factory, data_key, where) as handler:
        return handler.frames_of(datums)


def cell_shape(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
) -> tuple[int, ...] | None:
    """Return the shape of whole cells as their handler reads them; None if it cannot tell.

    The file is opened but no values are read; see :meth:`BlockHandler.cell_shape`.

    Raises
    ------
    FillError
        Under the conditions of :func:`read_block`.
    """
    with _open(resource, factory, data_key, where) as handler:
        return handler.cell_shape(datums)


def look_at_cells(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
) -> list[Cell]:
    """Return the shape and dtype of some cells, without reading values if their handler can tell.

    Otherwise cells are read: all of them if the claim does not declare their shape, else only the
    first. Lost frames are left out if there are others.

    Parameters
    ----------
    resource, factory, datums, data_key, where
        See :func:`read_block`; there should be few datums.

    Raises
    ------
    FillError
        Under the conditions of :func:`read_block`.
    """
    with _open(resource, factory, data_key, where) as handler:
        return _cells(handler, datums, data_key)


def look_into_file(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
    keep_open: bool = True,
) -> tuple[list[Cell], FramesThere | None]:
    """Return what :func:`look_at_cells` does and the number of frames, opening the file once.

    Parameters
    ----------
    resource, factory, datums, data_key, where
        See :func:`look_at_cells`.
    keep_open
        If True, keep the handler in the cache, as the caller will probably read.

    Raises
    ------
    FillError
        Under the conditions of :func:`read_block`.
    """
    cache = open_handlers() if keep_open else HandlerCache(0)
    with _open(resource, factory, data_key, where, cache) as handler:
        return _cells(handler, datums, data_key), _frames_there(handler, datums)


def count_frames(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Mapping[str, Any] | None = None,
    where: str = "",
) -> FramesThere | None:
    """Return the number of frames of a resource for all events; None if its handler cannot tell.

    Raises
    ------
    FillError
        If the handler cannot be built.
    """
    with _open(resource, factory, data_key, where) as handler:
        return _frames_there(handler, datums)


def _frames_there(handler: BlockHandler, datums: Datums) -> FramesThere | None:
    with suppress(Exception):  # an error is raised when the frames themselves are read
        return handler.frames_there(datums)
    return None


def _cells(handler: BlockHandler, datums: Datums, data_key: Mapping[str, Any] | None) -> list[Cell]:
    cells: list[Cell] = []
    lost: Exception | None = None
    for position in range(len(datums)):
        one = datums.take(slice(position, position + 1))
        try:
            shape, dtype = handler.cell_shape(one), handler.cell_dtype(one)
            is_told = shape is not None and dtype is not None
            cells.append(_told_cell(shape, dtype) if is_told else _read_cell(handler, one))
        # The last file of an aborted run, for example; others tell the shape and dtype.
        except LOST as error:
            lost = lost or error
            continue
        # The shape is declared, so one cell tells the rest; more would cost as much.
        if not is_told and Declared.of([data_key or {}]).shape is not None:
            break
    if lost is not None and not cells:
        raise lost
    return cells


def _told_cell(shape: Any, dtype: Any) -> Cell:
    lengths = tuple(map(int, shape))
    if min(lengths, default=0) < 0:  # before it is remembered, and a guess for other runs
        raise FillError(f"the handler gives cells the shape {lengths}")
    return Cell(lengths, dtype.newbyteorder("="))


def _read_cell(handler: BlockHandler, datums: Datums) -> Cell:
    (value,) = handler.read(datums)
    if isinstance(value, (np.ndarray, np.generic)):
        return Cell(value.shape, value.dtype.newbyteorder("="))
    return Cell(None, np.dtype(object))


@contextmanager
def _open(
    resource: ResolvedResource,
    factory: Factory,
    data_key: Mapping[str, Any] | None,
    where: str,
    cache: HandlerCache | None = None,
) -> Iterator[BlockHandler]:
    """Provide the open handler of a resource; if it fails, drop it and say where in the error."""
    path = resource.path
    key = (
        *(factory, path, resource.readable, resource.stream),
        to_json(resource.kwargs) if resource.kwargs else "",
        to_json(data_key) if resource.stream else "",
    )
    cache = open_handlers() if cache is None else cache
    try:
        yield cache.get(key, path, lambda: _build(resource, factory, path, data_key))
    # The handler works, but its cells are not ranges of bytes, or not of one shape.
    except (NoReference, CellsDiffer):
        raise
    except Exception as error:
        # The next read opens the file anew, as it may have been replaced meanwhile.
        cache.discard(key)
        label = f"{where}, " if where else ""
        shown = " or ".join(map(repr, dict.fromkeys((path, *resource.paths))))
        kind = FrameMissing if isinstance(error, LOST) else FillError
        raise kind(f"{label}spec {resource.spec!r}, path {shown}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FillError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"no such file: {error}"
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return f"there is not enough memory for the requested cells: {error or 'MemoryError'}"
    return f"{type(error).__name__}: {error}"


def _build(
    resource: ResolvedResource,
    factory: Factory,
    path: str,
    data_key: Mapping[str, Any] | None,
) -> BlockHandler:
    found = factory.load()
    made, said = found, {}
    if isinstance(found, partial) and not found.args:
        made, said = found.func, found.keywords
    handler: BlockHandler
    if isinstance(made, type) and issubclass(made, BlockHandler):
        stream = {"data_key": data_key or {}} if resource.stream else {}
        make: Callable[..., BlockHandler] = made
        # The documents' parameters must not replace the descriptor's entry; a partial's keywords
        # take precedence over the parameters.
        handler = make(path, **{**resource.kwargs, **stream, **said})
    else:
        handler = ClassicHandler(found, path, resource.kwargs)
    handler.readable = resource.readable
    return handler
