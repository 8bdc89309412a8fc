"""Base classes of handlers of file sequences, with one or more files per event."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ...core.errors import FillError, FrameMissing, is_of_process
from ...core.file_identity import identity
from ..regions import Axis, Roi, axes_of, shape_of
from ..shapes import Shape
from .contract import Block, BlockHandler, CellsDiffer, Datums, FramesThere
from .frame_rows import Located, cell_frames
from .gathering import gather
from .layout import EventLayout, frame_count
from .name_templates import check_percent, count_files, numbered_name
from .stored_frames import CellFrames, NoReference, StoredRows


@contextmanager
def naming_file(path: str) -> Iterator[None]:
    """Name a file of a sequence in errors of reading it, whatever library raises them."""
    try:
        yield
    except (FrameMissing, CellsDiffer, FileNotFoundError, MemoryError):
        raise  # they name it, or are told apart by the caller
    except Exception as error:
        if path in str(error) or is_of_process(error):
            raise
        kind = "" if isinstance(error, FillError) else f"{type(error).__name__}: "
        raise FillError(f"file {path!r}: {kind}{error}") from error


def region_of(file: BinaryIO, shape: Shape, roi: Roi, like: Shape | None) -> tuple[Axis, ...]:
    """Return the selection of a region of the array in one open file.

    Parameters
    ----------
    file, shape
        Open file, and the shape of its array.
    roi, like
        See :meth:`FileSequence.load`.

    Raises
    ------
    CellsDiffer
        If the array has another shape than ``like``.
    """
    if like is not None and tuple(shape) != like:
        raise CellsDiffer(file.name, tuple(shape), like)
    return axes_of(roi, shape)


class FileSequence(BlockHandler):
    """Base class that reads sequences of files; subclasses read one file and name it."""

    _looked: tuple[Any, tuple[tuple[int, ...], np.dtype]] | None = None
    """The file that was examined last (path, roots and identity), and its shape and dtype."""
    _file_dimensions = 0
    """Number of dimensions of the array in a file of several frames."""

    @abstractmethod
    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        """Read a region of the array in one open file, in the native byte order.

        Parameters
        ----------
        file, roi
            Open file, and region of its array.
        like
            Shape that the array must have; subclasses pass it to :func:`region_of`.
        """

    @abstractmethod
    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        """Return the shape and dtype of the array in one open file, without reading its values."""

    def stored_in(self, file: BinaryIO, path: str) -> StoredRows:
        """Return where the array in one open file lies.

        Raises
        ------
        NoReference
            If the format does not tell, or the array is not a range of bytes.
        """
        raise NoReference(f"{type(self).__name__} cannot locate arrays in its files")

    @abstractmethod
    def name(self, number: int) -> str:
        """Return the path of the file with a number."""

    def load_number(self, number: int, roi: Roi, like: Shape | None = None) -> np.ndarray:
        """Read a region of the array in the file with a number; see :meth:`load`.

        Raises
        ------
        FillError
            If the file cannot be read; the message names it.
        """
        name = self.name(number)
        with naming_file(name), self.readable.open(name) as file:
            return self.load(file, roi, like)

    def look(self, number: int) -> tuple[tuple[int, ...], np.dtype]:
        """Return the shape and native dtype of the array in the file with a number.

        The answer for the last file is kept until the file changes.
        """
        path = self.name(number)
        known = path, self.readable, identity(path)
        # The same file as before, unchanged: cells of one file are asked for one after the other.
        if self._looked is not None and self._looked[0] == known and known[2] is not None:
            return self._looked[1]
        with naming_file(path), self.readable.open(path) as file:
            shape, dtype = self.look_in(file)
        found = tuple(shape), dtype.newbyteorder("=")
        self._looked = known, found
        return found

    def shape_of_number(self, number: int) -> tuple[int, ...]:
        """Return the shape of the array in the file with a number."""
        return self.look(number)[0]

    def first_file(self, datums: Datums) -> int | None:
        """Return the number of the first file of the first datum; None if there is none."""
        return None

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        number = self.first_file(datums)
        return None if number is None else self.look(number)[1]

    def count_files(self, last: int) -> int:
        """Return the number of files from number 0 on, ``last`` being the expected last number."""
        return count_files(self.name, last, self.readable)

    def read_whole_files(self, numbers: np.ndarray, roi: Roi) -> Block:
        """Read cells that are one file each."""
        like = self.shape_of_number(int(numbers[0])) if roi and len(numbers) else None
        return gather((self.load_number(n, roi, like) for n in numbers.tolist()), len(numbers))

    def read_frames(self, events: np.ndarray, per_event: int, roi: Roi, *, pages: int = 0) -> Block:
        """Read cells of ``per_event`` frames each, along an axis of their own.

        Only the files that the region needs are opened.

        Parameters
        ----------
        events
            Numbers of the events: event i has the frames from i*per_event on.
        per_event
            Number of frames of an event.
        roi
            Region of a cell; its first item selects along the axis of frames.
        pages
            Number of frames of a file, along its first axis; 0 if a file is one frame without
            such an axis.
        """
        picked = axes_of(roi[:1], (per_event,))[0]
        if not len(events):
            return []
        if not isinstance(picked, int) and not len(picked):
            return self._no_frames(events, per_event, roi[1:], pages)
        # A part of a file is only that of its frames if it has the axis of frames.
        parts = pages > 1 and not np.array_equal(picked, range(per_event))
        like = self._frame(events, per_event, pages) if roi[1:] or parts else None
        if isinstance(picked, int):
            cells = (
                next(self._frames(p, per_event, [picked], roi[1:], pages, like))[0] for p in events
            )
            return gather(cells, len(events))
        cells = (_joined(self._frames(p, per_event, picked, roi[1:], pages, like)) for p in events)
        return gather(cells, len(events))

    # -- where they lie ----------------------------------------------------------------------

    def stored_files(self, numbers: np.ndarray) -> Located:
        """Return where the arrays lie in the files with some numbers; each file is opened once."""
        known, which = np.unique(numbers, return_inverse=True)
        stored = []
        for number in known.tolist():
            path = self.readable.check(self.name(number))
            with self.readable.open(path) as file:
                stored.append(self.stored_in(file, path))
        return stored, which, np.zeros(len(numbers), np.int64)

    def whole_files(self, numbers: np.ndarray, per_event: int | None = None) -> CellFrames:
        """Locate cells of ``per_event`` files each, along an axis; None: one file, without it."""
        stored, which, rows = self.stored_files(numbers)
        frames = [one.as_one_row() for one in stored]
        return cell_frames(frames, which, rows, per_event or 1, has_axis=per_event is not None)

    def locate_frames(self, events: np.ndarray, per_event: int, pages: int = 0) -> CellFrames:
        """Return where the cells lie that :meth:`read_frames` reads."""
        frames = (events[:, None] * per_event + np.arange(per_event)).ravel()
        if not pages:
            return self.whole_files(frames, per_event)
        stored, which, _ = self.stored_files(frames // pages)
        if any(one.shape[0] != pages for one in stored):
            raise NoReference(f"files do not have {pages} frames each")
        return cell_frames(stored, which, frames % pages, per_event, has_axis=True)

    def _frames(
        self,
        event: int,
        per_event: int,
        picked: Sequence[int] | np.ndarray,
        roi: Roi,
        pages: int,
        like: Shape | None,
    ) -> Iterator[np.ndarray]:
        """Yield the picked frames of an event; consecutive ones of one file come together.

        All must have the shape ``like``, if it is given.
        """
        first = int(event) * per_event
        if not pages:  # one by one, as documents may claim more frames than fit into an array
            yield from (self.load_number(first + int(n), roi, like)[None] for n in picked)
            return
        # The last file must exist before memory is taken for the claimed number of frames.
        with self.readable.open(self.name((first + int(picked[-1])) // pages)):
            frames = first + np.asarray(picked, dtype=np.int64)
        files = frames // pages
        for part in np.split(frames, np.flatnonzero(files[1:] != files[:-1]) + 1):
            number, inside = int(part[0]) // pages, part % pages
            whole = np.array_equal(inside, np.arange(pages))
            shape = None if like is None else (pages, *like)
            block = self.load_number(number, (slice(None) if whole else inside, *roi), shape)
            there = self._frames_in(block.shape, pages) if like is None else len(block)
            if there != len(inside):
                kind = FrameMissing if there < len(inside) else FillError
                raise kind(
                    f"{self.name(number)!r} holds {there} frame{'s' if there != 1 else ''}, where "
                    f"each file has {pages}"
                )
            yield block

    def _frames_in(self, shape: Shape, pages: int) -> int:
        """Return the number of frames of a file; one frame alone may be without an axis for it."""
        return 1 if pages > 1 and len(shape) < self._file_dimensions else shape[0]

    def frame_of(self, shape: Shape, pages: int) -> Shape:
        """Return the shape of a frame in a file of this shape with an axis of ``pages`` frames."""
        return shape if pages > 1 and len(shape) < self._file_dimensions else shape[1:]

    def _no_frames(self, events: np.ndarray, per_event: int, roi: Roi, pages: int) -> np.ndarray:
        """Return a region of no frames of some events, with the shape and dtype of their frames."""
        _, dtype = self.look(int(events[0]) * per_event // (pages or 1))
        inner = shape_of(axes_of(roi, self._frame(events, per_event, pages)))
        return np.empty((len(events), 0, *inner), dtype)

    def _frame(self, events: np.ndarray, per_event: int, pages: int) -> Shape:
        """Return the shape of a frame of the first event."""
        shape = self.shape_of_number(int(events[0]) * per_event // (pages or 1))
        return self.frame_of(shape, pages) if pages else shape


def _joined(parts: Iterator[np.ndarray]) -> np.ndarray:
    listed = list(parts)
    if len(listed) == 1:
        return listed[0]
    shapes = list(dict.fromkeys(part.shape[1:] for part in listed))
    if len(shapes) > 1:
        raise FillError(
            f"the frames of one event differ in shape: {' and '.join(map(str, shapes))}"
        )
    return np.concatenate(listed)


class DatumFiles(FileSequence):
    """Files each of which is the cell of one datum, which has the file's number as a keyword."""

    keyword: ClassVar[str]

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        return self.read_whole_files(datums.integers(self.keyword), roi)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        number = self.first_file(datums)
        return None if number is None else self.shape_of_number(number)

    def first_file(self, datums: Datums) -> int | None:
        numbers = datums.integers(self.keyword)
        return int(numbers[0]) if len(numbers) else None

    def frames_there(self, datums: Datums) -> FramesThere | None:
        numbers = datums.integers(self.keyword)
        if not len(numbers):
            return None
        return FramesThere(self.count_files(int(numbers.max())), self.keyword)

    def frames_of(self, datums: Datums) -> CellFrames:
        return self.whole_files(datums.integers(self.keyword))


class PointFiles(FileSequence):
    """A folder of files whose numbers follow from the keyword ``point_number`` of a datum.

    Parameters
    ----------
    path
        Path of the folder.
    template
        Template in C's style for folder, file name and number, such as ``%s%s_%6.6d.tif``.
    filename
        File name that is put into the template.
    frame_per_point
        Number n of frames of a point.
    """

    def __init__(
        self, path: str, /, template: str, filename: str, frame_per_point: int = 1
    ) -> None:
        self._folder, self._filename = os.path.join(path, ""), filename
        self._template = check_percent(template)
        self._per_point = frame_count(frame_per_point, "frame_per_point")

    def name(self, number: int) -> str:
        return self._template % (self._folder, self._filename, number)


class PointSequence(PointFiles):
    """A folder of one file per frame, n of which are a point, as area detectors write them.

    A cell has the shape ``(n, *frame)`` and consists of the n files with numbers from
    ``point_number * n`` on. For the parameters, see :class:`PointFiles`.
    """

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        return self.read_frames(datums.integers("point_number"), self._per_point, roi)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        number = self.first_file(datums)
        return None if number is None else (self._per_point, *self.shape_of_number(number))

    def frames_there(self, datums: Datums) -> FramesThere | None:
        positions = datums.integers("point_number")
        if not len(positions) or not self._per_point:
            return None
        files = self.count_files((int(positions.max()) + 1) * self._per_point - 1)
        return FramesThere(files, "point_number", self._per_point, option="frame_per_point")

    def frames_of(self, datums: Datums) -> CellFrames:
        return self.locate_frames(datums.integers("point_number"), self._per_point)

    def first_file(self, datums: Datums) -> int | None:
        positions = datums.integers("point_number")
        return int(positions[0]) * self._per_point if len(positions) and self._per_point else None


class StreamSequence(FileSequence):
    """Files of a stream resource, named by a template.

    :class:`~.layout.EventLayout` describes how frames make events. With ``concat`` a file holds
    ``chunk_shape[0]`` of an event's frames (one by default), with ``stack`` a file is an event.

    Parameters
    ----------
    folder
        Path of the folder that has the files.
    data_key
        The descriptor's entry of the data key.
    template, filename
        See :func:`~.name_templates.numbered_name`.
    chunk_shape
        Shape of the array in a file; its first item is the number of frames.
    join_method, multiplier, indices
        See :class:`~.layout.EventLayout`.
    **others
        ``join_chunks`` and other parameters of writers, which are ignored.

    Raises
    ------
    FillError
        If an event's frames are not a whole number of files.
    """

    join = "concat"

    def __init__(
        self,
        folder: str,
        /,
        *,
        data_key: Mapping[str, Any],
        template: str = "",
        filename: str = "",
        chunk_shape: Sequence[int] = (),
        join_method: str | None = None,
        multiplier: int | None = None,
        indices: tuple[int, int] = (0, 0),
        **others: Any,
    ) -> None:
        self._folder, self._template, self._filename = folder, template, filename
        layout = EventLayout.of(data_key, join_method or self.join, multiplier)
        self._per_event = layout.frames_per_event(len(chunk_shape))
        self._dimensions = len(layout.shape)
        self._file_dimensions = len(chunk_shape)
        self._pages = int(chunk_shape[0]) if chunk_shape else 1
        if self._per_event is not None and (self._pages < 1 or self._per_event % self._pages):
            raise FillError(
                f"files of {self._pages} frames do not make events of {self._per_event} frames"
            )
        self._indices = indices

    def name(self, number: int) -> str:
        if not self._template:
            raise FillError("the stream_resource's parameters lack 'template', the files' names")
        name = numbered_name(self._template, self._filename, number)
        return f"{self._folder.rstrip('/')}/{name.lstrip('/')}"

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        positions = self._event_numbers(datums)
        if self._per_event is None:
            return self.read_whole_files(positions, roi)
        pages = self._pages if len(positions) and self._has_pages(int(positions[0])) else 0
        return self.read_frames(positions, self._per_event, roi, pages=pages)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        number = self.first_file(datums)
        if number is None:
            return None
        shape = self.shape_of_number(number)
        if self._per_event is None:
            return shape
        position = number // self._files_per_event
        if not self._has_pages(position):
            return (self._per_event, *shape)
        return (self._per_event, *self.frame_of(shape, self._pages))

    def first_file(self, datums: Datums) -> int | None:
        positions = self._event_numbers(datums)
        return int(positions[0]) * self._files_per_event if len(positions) else None

    def frames_there(self, datums: Datums) -> FramesThere | None:
        positions = self._event_numbers(datums)
        if not len(positions):
            return None
        first = int(datums.integers("index")[0]) - int(positions[0])
        files = self.count_files((int(positions.max()) + 1) * self._files_per_event - 1)
        if self._per_event is None:
            return FramesThere(files, "index", 1, first)
        frames = files * self._pages
        return FramesThere(frames, "index", self._per_event, first, "multiplier")

    def frames_of(self, datums: Datums) -> CellFrames:
        positions = self._event_numbers(datums)
        if self._per_event is None:
            return self.whole_files(positions)
        pages = self._pages if len(positions) and self._has_pages(int(positions[0])) else 0
        return self.locate_frames(positions, self._per_event, pages)

    @property
    def _files_per_event(self) -> int:
        return 1 if self._per_event is None else self._per_event // self._pages

    def _event_numbers(self, datums: Datums) -> np.ndarray:
        """Return the numbers of the events, counted from the first one in the folder.

        A resource that continues another one counts its events on from it, but its files may be
        numbered from 0 again. This is assumed if the file of its last event does not exist under
        the continued number.
        """
        first, stop = self._indices
        if first and not self.readable.exists(self.name(stop * self._files_per_event - 1)):
            return datums.integers("index") - first
        return datums.integers("index")

    def _has_pages(self, event: int) -> bool:
        """Return whether a file's array has an axis of frames; with a single frame it may not."""
        if self._pages > 1:
            return True
        shape = self.shape_of_number(event * self._files_per_event)
        return len(shape) == self._dimensions and shape[0] == 1
