"""Read one block of external data: the cells of some datums of one resource."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...core.documents import to_json
from ...core.errors import FillError, FrameMissing, lacks_memory
from ...core.peeks import Cell
from ..files.resolving import ResolvedResource
from ..handlers.classic import ClassicHandler
from ..handlers.contract import Block, BlockHandler, CellsDiffer, Datums, FramesThere
from ..handlers.registry import Factory
from ..handlers.stored_frames import CellFrames, NoReference
from ..regions import Roi
from ..shapes import Declared
from .open_handlers import HandlerCache, open_handlers

LOST = (FrameMissing, FileNotFoundError, NotADirectoryError)
"""Errors of handlers that mean a lost frame."""


@dataclass(frozen=True)
class BlockReader:
    """Reads cells of one data key from one resource, by the open handlers of this process.

    If anything goes wrong, each method raises a :class:`FillError` at once and without a retry. Its
    message names ``where``, spec and path. It is a :class:`FrameMissing` if a frame is not on disk.

    Attributes
    ----------
    resource, factory
        Results of :func:`~daskbroker.assets.files.resolving.resolve` and
        :meth:`~daskbroker.assets.handlers.registry.HandlerRegistry.find`.
    claim
        The descriptor's entry of the data key, needed for stream resources.
    where
        Beginning of an error message: run, stream and key.
    """

    resource: ResolvedResource
    factory: Factory
    claim: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def read(self, datums: Datums, roi: Roi = (), declared: tuple[int, ...] | None = None) -> Block:
        """Read one region of the cells of some datums.

        Parameters
        ----------
        datums
            Datums of this resource.
        roi
            Region to read of each cell.
        declared
            Shape of a cell in the descriptor, for handlers that only know the shape of a cell
            after reading it: cells of another shape are not stacked.

        Returns
        -------
        numpy.ndarray or list
            Array of shape ``(len(datums), *cell[roi].shape)``, or a list if the cells have no
            common shape.

        Raises
        ------
        CellsDiffer
            If a region is requested of cells that differ in shape.
        """
        with self._open() as handler:
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

    def touch(self, datums: Datums) -> None:
        """Check that the cells of some datums exist, reading as little as possible.

        A block handler reads an empty region: no values, but each file is opened. A classic
        handler reads the cells.
        """
        with self._open() as handler:
            shape = None if isinstance(handler, ClassicHandler) else handler.cell_shape(datums)
            nothing = () if not shape else (*[slice(None)] * (len(shape) - 1), slice(0, 0))
            try:
                handler.read(datums, nothing)
            except CellsDiffer:
                handler.read(datums)

    def locate(self, datums: Datums) -> CellFrames:
        """Return which bytes hold the cells of some datums; see :meth:`BlockHandler.frames_of`.

        Raises
        ------
        NoReference
            If the cells are not ranges of bytes of files, or if these cannot be told.
        """
        with self._open() as handler:
            return handler.frames_of(datums)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        """Return the shape of whole cells as their handler reads them; None if it cannot tell.

        The file is opened but no values are read; see :meth:`BlockHandler.cell_shape`.
        """
        with self._open() as handler:
            return handler.cell_shape(datums)

    def cells_of(self, datums: Datums) -> list[Cell]:
        """Return the shape and dtype of some cells, without reading values if possible.

        If their handler cannot tell, cells are read: all of them if the claim does not declare
        their shape, else only the first. So there should be few datums. Lost frames are left
        out if there are others.
        """
        with self._open() as handler:
            return self._cells(handler, datums)

    def frames_there(self, datums: Datums) -> FramesThere | None:
        """Return the number of frames of the resource for all events; None if not known."""
        with self._open() as handler:
            return _frames_there(handler, datums)

    def look(
        self, datums: Datums, *, keep_open: bool = True
    ) -> tuple[list[Cell], FramesThere | None]:
        """Return :meth:`cells_of` and :meth:`frames_there` of some datums, opening the file once.

        With ``keep_open`` the handler stays in the cache, as the caller will probably read.
        """
        with self._open(open_handlers() if keep_open else HandlerCache(0)) as handler:
            return self._cells(handler, datums), _frames_there(handler, datums)

    def _cells(self, handler: BlockHandler, datums: Datums) -> list[Cell]:
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
            if not is_told and Declared.of([self.claim]).shape is not None:
                break
        if lost is not None and not cells:
            raise lost
        return cells

    @contextmanager
    def _open(self, cache: HandlerCache | None = None) -> Iterator[BlockHandler]:
        """Provide the open handler; if it fails, drop it and say where in the error."""
        resource, path = self.resource, self.resource.path
        key = (
            *(self.factory, path, resource.readable, resource.stream),
            to_json(resource.kwargs) if resource.kwargs else "",
            to_json(self.claim) if resource.stream else "",
        )
        cache = open_handlers() if cache is None else cache
        try:
            yield cache.get(key, path, lambda: self._build(path))
        # The handler works, but its cells are not ranges of bytes, or not of one shape.
        except (NoReference, CellsDiffer):
            raise
        except Exception as error:
            # The next read opens the file anew, as it may have been replaced meanwhile.
            cache.discard(key)
            label = f"{self.where}, " if self.where else ""
            shown = " or ".join(map(repr, dict.fromkeys((path, *resource.paths))))
            kind = FrameMissing if isinstance(error, LOST) else FillError
            raise kind(f"{label}spec {resource.spec!r}, path {shown}: {_reason(error)}") from error

    def _build(self, path: str) -> BlockHandler:
        resource, found = self.resource, self.factory.load()
        made, preset = found, {}
        if isinstance(found, partial) and not found.args:
            made, preset = found.func, found.keywords
        handler: BlockHandler
        if isinstance(made, type) and issubclass(made, BlockHandler):
            stream = {"data_key": self.claim} if resource.stream else {}
            make: Callable[..., BlockHandler] = made
            # The documents' parameters must not replace the descriptor's entry; a partial's
            # keywords take precedence over the parameters.
            handler = make(path, **{**resource.kwargs, **stream, **preset})
        else:
            handler = ClassicHandler(found, path, resource.kwargs)
        handler.readable = resource.readable
        return handler


def _frames_there(handler: BlockHandler, datums: Datums) -> FramesThere | None:
    with suppress(Exception):  # an error is raised when the frames themselves are read
        return handler.frames_there(datums)
    return None


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


def _reason(error: Exception) -> str:
    if isinstance(error, FillError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"no such file: {error}"
    if lacks_memory(error):
        return f"there is not enough memory for the requested cells: {error or 'MemoryError'}"
    return f"{type(error).__name__}: {error}"
