"""Handler of arrays in folders of the Zarr format, versions 2 and 3, read by the package zarr."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...core.errors import FillError
from ...core.file_identity import Identity, identity
from ...core.regular_files import check_regular
from ..files.readable import ReadableRoots
from ..regions import Axis, shape_of, take_region
from .frame_rows import Located, Rows, one_dataset
from .hdf5.stored_sizes import SMALL_CHUNK
from .stream_rows import StreamRows
from .zarr_stored import stored_chunks

METADATA = ("zarr.json", ".zarray")


class StreamZarr(StreamRows):
    """Mimetype ``application/x-zarr``: an array whose rows are the frames of all events.

    Parameters
    ----------
    folder
        Path of the folder.
    dataset
        Path of the array in the folder, if it is not at its top; ``path`` is another name for it.
    swmr
        Ignored.
    **others
        See :class:`~.stream_rows.StreamRows`.
    """

    specs = frozenset({"application/x-zarr"})

    def __init__(
        self, folder: str, /, *, dataset: str = "", path: str = "", swmr: bool = True, **others: Any
    ) -> None:
        super().__init__(**others)
        name = str(dataset or path).strip("/")
        if ".." in name.split("/"):
            raise FillError(f"the name {name!r} leads out of the folder")
        self._folder, self._name = folder, name
        self._last: tuple[list[Identity], Rows] | None = None

    def source(self) -> Rows:
        """Return the array, which is opened again if its metadata changed."""
        files = [os.path.join(self._folder, self._name, name) for name in METADATA]
        state = [identity(self.readable.check(path)) for path in files]
        if self._last is None or self._last[0] != state:
            self._last = state, _ZarrRows(self._folder, self._name, self.readable)
        return self._last[1]

    def refresh(self) -> bool:
        return True


class _ZarrRows:
    """A Zarr array that is read by rows."""

    def __init__(self, folder: str, name: str, readable: ReadableRoots) -> None:
        zarr = _package()
        try:
            array = zarr.open_array(store=_store(folder, readable), path=name, mode="r")
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise FillError(f"there is no Zarr array {name!r} in the folder: {error}") from None
        self.name, self.shape = name or folder, tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        if not self.shape:
            raise FillError(f"the array {self.name!r} has no dimensions, so no rows of frames")
        if self.dtype.hasobject:
            raise FillError(f"the array {self.name!r} has elements other than numbers")
        chunk, row = (prod(s) * self.dtype.itemsize for s in (array.chunks, self.shape[1:]))
        if chunk > max(SMALL_CHUNK, 2 * row):
            raise FillError(f"the array {self.name!r} has chunks of {chunk:,} bytes")
        self._array, self._readable = array, readable
        self._path = os.path.join(folder, name)

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return None: it is not known how many bytes a Zarr array takes."""
        return None

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.row_source.read_rows`."""
        if not len(rows) or 0 in shape_of(axes):
            return np.empty((len(rows), *shape_of(axes)), self.dtype.newbyteorder("="))
        boxes, rest = zip(*map(_box, (rows, *axes)))
        block = np.asarray(self._array.oindex[boxes])
        return take_region(block, rest).astype(self.dtype.newbyteorder("="), copy=False)

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie: in the files of chunks."""
        return one_dataset(stored_chunks(self._array, self._path, self._readable), rows)


def _box(axis: Axis) -> tuple[slice | np.ndarray, Axis]:
    """Return what to read along a dimension, increasing and unique, and the selection from it."""
    if isinstance(axis, int):
        return slice(axis, axis + 1), 0
    if isinstance(axis, range) and axis.step > 0:
        return slice(axis.start, axis.stop, axis.step), range(len(axis))
    positions, back = np.unique(np.asarray(axis, np.int64), return_inverse=True)
    if positions[-1] - positions[0] == len(positions) - 1:
        return slice(int(positions[0]), int(positions[-1]) + 1), back
    return positions, back


def _package() -> Any:
    try:
        import zarr
    except ImportError:
        raise FillError(
            "Zarr arrays are read by the package 'zarr', which is not installed here"
        ) from None
    return zarr


def _store(folder: str, readable: ReadableRoots) -> Any:
    """Return a folder as a Zarr store that reads only regular files below the readable roots."""
    from zarr.storage import LocalStore

    class Checked(LocalStore):  # type: ignore[misc]
        async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
            path = os.path.join(os.fspath(self.root), key)
            if os.path.lexists(path):
                check_regular(readable.check(path))
            return await super().get(key, *args, **kwargs)

    return Checked(readable.check(folder), read_only=True)
