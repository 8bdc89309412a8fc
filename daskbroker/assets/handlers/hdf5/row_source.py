"""Read rows of an HDF5 dataset in few, large reads into preallocated arrays."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import h5py
import numpy as np
from h5py import h5d, h5f, h5i, h5p

from ....core.file_identity import Identity, identity
from ...regions import Axis, compose, shape_of, take_region
from ..frame_rows import Located, Rows, one_dataset
from .chunk_bytes import ChunkBytes, has_fill_value
from .frame_bytes import FrameBytes, are_worth
from .guard import ChunkGuard
from .stored_rows import stored_rows
from .stored_sizes import ExternalStorage, check_chunk, stored_elsewhere

GAP = 64 * 1024
"""Maximum bytes between wanted rows that are read and dropped rather than skipped: a separate read
costs as much as reading this many bytes."""
MAX_READ_BYTES = 16 * 2**20
"""Maximum bytes that are read at a time if more is read than wanted."""


RegionCheck: TypeAlias = "Callable[[range, Sequence[Axis]], None]"


class HDF5Rows(Rows, Protocol):
    """Protocol of an open HDF5 dataset that is read by rows, and that a writer may make longer."""

    @property
    def maximum(self) -> tuple[int | None, ...]:
        """Maximum length of each dimension; None if unlimited."""

    @property
    def opened(self) -> dict[str, Identity]:
        """Files of the dataset that were opened, each with its identity at that time."""

    @property
    def watched(self) -> bool:
        """Whether all of these files were opened to be watched while they are written."""

    def refresh(self) -> None:
        """Update the shape with the rows that a writer added."""


class RowSource:
    """An open dataset that is read past HDF5 if its chunks allow it, else by HDF5.

    Threads may share it.

    Parameters
    ----------
    dataset
        Dataset, which is kept open as long as this object lives.
    plist
        Creation properties of the dataset, if the caller already has them.

    Attributes
    ----------
    dtype
        Dtype of the values, in the byte order of the file.
    opened
        Path of the file, with its identity when it was opened.
    watched
        Whether the file was opened to be watched while it is written.

    Raises
    ------
    FillError
        If its chunks are out of proportion; see :func:`~.stored_sizes.check_chunk`.
    """

    def __init__(self, dataset: h5py.Dataset, plist: h5p.PropDCID | None = None) -> None:
        # h5py looks up each of these again whenever it is asked.
        self.dataset = dataset
        self.dtype = dataset.dtype
        plist = dataset.id.get_create_plist() if plist is None else plist
        self._row_bytes = prod(dataset.shape[1:]) * self.dtype.itemsize
        self._filtered = plist.get_layout() == h5d.CHUNKED and plist.get_nfilters() > 0
        check_chunk(dataset, plist, self.dtype.itemsize)
        self._blank: object = None if has_fill_value(plist) else np.zeros((), self.dtype)[()]
        # HDF5 counts elements of overlapping mappings twice, and leaves out as many fill values.
        if plist.get_layout() == h5d.VIRTUAL and self._blank is None:
            self._blank = dataset.fillvalue
        self._bytes: ChunkBytes | FrameBytes | None = None
        self._looked = False
        self._guard: ChunkGuard | None = None
        self._guarded = not self._filtered
        self._others = stored_elsewhere(dataset, plist)
        self._external: ExternalStorage | None = None
        if plist.get_external_count():
            self._external = ExternalStorage(dataset, plist, self.dtype.itemsize)
        self._file = h5i.get_file_id(dataset.id)
        path = os.fsdecode(h5f.get_name(dataset.id))
        self.opened = {path: identity(self._file.get_vfd_handle())}
        self.watched = bool(self._file.get_intent() & h5f.ACC_SWMR_READ)

    @property
    def name(self) -> str:
        """Name of the dataset in its file."""
        return str(self.dataset.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with the number of rows that exist now."""
        return tuple(self.dataset.shape)

    @property
    def maximum(self) -> tuple[int | None, ...]:
        """Maximum length of each dimension; None if unlimited."""
        return tuple(self.dataset.maxshape)

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of all files that hold the dataset; None if unknown."""
        own = os.fstat(self._file.get_vfd_handle()).st_size
        return None if self._others is None else own + self._others

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`read_rows`."""
        if self._external is not None:
            self._external.check(rows)
        stored = self._past_hdf5(rows, axes)
        return read_rows(self.dataset, rows, axes, stored, self._check, self._blank)

    def _past_hdf5(self, rows: np.ndarray, axes: Sequence[Axis]) -> ChunkBytes | FrameBytes | None:
        """Return what reads a region past HDF5, if something can and it is worth it."""
        itemsize, size = self.dtype.itemsize, self._row_bytes
        if not self._filtered and not are_worth(rows, axes, itemsize, size):
            return None
        if not self._looked:  # twice at worst, if threads meet here
            kind = ChunkBytes if self._filtered else FrameBytes
            self._bytes, self._looked = kind.of(self.dataset), True
        return self._bytes

    def _check(self, rows: range, axes: Sequence[Axis]) -> None:
        """Check the chunks that HDF5 is about to unpack."""
        if not self._guarded:
            self._guard, self._guarded = ChunkGuard.of(self.dataset), True
        if self._guard is not None:
            self._guard.check(rows, axes)

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie."""
        return one_dataset(stored_rows(self.dataset), rows)

    def refresh(self) -> None:
        """Update the shape with the rows that a writer added."""
        self.dataset.refresh()
        self._bytes, self._looked = None, False
        self._guard, self._guarded = None, not self._filtered


def read_rows(
    dataset: h5py.Dataset,
    rows: np.ndarray,
    axes: Sequence[Axis],
    stored: ChunkBytes | FrameBytes | None = None,
    check: RegionCheck | None = None,
    blank: object = None,
) -> np.ndarray:
    """Read a region of some rows.

    Parameters
    ----------
    dataset
        Dataset of at least one dimension.
    rows
        Places along the first dimension: int64, all inside the dataset, in any order, with or
        without repetitions.
    axes
        Selection along each of the other dimensions.
    stored
        Chunks or frames of this dataset, if they can be read past HDF5.
    check
        Function that is called with the positions along all dimensions before HDF5 reads there.
    blank
        Value of elements that HDF5 leaves as they are in memory; None if there are none.

    Returns
    -------
    numpy.ndarray
        Shape ``(len(rows), *shape_of(axes))``, in the byte order of this machine.
    """
    if len(rows) > 1 and (np.diff(rows) <= 0).any():
        ordered, positions = np.unique(rows, return_inverse=True)
        return read_rows(dataset, ordered, axes, stored, check, blank)[positions]
    if stored is not None:
        with stored.opened() as file:
            found = None if file is None else stored.read_rows(file, rows, axes)
        if found is not None:
            return found
    return _read_rows(dataset, rows, axes, check or _no_check, blank)


def dtype_as_read(dtype: np.dtype) -> np.dtype | None:
    """Return the dtype of values as read from a dataset; None if its elements are arrays."""
    if dtype.subdtype is not None:
        return None
    if dtype.hasobject and dtype.names is None:
        return np.dtype(object)
    return _without_notes(dtype).newbyteorder("=")


def _without_notes(dtype: np.dtype) -> np.dtype:
    """Return a dtype without what h5py notes in it, of which NumPy warns when it is stored."""
    if dtype.subdtype is not None:
        return np.dtype((_without_notes(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.names is None:
        return np.dtype(dtype.str)
    fields: Any = dtype.fields
    description: Any = {
        "names": dtype.names,
        "formats": [_without_notes(fields[name][0]) for name in dtype.names],
        "offsets": [fields[name][1] for name in dtype.names],
        "itemsize": dtype.itemsize,
    }
    return np.dtype(description)


def _no_check(rows: range, axes: Sequence[Axis]) -> None:
    """Check nothing, for datasets whose content is trusted."""


def _read_rows(
    dataset: h5py.Dataset,
    rows: np.ndarray,
    axes: Sequence[Axis],
    check: RegionCheck,
    blank: object,
) -> np.ndarray:
    """Read increasing rows through HDF5."""
    dtype = dataset.dtype  # h5py makes a new one each time
    if dtype.hasobject or dtype.subdtype is not None:
        return _read_objects(dataset, rows, axes, check)
    dtype, shape = dtype.newbyteorder("="), (len(rows), *shape_of(axes))
    if 0 in shape:
        return np.empty(shape, dtype)
    strided = any(isinstance(axis, range) and axis.step > 1 for axis in axes[:-1])
    whole = strided and dataset.chunks is None  # h5py takes its time to tell chunks
    box = [
        _box(axis, stride=whole and position < len(axes) - 1) for position, axis in enumerate(axes)
    ]
    if all(side.rest is None for side in box):
        return _read_exactly(dataset, dtype, rows, box, check, blank).reshape(shape)
    return _read_more(dataset, np.empty(shape, dtype), rows, box, axes, check, blank)


def _read_objects(
    dataset: h5py.Dataset, rows: np.ndarray, axes: Sequence[Axis], check: RegionCheck
) -> np.ndarray:
    """Read elements that are texts, arrays or of varying length, as h5py does."""
    source = dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
    if not len(rows):
        return take_region(source[:0], axes, lead=1)
    parts, done = [], 0
    for low, high, count in _spans(rows, dataset.dtype.itemsize * prod(dataset.shape[1:])):
        check(range(low, high), [range(size) for size in dataset.shape[1:]])
        part = rows[done : done + count] - low
        parts.append(take_region(source[low:high][part], axes, lead=1))
        done += count
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


# -- what to read of a row -------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """Places to read along one dimension: ``count`` of them from ``start``, ``step`` apart.

    ``rest`` is the selection from these positions that is wanted. If None, all in this order.
    """

    start: int
    count: int
    step: int
    rest: Axis | None

    @property
    def positions(self) -> range:
        """All positions that are read."""
        return range(self.start, self.start + self.count * self.step, self.step)


def _box(axis: Axis, *, stride: bool) -> Side:
    """Return the simplest selection that includes an axis.

    HDF5 is slow at picking single elements, and at any stride inside chunks. So unless ``stride``
    is True all positions from the first to the last wanted one are read.
    """
    if isinstance(axis, int):
        return Side(axis, 1, 1, None)
    if isinstance(axis, range) and (axis.step == 1 or len(axis) == 1):
        return Side(axis[0], len(axis), 1, None)
    if isinstance(axis, range) and axis.step > 1 and stride:
        return Side(axis.start, len(axis), axis.step, None)
    if isinstance(axis, range):
        low, high = min(axis[0], axis[-1]), max(axis[0], axis[-1])
        end = axis[-1] - low + (1 if axis.step > 0 else -1)
        return Side(low, high - low + 1, 1, range(axis[0] - low, end, axis.step))
    low, high = int(axis.min()), int(axis.max())
    return Side(low, high - low + 1, 1, axis - low)


# -- which rows ------------------------------------------------------------------------------


def _spans(rows: np.ndarray, row_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Yield the rows to read together: first, last + 1, and how many of them are wanted.

    Rows that are consecutive or divided by small gaps are read together. HDF5 can stride over rows
    as well, but inside chunks that takes fifty times longer.
    """
    steps = rows[1:] - rows[:-1]
    apart = (steps - 1) * row_bytes > GAP
    if (steps > 1).any():  # with many small gaps, limit what is read and dropped at a time
        piece = (rows - rows[0]) * row_bytes // MAX_READ_BYTES
        apart |= (piece[1:] != piece[:-1]) & (steps > 1)
    edges = [0, *(np.flatnonzero(apart) + 1).tolist(), len(rows)]
    for first, last in itertools.pairwise(edges):
        yield int(rows[first]), int(rows[last - 1]) + 1, last - first


def _read_exactly(
    dataset: h5py.Dataset,
    dtype: np.dtype,
    rows: np.ndarray,
    box: Sequence[Side],
    check: RegionCheck,
    blank: object,
) -> np.ndarray:
    """Read all that the box selects, of increasing rows, into a new array."""
    out = _new((len(rows), *(side.count for side in box)), dtype, blank)
    done = 0
    for low, high, count in _spans(rows, out[0].nbytes):
        check(range(low, high), [side.positions for side in box])
        into = out[done : done + count]
        if high - low == count:
            _read_span(dataset, low, box, into)
        else:
            span = _new((high - low, *out.shape[1:]), dtype, blank)
            _read_span(dataset, low, box, span)
            np.take(span, rows[done : done + count] - low, axis=0, out=into)
        done += count
    return out


def _new(shape: tuple[int, ...], dtype: np.dtype, blank: object) -> np.ndarray:
    return np.empty(shape, dtype) if blank is None else np.full(shape, blank, dtype)


def _read_more(
    dataset: h5py.Dataset,
    out: np.ndarray,
    rows: np.ndarray,
    box: Sequence[Side],
    axes: Sequence[Axis],
    check: RegionCheck,
    blank: object,
) -> np.ndarray:
    """Read a box that has more than is wanted, in pieces, and fill ``out`` with what is wanted."""
    rest = [_of_box(side, axis) for side, axis in zip(box, axes)]
    row_bytes = out.dtype.itemsize * prod(side.count for side in box)
    step = max(1, MAX_READ_BYTES // row_bytes)
    for first in range(0, len(rows), step):
        piece = _read_exactly(dataset, out.dtype, rows[first : first + step], box, check, blank)
        out[first : first + step] = take_region(piece, rest, lead=1)
    return out


def _of_box(side: Side, axis: Axis) -> Axis:
    if isinstance(axis, int):
        return 0
    return range(side.count) if side.rest is None else compose(range(side.count), side.rest)


def _read_span(dataset: h5py.Dataset, low: int, box: Sequence[Side], out: np.ndarray) -> None:
    """Read consecutive rows in one call of HDF5, directly into the array."""
    space = dataset.id.get_space()
    space.select_hyperslab(
        (low, *(side.start for side in box)),
        out.shape,
        stride=(1, *(side.step for side in box)),
    )
    dataset.id.read(h5py.h5s.create_simple(out.shape), space, out)
