"""Adapter that reads blocks by classic handlers.

These are called as ``handler(path, **resource_kwargs)(**datum_kwargs)``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ...core.errors import FillError
from ..regions import Roi, axes_of, take_region
from .contract import Block, BlockHandler, Datums
from .gathering import gather


class ClassicHandler(BlockHandler):
    """Reads one datum after the other by a handler of area-detector-handlers, ophyd or a user.

    A handler may return arrays, numbers or Dask arrays, which are computed here. Anything else,
    such as a list of data frames, is passed on unchanged. Only one thread at a time calls the
    handler, as such handlers are not made for several.

    If readable roots are set, the path is checked, and so are the files that the handler's own
    ``get_file_list`` names, if it has one; texts among the arguments must not have ``..`` as a
    part of a path. Other files that a handler opens cannot be checked.

    Parameters
    ----------
    factory
        Handler class, or a callable like one.
    path, kwargs
        Arguments of ``factory``: the path and the resource's keyword arguments.
    """

    def __init__(
        self, factory: Callable[..., Any], path: str, /, kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._factory, self._path, self._kwargs = factory, path, dict(kwargs or {})
        self._lock = threading.Lock()
        self._handler: Any = None

    def read(self, datums: Datums, roi: Roi = (), declared: tuple[int, ...] | None = None) -> Block:
        """Read as :meth:`BlockHandler.read` does.

        If the cells do not have the ``declared`` shape, except for axes of length 1, they are not
        stacked: the block repeats the first cell for all datums, without a copy.
        """
        with self._lock:
            if self._handler is None:
                path = self.readable.check(self._path)
                self._check_texts([self._kwargs])
                self._handler = self._factory(path, **self._kwargs)
            if self.readable.roots is not None:
                self._check_files(datums)
            cells = (_cell(self._handler(**row), roi) for row in datums.rows())
            return gather(cells, len(datums), None if roi else declared)

    def _check_files(self, datums: Datums) -> None:
        self._check_texts(datums.rows())
        listing = getattr(self._handler, "get_file_list", None)
        for path in listing(datums.rows()) if callable(listing) else ():
            self.readable.check(os.fspath(path))

    def _check_texts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self.readable.roots is None:
            return
        for key, value in ((key, value) for row in rows for key, value in row.items()):
            if isinstance(value, str) and ".." in value.replace("\\", "/").split("/"):
                raise FillError(
                    f"{key}={value!r} contains '..', which may lead out of the readable roots"
                )


def _cell(value: Any, roi: Roi) -> Any:
    """Return a handler's result; if it is array-like, as a native array cut to the region.

    Raises
    ------
    FillError
        If a region is requested of something that has no dimensions.
    """
    if hasattr(value, "__dask_graph__"):
        value = value.compute(scheduler="synchronous")
    if isinstance(value, (bool, int, float, complex)) or _is_array(value):
        value = np.asanyarray(value)
        # As block handlers give them, and as a look notes them.
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
        return take_region(value, axes_of(roi, value.shape)) if roi else value
    if roi:
        raise FillError(
            f"a region of a cell was requested, but the handler returned a {type(value).__name__}, "
            "which has no dimensions; request the whole cell"
        )
    return value


def _is_array(value: object) -> bool:
    """Return whether it is an array or converts to one, as h5py's datasets do; not a table."""
    array_like = hasattr(value, "__array__") and hasattr(value, "shape") and hasattr(value, "dtype")
    return isinstance(value, np.ndarray) or (array_like and not hasattr(value, "iloc"))
