"""Handlers of the HDF5 layouts that particular detectors or their plugins write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
from h5py import h5g, h5l, h5o

from ....core.errors import FillError, FrameMissing
from ....core.file_identity import Identity, identity
from ...files.readable import ReadableRoots
from ...regions import Roi, axes_of, shape_of
from ..contract import Block, BlockHandler, CellsDiffer, Datums, FramesThere
from ..frame_rows import (
    Located,
    OneFrame,
    Rows,
    cell_frames,
    locate_events,
    read_cell,
    read_events,
    whole_region,
)
from ..gathering import gather
from ..layout import frame_count
from ..name_templates import check_percent, count_files
from ..stored_frames import CellFrames, NoReference, StoredRows
from .frames import AD_DATASET, AreaDetectorHDF5
from .hdf5_files import open_file
from .open_datasets import OpenDatasets
from .row_source import dtype_as_read

DETECTOR = "entry/instrument/detector"


class Timepix(AreaDetectorHDF5):
    """Spec ``TPX_HDF5``: as ``AD_HDF5``, with the dataset at ``entry/instrument/detector/data``."""

    specs = frozenset({"TPX_HDF5"})

    def __init__(self, path: str, /, frame_per_point: int = 1) -> None:
        super().__init__(path, frame_per_point, f"{DETECTOR}/data")


class AreaDetectorTimes(BlockHandler):
    """Spec ``AD_HDF5_TS``: the times at which the frames of a point were taken, in seconds.

    A datum has the keyword ``point_number``; its cell is one float64 number if n is 1, else an
    array of n.

    Parameters
    ----------
    path
        Path of the file.
    frame_per_point
        Number n of frames of a point.
    swmr
        Whether a writer is expected to be at work.
    """

    specs = frozenset({"AD_HDF5_TS"})
    parts = (
        ("/entry/instrument/NDAttributes/NDArrayEpicsTSSec", 1.0),
        ("/entry/instrument/NDAttributes/NDArrayEpicsTSnSec", 1e-9),
    )

    def __init__(self, path: str, /, frame_per_point: int = 1, swmr: bool = False) -> None:
        self._per_point = frame_count(frame_per_point, "frame_per_point")
        self._datasets = OpenDatasets(path, swmr=swmr)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        positions = datums.integers("point_number")
        axes = axes_of(roi, self.cell_shape(datums))  # raises if a region of a number is requested
        axes = axes if self._per_point != 1 else (0,)
        total = np.zeros((len(positions), *shape_of(axes)))
        for name, unit in self.parts:
            source = self._datasets.get(name, self.readable)
            total += (
                read_events(source, positions, self._per_point, axes, whole_region(source.shape))
                * unit
            )
        return total

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return () if self._per_point == 1 else (self._per_point,)

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return np.dtype(np.float64)

    def refresh(self) -> bool:
        return self._datasets.refresh()


class AreaDetectorTimesSWMR(AreaDetectorTimes):
    """Spec ``AD_HDF5_SWMR_TS``: as ``AD_HDF5_TS``, for a file that may still be written."""

    specs = frozenset({"AD_HDF5_SWMR_TS"})

    def __init__(self, path: str, /, frame_per_point: int = 1) -> None:
        super().__init__(path, frame_per_point, swmr=True)


class Xspress3(BlockHandler):
    """Spec ``XSP3``: spectra of several channels.

    A datum has the keywords ``frame``, counted from 0, and ``channel``, counted from 1. Its cell is
    a spectrum.

    Parameters
    ----------
    path
        Path of the file.
    key
        Name of the dataset, which has the shape ``(frames, channels, length)``.
    """

    specs = frozenset({"XSP3"})

    def __init__(self, path: str, /, key: str = f"{DETECTOR}/data") -> None:
        self._key, self._datasets = key, OpenDatasets(path, swmr=False)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source = self._source()
        channels, frames = _channels_and_frames(datums)
        axes = axes_of(roi, source.shape[2:])
        out = np.empty((datums.count, *shape_of(axes)), source.dtype.newbyteorder("="))
        for channel in np.unique(channels).tolist():
            # Channels count from 1.
            if not 1 <= channel <= source.shape[1]:
                raise FillError(f"there is no channel {channel} among {source.shape[1]}")
            of_it = np.flatnonzero(channels == channel)
            view = (range(source.shape[0]), channel - 1, *whole_region(source.shape[2:]))
            out[of_it] = read_events(source, frames[of_it], 1, (0, *axes), view)
        return out

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return self._source().shape[2:]

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return dtype_as_read(self._source().dtype)

    def frames_there(self, datums: Datums) -> FramesThere | None:
        return FramesThere(self._source().shape[0], "frame")

    def frames_of(self, datums: Datums) -> CellFrames:
        source = self._source()
        channels, frames = _channels_and_frames(datums)
        outside = (channels < 1) | (channels > source.shape[1]) | (frames >= source.shape[0])
        # A reference must not lead to bytes of another cell.
        if outside.any():
            raise NoReference(f"{source.name!r} of {source.shape} does not have all cells")
        stored, which, rows = source.locate(frames)
        used, numbers = np.unique(np.stack([which, channels]), axis=1, return_inverse=True)
        parts = [stored[position].channel(channel - 1) for position, channel in used.T.tolist()]
        return cell_frames(parts, numbers.ravel(), rows, 1, has_axis=False)

    def _source(self) -> Rows:
        source = self._datasets.get(self._key, self.readable)
        # Frames, channels and bins.
        if len(source.shape) != 3:
            raise FillError(
                f"the dataset {self._key!r} has the shape {source.shape}, not 3 lengths"
            )
        return source

    def refresh(self) -> bool:
        return self._datasets.refresh()


def _channels_and_frames(datums: Datums) -> tuple[np.ndarray, np.ndarray]:
    columns = dict(datums.columns)
    channel = {"channel": columns.pop("channel")} if "channel" in columns else {}
    channels = Datums(channel, datums.count).integers("channel")
    return channels, Datums(columns, datums.count).integers("frame")


class FlyScan(BlockHandler):
    """Specs ``XSP3_FLY``, ``MERLIN_FLY`` and others of fly scans: a whole dataset is one cell.

    A datum may have the keyword ``target``: ``data`` (the default), or the name of an attribute of
    frames.

    Parameters
    ----------
    path
        Path of the file.
    """

    specs = frozenset(
        {"XSP3_FLY", "XPS3_FLY", "DEXELA_FLY_V1", "MERLIN_FLY", "MERLIN_FLY_STREAM_V1"}
    )

    def __init__(self, path: str, /) -> None:
        self._datasets = OpenDatasets(path, swmr=False)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        cells = (self._cell(target, roi) for target in _targets(datums))
        return gather(cells, datums.count)

    def _cell(self, target: str, roi: Roi) -> np.ndarray:
        return read_cell(self._source(target), roi)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        shapes = {self._source(target).shape for target in set(_targets(datums))}
        return shapes.pop() if len(shapes) == 1 else None

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        dtypes = {self._source(target).dtype for target in set(_targets(datums))}
        return dtype_as_read(dtypes.pop()) if len(dtypes) == 1 else None

    def frames_of(self, datums: Datums) -> CellFrames:
        targets = set(_targets(datums))
        if len(targets) > 1:
            raise NoReference(f"datums of one key name several datasets: {sorted(targets)}")
        source = self._source(targets.pop() if targets else "data")
        positions = np.zeros(datums.count, np.int64)
        return locate_events(source, positions, source.shape[0], whole_region(source.shape))

    def _source(self, target: str) -> Rows:
        name = target if target == "data" else f"NDAttributes/{target}"
        return self._datasets.get(f"{DETECTOR}/{name}", self.readable)

    def refresh(self) -> bool:
        return self._datasets.refresh()


def _targets(datums: Datums) -> Sequence[str]:
    return [str(row.get("target", "data")) for row in datums.rows()]


class Eiger(BlockHandler):
    """Specs ``AD_EIGER``, ``AD_EIGER2``, ``AD_EIGER_SLICE``: master files that link to frames.

    A datum has the keyword ``seq_id``; its cell is all frames of the master file
    ``<path>_<seq_id>_master.h5``, or one of them if the datum has ``frame_num`` too.

    Parameters
    ----------
    path
        Beginning of the file names.
    images_per_file, frame_per_point
        Recorded by the writer; ignored, as the files themselves have this information.
    """

    specs = frozenset({"AD_EIGER", "AD_EIGER2", "AD_EIGER_SLICE"})

    def __init__(
        self, path: str, /, images_per_file: int | None = None, frame_per_point: int | None = None
    ) -> None:
        self._stem = path
        self._series: dict[int, _Series] = {}

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        return gather((self._cell(row, roi) for row in _eiger_rows(datums)), datums.count)

    def _cell(self, row: tuple[int, int | None], roi: Roi) -> np.ndarray:
        sources, number = self._sources(row[0]), row[1]
        count, frame = _frame_count(sources, number), sources[0].shape[1:]
        # Without a number the cell is the whole series.
        axes = axes_of(roi, (count, *frame)) if number is None else (number, *axes_of(roi, frame))
        wanted = np.atleast_1d(np.asarray(axes[0], np.int64))
        out = np.empty((len(wanted), *shape_of(axes[1:])), sources[0].dtype.newbyteorder("="))
        for source, of_it, rows in _by_source(sources, wanted):
            view = whole_region(source.shape)
            out[of_it] = read_events(source, rows, 1, (0, *axes[1:]), view)
        return out[0] if isinstance(axes[0], int) else out

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        shapes = set()
        for seq_id, number in set(_eiger_rows(datums)):
            sources = self._sources(seq_id)
            frame = sources[0].shape[1:]
            shapes.add(frame if number is not None else (_frame_count(sources), *frame))
        return shapes.pop() if len(shapes) == 1 else None

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        rows = _eiger_rows(datums)
        return dtype_as_read(self._sources(rows[0][0])[0].dtype) if rows else None

    def frames_of(self, datums: Datums) -> CellFrames:
        parts: list[tuple[np.ndarray, CellFrames]] = []
        for position, (seq_id, number) in enumerate(_eiger_rows(datums)):
            stored, numbers, rows = _located(self._sources(seq_id), number)
            width = len(rows) if number is None else 1
            found = cell_frames(stored, numbers, rows, width, has_axis=number is None)
            parts.append((np.array([position]), found))
        return CellFrames.joined(datums.count, parts)

    def _sources(self, seq_id: int) -> list[Rows]:
        path = f"{self._stem}_{seq_id}_master.h5"
        known, state = self._series.get(seq_id), identity(self.readable.check(path))
        # The master file was replaced, or is new.
        if known is None or known.state != state:
            known = self._series[seq_id] = _Series(path, state)
        return known.sources(self.readable)


def _eiger_rows(datums: Datums) -> list[tuple[int, int | None]]:
    columns = dict(datums.columns)
    given = columns.pop("frame_num", None)
    numbers: Sequence[int | None] = [None] * datums.count
    # Some datums have a number, and others mean the whole series.
    if given is not None and any(number is not None for number in given):
        numbers = Datums({"frame_num": given}, datums.count).integers("frame_num").tolist()
    return list(zip(Datums(columns, datums.count).integers("seq_id").tolist(), numbers))


def _located(sources: Sequence[Rows], number: int | None) -> Located:
    """Return where all frames of a series lie, or one if ``number`` is given."""
    count = _frame_count(sources, number)
    wanted = np.arange(count) if number is None else np.array([number])
    stored: list[StoredRows] = []
    numbers, rows = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
    for source, of_it, of_source in _by_source(sources, wanted):
        found, which, inside = source.locate(of_source)
        numbers[of_it], rows[of_it] = which + len(stored), inside
        stored.extend(found)
    return stored, numbers, rows


def _frame_count(sources: Sequence[Rows], number: int | None = None) -> int:
    """Return how many frames a series has; that with the number must be one of them, if given."""
    count = sum(source.shape[0] for source in sources)
    if number is not None and number >= count:
        raise FrameMissing(f"there is no frame {number} among {count}")
    return count


def _by_source(
    sources: Sequence[Rows], frames: np.ndarray
) -> Iterator[tuple[Rows, np.ndarray, np.ndarray]]:
    """Yield the datasets that have some frames of a series, which ones, and their rows there."""
    starts = np.cumsum([0, *(source.shape[0] for source in sources)])
    for source, low, high in zip(sources, starts, starts[1:]):
        of_it = np.flatnonzero((frames >= low) & (frames < high))
        if len(of_it):
            yield source, of_it, frames[of_it] - low


class _Series:
    """A master file and the datasets that it has or links to."""

    def __init__(self, path: str, state: Identity) -> None:
        self.state, self._path = state, path
        self._datasets = OpenDatasets(path, swmr=False)
        self._names: list[str] | None = None

    def sources(self, readable: ReadableRoots) -> list[Rows]:
        if self._names is None:
            self._names = _data_names(open_file(self._path, swmr=False, readable=readable))
        found: list[Rows] = [self._datasets.get(name, readable) for name in self._names]
        if not found or len({(source.shape[1:], source.dtype) for source in found}) > 1:
            raise FillError(f"{self._path!r} has no datasets of frames, or some of several shapes")
        return found


def _data_names(file: h5py.File) -> list[str]:
    """Return the sorted paths of the datasets of frames, without following a link."""
    here: h5g.GroupID = h5o.open(file.id, b"/")
    path = ""
    for part in (b"entry", b"data"):
        if part not in here or here.links.get_info(part).type != h5l.TYPE_HARD:
            break
        below = h5o.open(here, part)
        if not isinstance(below, h5g.GroupID):
            break
        here, path = below, f"{path}/{part.decode()}"
    names = sorted(os.fsdecode(name) for name in here)
    return [f"{path}/{name}" for name in names if name.startswith("data_")]


class SingleHDF5(BlockHandler):
    """Spec ``AD_HDF5_SINGLE``: one file per frame, n of which are a point.

    A datum has the keyword ``point_number``. Its cell has the shape ``(n, *frame)`` and consists of
    the n files with numbers from ``point_number * n`` on.

    Parameters
    ----------
    path
        Path of the folder.
    template
        Template in C's style for folder, file name and number.
    filename
        File name that is put into the template.
    key
        Name of the dataset in each file.
    frame_per_point
        Number n of frames of a point.
    """

    specs = frozenset({"AD_HDF5_SINGLE"})

    def __init__(
        self,
        path: str,
        /,
        template: str,
        filename: str,
        key: str = AD_DATASET,
        frame_per_point: int = 1,
    ) -> None:
        self._folder, self._filename, self._key = os.path.join(path, ""), filename, key
        self._template = check_percent(template)
        self._per_point = frame_count(frame_per_point, "frame_per_point")

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        positions = datums.integers("point_number")
        picked = axes_of(roi[:1], (self._per_point,))[0]
        first = self._first(datums) if roi[1:] else None
        like = None if first is None else first.shape
        if isinstance(picked, int):
            cells = (
                self._frame(int(p) * self._per_point + picked, roi[1:], like) for p in positions
            )
            return gather(cells, len(positions))
        if len(positions) and not len(picked):
            source = self._source(int(positions[0]) * self._per_point)
            inner = shape_of(axes_of(roi[1:], source.shape))
            return np.empty((len(positions), 0, *inner), source.dtype.newbyteorder("="))
        cells = (
            np.stack(
                [self._frame(int(p) * self._per_point + int(n), roi[1:], like) for n in picked]
            )
            for p in positions
        )
        return gather(cells, len(positions))

    def _frame(self, number: int, roi: Roi, like: tuple[int, ...] | None) -> np.ndarray:
        source = self._source(number)
        if like is not None and source.shape != like:
            raise CellsDiffer(self._name(number), source.shape, like)
        return read_cell(source, roi)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        first = self._first(datums)
        return None if first is None else (self._per_point, *first.shape)

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        first = self._first(datums)
        return None if first is None else dtype_as_read(first.dtype)

    def frames_there(self, datums: Datums) -> FramesThere | None:
        positions = datums.integers("point_number")
        if not len(positions) or not self._per_point:
            return None
        last = (int(positions.max()) + 1) * self._per_point - 1
        files = count_files(self._name, last, self.readable)
        return FramesThere(files, "point_number", self._per_point, option="frame_per_point")

    def frames_of(self, datums: Datums) -> CellFrames:
        positions = datums.integers("point_number")
        numbers = (positions[:, None] * self._per_point + np.arange(self._per_point)).ravel()
        stored = []
        for number in numbers.tolist():
            source = self._source(number)
            found, _, _ = OneFrame(source).locate(np.zeros(1, np.int64))
            stored += found
        which = np.arange(len(numbers))
        return cell_frames(stored, which, np.zeros_like(which), self._per_point, has_axis=True)

    def _first(self, datums: Datums) -> Rows | None:
        positions = datums.integers("point_number")
        return self._source(int(positions[0]) * self._per_point) if len(positions) else None

    def _source(self, number: int) -> Rows:
        return OpenDatasets(self._name(number), swmr=False).get(self._key, self.readable)

    def _name(self, number: int) -> str:
        return self._template % (self._folder, self._filename, number)
