"""Virtual datasets assembled without HDF5, from sources that were found and checked.

HDF5 would open the files that a virtual dataset names by itself, and read fill values for missing
ones. Here each source is found by :class:`~.links.LinkedFiles`, and reading the part of a missing
one is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

import h5py
import numpy as np
from h5py import h5s

from ....core.errors import FillError, FrameMissing
from ....core.file_identity import Identity, identity
from ...regions import Axis, as_axis, compose, put_region, shape_of
from ..frame_rows import Located
from ..stored_frames import NoReference, StoredRows
from .hdf5_files import NoRows
from .links import VIRTUAL_PREFIX, LinkedFile, LinkedFiles
from .row_source import HDF5Rows
from .selections import Selected, Unlimited, meet, paired, selected

OpenRows = Callable[[LinkedFile, str], HDF5Rows]
"""Function that opens a source dataset by its name in an open file."""


@dataclass(frozen=True, eq=False)
class _Pairing:
    """How a mapping runs through its source."""

    source: HDF5Rows
    positions: Selected
    """Places in the source."""
    runs: list[int | None] | None
    """Dimension of the target that each dimension of the source runs along; None: no such one."""


@dataclass(frozen=True, eq=False)
class _Mapping:
    """A part of a virtual dataset, and the source that has its values."""

    file: str
    dataset: str
    target: Selected
    source: Selected | None
    """Places in the source; None: all of it."""


class VirtualRows:
    """A virtual dataset that is read from its sources. Threads may share it.

    Parameters
    ----------
    files
        Finds and opens the files of the sources.
    file, dataset
        The virtual dataset, and the file that it is in.
    open_rows
        Function that opens a source.

    Raises
    ------
    FillError
        If elements are not plain values, a name has a ``%``, which HDF5 would expand to further
        names, or a mapping is not a grid of positions.
    """

    def __init__(
        self, files: LinkedFiles, file: LinkedFile, dataset: h5py.Dataset, open_rows: OpenRows
    ) -> None:
        self._files, self._file, self._dataset, self._open_rows = files, file, dataset, open_rows
        self._lock = threading.RLock()
        self._sources: dict[tuple[str, str], HDF5Rows] = {}
        self.name, self.dtype = dataset.name, dataset.dtype
        self._state = identity(file.file.id.get_vfd_handle())
        # Copying texts or lists between sources needs conversions that only HDF5 has.
        if self.dtype.hasobject or self.dtype.subdtype is not None:
            raise self._refused("its elements are texts or lists")
        self._map()

    def _refused(self, why: str) -> FillError:
        return FillError(
            f"{self._file.path!r}: the virtual dataset {self.name!r} cannot be read where "
            f"readable roots are set: {why}"
        )

    # -- mappings ----------------------------------------------------------------------------

    def _map(self) -> None:
        """Read the mappings; sources are opened only if they determine the shape."""
        plist = self._dataset.id.get_create_plist()
        self._mappings: list[_Mapping] = []
        self._pairings: dict[_Mapping, _Pairing] = {}
        self._grows = False
        sizes: list[int] = []
        for number in range(plist.get_virtual_count()):
            names = plist.get_virtual_filename(number), plist.get_virtual_dsetname(number)
            for name in names:
                # HDF5 puts numbers into such names and opens whatever file results.
                if "%" in name:
                    raise self._refused(f"{name!r} stands for other names")
            try:
                target = selected(plist.get_virtual_vspace(number), None)
                source = selected(plist.get_virtual_srcspace(number), ()) or None
                # A mapping without an end follows its source as that grows.
                if isinstance(target, Unlimited) or isinstance(source, Unlimited):
                    target, source = self._endless(names, target, source)
            except FillError as error:
                raise self._refused(f"of {names[0]!r}, {error}") from None
            self._mappings.append(_Mapping(*names, target, source))
            ends = [
                max(positions[0], positions[-1]) + 1 if len(positions) else 0
                for positions in target
            ]
            sizes = [max(pair) for pair in zip(sizes or ends, ends)]
        if self._grows:  # asking HDF5 would make it open the sources
            space = plist.get_virtual_vspace(0)
            self.shape = tuple(map(max, sizes, space.get_simple_extent_dims()))
            most = space.get_simple_extent_dims(True)
            self.maximum = tuple(None if n == h5s.UNLIMITED else n for n in most)
        # HDF5 knows this shape without opening a source.
        else:
            self.shape = tuple(self._dataset.shape)
            self.maximum = tuple(self._dataset.maxshape)
        sides = list(zip(*(mapping.target for mapping in self._mappings)))
        self._lows = [_column(min(p[0], p[-1]) if len(p) else 0 for p in side) for side in sides]
        self._highs = [_column(max(p[0], p[-1]) if len(p) else -1 for p in side) for side in sides]

    def _endless(
        self, names: tuple[str, str], target: Selected | Unlimited, source: object
    ) -> tuple[Selected, Selected]:
        """Cut unlimited selections to where the source ends now."""
        # It would not be defined how far the mapping reaches.
        if not isinstance(target, Unlimited) or not isinstance(source, Unlimited):
            raise FillError("only one side of the mapping is unlimited")
        self._grows = True
        count = source.available(self._source(*names).shape[source.axis])
        return target.up_to(count), source.up_to(count)

    def _source(self, file: str, dataset: str) -> HDF5Rows:
        with self._lock:
            key = file, dataset
            if key not in self._sources:
                where = self._file
                # A single dot stands for the file of the virtual dataset itself.
                if file != ".":
                    where = self._files.open_named(file, self._file, VIRTUAL_PREFIX)
                self._sources[key] = self._open_rows(where, dataset)
            return self._sources[key]

    def _pairing(self, mapping: _Mapping) -> _Pairing:
        if mapping not in self._pairings:
            source = self._source(mapping.file, mapping.dataset)
            positions = _positions(mapping, source.shape)
            same = len(positions) == len(source.shape)
            runs = paired(mapping.target, positions) if same else None
            self._pairings[mapping] = _Pairing(source, positions, runs)
        return self._pairings[mapping]

    # -- what it is put together of ----------------------------------------------------------

    @property
    def grows(self) -> bool:
        """Whether a mapping is unlimited, so that sources determine the shape."""
        return self._grows

    def is_as_mapped(self, rows: np.ndarray) -> bool:
        """Return whether :meth:`read` can read some rows, or only HDF5 can.

        HDF5 converts values that the dtype cannot hold, and pairs elements in any order.

        Raises
        ------
        FrameMissing, OSError
            If the file of a source is not there, or cannot be opened.
        """
        for mapping in self._touched(rows):
            try:
                found = self._pairing(mapping)
            except FrameMissing:
                raise
            # It has no such dataset, or one that is not readable here.
            except FillError:
                return False
            if found.runs is None or not _safely(found.source.dtype, self.dtype):
                return False
        return True

    def check_sources(self, rows: np.ndarray) -> None:
        """Check that HDF5 can read the sources of some rows as they are mapped.

        Of those that are not there, or that this user may not read, HDF5 would give fill values,
        and of what is beyond their end zeros or other bytes of the file. If a source is mapped as a
        whole, and has frames of another size now, it would put parts of frames into other ones.

        Raises
        ------
        FrameMissing, OSError
            If the file of a source is not there, cannot be opened, or ends before these rows.
        FillError
            If the file has no such dataset, or one of another size.
        """
        for mapping in self._touched(rows):
            label = f"the dataset {mapping.dataset!r} of {mapping.file!r}"
            try:
                found = self._pairing(mapping)
            except FrameMissing:
                raise
            except NoRows:  # a single value, which HDF5 can read
                continue
            except FillError as error:
                raise FillError(f"{label}, of which {self.name!r} consists: {error}") from None
            lengths, shape = tuple(map(len, mapping.target)), found.source.shape
            if found.runs is not None:
                _, numbers = meet(rows, mapping.target[0])
                if len(numbers):
                    self._picked(label, found, [as_axis(numbers), *map(range, lengths[1:])])
            elif mapping.source is None and prod(shape) != prod(lengths):
                raise FillError(
                    f"{label} has the shape {shape}, and {self.name!r} maps all of it to a "
                    f"part of the shape {lengths}; the virtual dataset must be written again"
                )

    def is_concatenation(self) -> bool:
        """Return whether the dataset consists of runs of whole source rows that do not overlap."""
        # Its mappings change while it is written.
        if self._grows:
            return False
        frame = tuple(map(range, self.shape[1:]))
        ends = []
        for mapping in self._mappings:
            target, source = mapping.target, mapping.source
            whole = source is None or source[1:] == frame
            runs = [target[0], *(source[:1] if source else ())]
            if not whole or target[1:] != frame or not all(map(_is_run, runs)):
                return False
            ends.append((target[0][0], target[0][-1]))
        return all(low[1] < high[0] for low, high in pairwise(sorted(ends)))

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie in the sources of a concatenation.

        Raises
        ------
        NoReference
            If the dataset is not a concatenation, or sources of these rows are missing or do not
            fit.
        """
        label = f"the virtual dataset {self.name!r} of {self._file.path!r}"
        if not self.is_concatenation():
            raise NoReference(f"{label} is not a concatenation of datasets")
        try:
            fits = self.is_as_mapped(rows)
        except (FrameMissing, OSError):
            fits = False
        if not fits:
            raise NoReference(f"{label} has sources that are missing or do not fit")
        stored: list[StoredRows] = []
        numbers, inside = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)
        for mapping in self._touched(rows):
            low, high = mapping.target[0][0], mapping.target[0][-1]
            of_it = np.flatnonzero((rows >= low) & (rows <= high))
            begin = mapping.source[0][0] if mapping.source else 0
            source = self._source(mapping.file, mapping.dataset)
            if source.shape[1:] != self.shape[1:] or source.dtype != self.dtype:
                raise NoReference(f"{label} has sources of another shape or dtype")
            places = rows[of_it] - low + begin
            if (places >= source.shape[0]).any():
                raise NoReference(f"{label} has sources that end before these rows")
            found, which, where = source.locate(places)
            numbers[of_it], inside[of_it] = which + len(stored), where
            stored.extend(found)
        if (numbers < 0).any():
            raise NoReference(f"{label} has rows without a source")
        return stored, numbers, inside

    # -- reading -----------------------------------------------------------------------------

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.row_source.read_rows`.

        Places that are not mapped get the fill value.

        Raises
        ------
        FillError
            If a source of the region is missing, is too small, or has values that the dtype of
            the virtual dataset cannot hold.
        """
        wanted = [np.atleast_1d(np.asarray(axis, np.int64)) for axis in (rows, *axes)]
        lengths, dtype = [len(axis) for axis in wanted], self.dtype.newbyteorder("=")
        out: np.ndarray | None = None
        # Tiles of a row or of a column have the same places along that dimension.
        places: dict[object, tuple[Axis, Axis]] = {}
        for mapping in self._touched(*wanted):
            met = []
            for axis, positions in enumerate(mapping.target):
                key = axis, positions if isinstance(positions, range) else id(positions)
                if key not in places:
                    hits, numbers = meet(wanted[axis], positions)
                    places[key] = as_axis(hits), as_axis(numbers)
                met.append(places[key])
            # The mapping's rows are near the wanted ones, but none of its elements is wanted.
            if 0 in shape_of([hits for hits, _ in met]):
                continue
            block = self._read_mapping(mapping, [numbers for _, numbers in met])
            if list(block.shape) == lengths:  # it has all that is wanted
                out = block.astype(dtype, copy=False)
                continue
            # What no source has is the fill value; most reads need no such array.
            out = np.full(lengths, self._fill, dtype) if out is None else out
            put_region(out, [hits for hits, _ in met], block)
        out = np.full(lengths, self._fill, dtype) if out is None else out
        return out.reshape(len(rows), *shape_of(axes))

    @cached_property
    def _fill(self) -> np.generic:
        return self._dataset.fillvalue

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of the files that hold ``rows``, or all rows if None; None: unknown."""
        touched = self._mappings if rows is None else self._touched(rows)
        total = 0
        for names in {(m.file, m.dataset) for m in touched}:
            with suppress(FillError, OSError):  # raised when the part is read
                size = self._source(*names).stored()
                if size is None:
                    return None
                total += size
        return total

    def _touched(self, *wanted: np.ndarray) -> list[_Mapping]:
        """Return the mappings whose range includes some of these places.

        They are given along the first dimension, the rows, and perhaps along the others.
        """
        touched = np.ones(len(self._mappings), bool)
        for axis, lows, highs in zip(wanted, self._lows, self._highs):
            ordered = np.sort(axis)
            begins, ends = np.searchsorted(ordered, lows), np.searchsorted(ordered, highs, "right")
            touched &= begins < ends
        return [self._mappings[number] for number in np.flatnonzero(touched).tolist()]

    def _read_mapping(self, mapping: _Mapping, numbers: Sequence[Axis]) -> np.ndarray:
        """Read positions of a mapping, by their numbers along each dimension of the target.

        The result has length 1 along a dimension that no dimension of the source runs along.
        """
        label = f"the dataset {mapping.dataset!r} of {mapping.file!r}"
        found = self._pairing(mapping)
        source, runs = found.source, found.runs
        if runs is None:
            lengths = tuple(map(len, mapping.target))
            raise self._refused(
                f"{label}, of the shape {source.shape}, is mapped to a part of the shape {lengths}"
            )
        picked = self._picked(label, found, numbers)
        rows = np.atleast_1d(np.asarray(picked[0], np.int64))
        block = source.read(rows, picked[1:])
        lengths = shape_of(numbers)
        shape = [length if axis in runs else 1 for axis, length in enumerate(lengths)]
        return self._converted(block.reshape(shape), label)

    def _picked(self, label: str, found: _Pairing, numbers: Sequence[Axis]) -> list[Axis]:
        """Return the places in a source, by their numbers along each dimension of the target."""
        runs, shape = found.runs or (), found.source.shape
        # A dimension of length 1 in the source may be none in the target.
        picked = [
            int(positions[0]) if run is None else compose(positions, numbers[run])
            for positions, run in zip(found.positions, runs)
        ]
        for axis, run, size in zip(picked, runs, shape):
            last = max(axis[0], axis[-1]) if isinstance(axis, range) else int(np.max(axis))
            if last >= size:
                kind = FrameMissing if run == 0 else FillError  # of rows, those at the end lack
                raise kind(
                    f"{self._file.path!r}: {label} has the shape {tuple(shape)}, too small for "
                    f"position {last}, which the virtual dataset {self.name!r} maps"
                )
        return picked

    def _converted(self, block: np.ndarray, label: str) -> np.ndarray:
        """Convert values to the dtype of the virtual dataset; raise if one would change."""
        dtype = self.dtype.newbyteorder("=")
        # Only a cast that might change values is checked.
        if _safely(block.dtype, dtype):
            return block
        with np.errstate(all="ignore"):
            changed = block.astype(dtype)
        if not np.array_equal(changed, block, equal_nan=block.dtype.kind in "fc"):
            raise self._refused(f"{label} has values of {block.dtype} that {dtype} cannot hold")
        return changed

    # -- files -------------------------------------------------------------------------------

    @property
    def opened(self) -> dict[str, Identity]:
        """Its file and those of the sources read so far, each with its identity when opened."""
        with self._lock:
            found = {self._file.path: self._state}
            for source in self._sources.values():
                found.update(source.opened)
            return found

    @property
    def watched(self) -> bool:
        """Whether all of these files were opened to be watched while they are written."""
        with self._lock:
            own = bool(self._file.file.swmr_mode)
            return own and all(source.watched for source in self._sources.values())

    def refresh(self) -> None:
        """Update the mappings and the shape with the rows that writers added."""
        with self._lock:
            for source in self._sources.values():
                source.refresh()
            self._dataset.id.refresh()
            self._map()


def _safely(dtype: np.dtype, into: np.dtype) -> bool:
    """Return whether each value of a dtype is one of another."""
    into = into.newbyteorder("=")
    return dtype == into or np.can_cast(dtype, into, "safe")


def _column(numbers: Iterable[int]) -> np.ndarray:
    return np.array(list(numbers), np.int64)


def _positions(mapping: _Mapping, shape: Sequence[int]) -> Selected:
    """Return where the values of a mapping lie in its source of some shape."""
    if mapping.source is not None:
        return mapping.source
    count, *frame = map(len, mapping.target)
    # Rows are in their places also where there are more or fewer of them than when it was mapped.
    if [n for n in shape[1:] if n != 1] == [n for n in frame if n != 1]:
        return (range(count), *map(range, shape[1:]))
    return tuple(map(range, shape))


def _is_run(positions: range | np.ndarray) -> bool:
    return isinstance(positions, range) and positions.step == 1 and len(positions) > 0
