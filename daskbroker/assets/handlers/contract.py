"""The interface of handlers: read one region of the cells of many datums in one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from ...core.column_kinds import MISSING
from ...core.errors import FillError
from ...core.name_lists import listed
from ..files.readable import ANYWHERE, ReadableRoots
from ..regions import Roi
from .stored_frames import CellFrames, NoReference

Block: TypeAlias = "np.ndarray | list[Any]"
"""Cells that a handler returns: an array of shape ``(datums, *cell)``, or a list of one cell per
datum if the cells have no common shape."""


@dataclass(frozen=True, eq=False)
class Datums:
    """The keyword arguments of several datums of one resource, stored by columns.

    Attributes
    ----------
    columns
        Maps each keyword to an array or a list with one value per datum; a list holds ``MISSING``
        for a datum that lacks the keyword. Datums of a stream resource have only the column
        ``index``: the event's position in the resource, from ``indices`` of ``stream_datum``.
    count
        Number of datums.
    """

    columns: Mapping[str, np.ndarray | Sequence[Any]]
    count: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Datums:
        """Build from one mapping of keyword arguments per datum."""
        listed = list(rows)
        names = dict.fromkeys(name for row in listed for name in row)
        return cls({n: [row.get(n, MISSING) for row in listed] for n in names}, len(listed))

    @classmethod
    def range(cls, start: int, stop: int) -> Datums:
        """Build for the events ``start`` to ``stop - 1`` of a stream resource."""
        return cls({"index": np.arange(start, stop)}, stop - start)

    @classmethod
    def joined(cls, parts: Sequence[Datums]) -> Datums:
        """Concatenate several that all have the same keywords."""
        columns: dict[str, np.ndarray | Sequence[Any]] = {}
        for name in parts[0].columns:
            values = [part.columns[name] for part in parts]
            if all(isinstance(some, np.ndarray) for some in values):
                columns[name] = np.concatenate(values)
            else:
                columns[name] = [
                    value
                    for some in values
                    for value in (some.tolist() if isinstance(some, np.ndarray) else some)
                ]
        return cls(columns, sum(map(len, parts)))

    def __len__(self) -> int:
        return self.count

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the keyword arguments of one datum after the other, as plain Python values."""
        lists = [c.tolist() if isinstance(c, np.ndarray) else c for c in self.columns.values()]
        if not lists:
            yield from ({} for _ in range(self.count))
        for row in zip(*lists, strict=True):
            yield {k: v for k, v in zip(self.columns, row, strict=True) if v is not MISSING}

    def take(self, positions: np.ndarray | slice) -> Datums:
        """Return the datums at the given positions, in the given order."""
        chosen = np.arange(self.count)[positions]
        columns = {
            name: c[chosen] if isinstance(c, np.ndarray) else [c[i] for i in chosen]
            for name, c in self.columns.items()
        }
        return Datums(columns, len(chosen))

    def integers(self, *names: str) -> np.ndarray:
        """Return the column of the first of these names that is present, as int64.

        Raises
        ------
        FillError
            If none of the names is a column, if there are other columns as well, or if values
            are not whole numbers of at least 0.
        """
        found = next((name for name in names if name in self.columns), None)
        unknown = [name for name in self.columns if name != found]
        if found is None and (self.count or unknown):
            raise FillError(f"datums lack {' or '.join(map(repr, names))}{_also(unknown)}")
        if unknown:
            raise FillError(f"datums have keywords that are unknown to the handler{_also(unknown)}")
        values = np.asarray(self.columns[found] if found is not None else (), dtype=object)
        try:
            whole = values.astype(np.int64)
        except (TypeError, ValueError, OverflowError):
            whole = None
        if whole is None or values.ndim != 1 or (whole != values).any() or (whole < 0).any():
            bad = next(v for v in values.tolist() if not _is_position(v))
            raise FillError(f"{found!r} of a datum must be an integer of 0 or more, not {bad!r}")
        return whole


def _also(unknown: Sequence[str]) -> str:
    return f"; they have {listed(map(repr, unknown))}" if unknown else ""


def _is_position(value: Any) -> bool:
    try:
        return 0 <= int(value) == value < 2**63
    except (TypeError, ValueError, OverflowError):
        return False


class FramesThere(NamedTuple):
    """The number of frames in the file or files of a resource, and how events share them.

    Attributes
    ----------
    frames
        Number of frames in the file, or in all files of a sequence.
    name
        Keyword of a datum that counts events.
    per_event
        Number of frames of an event: event ``n`` has those from ``(n - first) * per_event`` on.
    first
        The event that has the first frame.
    option
        Keyword argument of the handler that sets ``per_event``, "" if there is none.
    """

    frames: int
    name: str
    per_event: int = 1
    first: int = 0
    option: str = ""

    def up_to(self, event: int) -> int:
        """Return the number of frames up to and including those of the event at ``event``."""
        return (event + 1 - self.first) * self.per_event


class CellsDiffer(FillError):
    """Raised by :meth:`BlockHandler.read` if a region of cells of differing shapes is requested.

    A region of one shape says nothing about cells of another. The caller reads whole cells instead.

    Parameters
    ----------
    name
        Path of a file whose array has another shape.
    shape, expected
        Its shape, and that of the first file.
    """

    def __init__(self, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        super().__init__(
            f"{name!r} holds an array of {shape}, where other files of these cells hold {expected}"
        )
        self._given = name, shape, expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


class BlockHandler(ABC):
    """Base class of handlers, which read the cells of many datums of one resource in one call.

    A handler is built in the process that reads, as ``Handler(path, **resource_kwargs)``. For a
    stream resource it is built as ``Handler(path, data_key=..., **parameters)``: ``data_key`` is
    the descriptor's entry of the data key, and the parameters include ``indices=(first, stop)`` if
    the resource's ``stream_datum`` documents begin above 0.

    Building a handler must not open files. The process's cache keeps handlers open, and several
    threads may call one at once; it closes its files when the last reference to it goes.

    Attributes
    ----------
    specs
        Specs or mimetypes that the handler reads.
    readable
        Limits which files may be opened; set before the first read. Open files by
        :meth:`ReadableRoots.open`, or pass every path to :meth:`ReadableRoots.check` before
        opening it.
    """

    specs: ClassVar[frozenset[str]] = frozenset()
    readable: ReadableRoots = ANYWHERE

    @abstractmethod
    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        """Read one region of the cells of some datums.

        Parameters
        ----------
        datums
            Datums to read: any number, in any order, with or without repetitions.
        roi
            Region to read of each cell; the whole cell by default.

        Returns
        -------
        numpy.ndarray or list
            Array of shape ``(len(datums), *cell[roi].shape)`` in the dtype of the cells, also if
            the region is empty; or a list of one object per datum if the cells have no common
            shape, or if there are no datums and without one no file is known.

        Raises
        ------
        CellsDiffer
            If only a region is requested, and the cells differ in shape. A handler may raise it in
            place of checking all files in :meth:`cell_shape`.
        FillError
            If something cannot be read. The caller turns other exceptions into this one.
        """

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        """Return the shape of the whole cells of these datums, without reading their values.

        It may differ from the shape in the descriptor; `roi` indexes the dimensions of this one.
        None if it is only known by reading, or if the cells have no common shape.
        """
        return None

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        """Return the dtype of the cells, without reading values; None as for :meth:`cell_shape`."""
        return None

    def frames_there(self, datums: Datums) -> FramesThere | None:
        """Return the number of frames in the file of these datums, for all events together.

        It opens no files but those that :meth:`cell_shape` opens. None if the position of an event
        does not tell which frames of a file, or of numbered files, belong to it; frames that
        belong to no event then go unreported.
        """
        return None

    def frames_of(self, datums: Datums) -> CellFrames:
        """Return which bytes of which files hold the cells of these datums, to make references.

        Raises
        ------
        NoReference
            If the cells are not ranges of bytes of files, or if these cannot be told.
        """
        raise NoReference(f"{type(self).__name__} cannot locate frames in its files")

    def refresh(self) -> bool:
        """Adapt to a file that changed in place; return False if a new handler must be made."""
        return False
