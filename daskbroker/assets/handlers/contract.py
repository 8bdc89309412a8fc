"""What a handler is: it reads the frames of many datums, and only the asked region, in one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from ...core.codec import MISSING
from ...core.errors import FillError
from ...core.listing import listed
from ..files.readable import ANYWHERE, ReadableRoots
from .stored_frames import CellFrames, NoReference

__all__ = ["Block", "BlockHandler", "Datums", "FramesThere", "Roi"]

Roi: TypeAlias = "tuple[slice | int | np.ndarray, ...]"
"""Index of a cell's own dimensions (those after the row axis), one item a dimension, fewer items
than dimensions for the leading ones; ``()`` is the whole cell. Indexing is outer: each array
(integers, one-dimensional) selects along its own dimension. An int drops its dimension."""

Block: TypeAlias = "np.ndarray | list[Any]"
"""What a handler reads: an array ``(datums, *cell)``, or a list of cells without common shape."""


@dataclass(frozen=True, eq=False)
class Datums:
    """The keyword arguments of some datums of one resource, by columns.

    Attributes
    ----------
    columns
        Name of a keyword -> one value a datum, an array or a list; ``MISSING`` in a list where a
        datum lacks the keyword. Datums of a stream resource have the one column ``index``: the
        event's place in the resource, from ``indices`` of ``stream_datum``.
    count
        Number of datums.
    """

    columns: Mapping[str, np.ndarray | Sequence[Any]]
    count: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Datums:
        """From the keyword arguments one by one."""
        listed = list(rows)
        names = dict.fromkeys(name for row in listed for name in row)
        return cls({n: [row.get(n, MISSING) for row in listed] for n in names}, len(listed))

    @classmethod
    def range(cls, start: int, stop: int) -> Datums:
        """Those of consecutive events of a stream resource."""
        return cls({"index": np.arange(start, stop)}, stop - start)

    @classmethod
    def joined(cls, parts: Sequence[Datums]) -> Datums:
        """Those of several that have the same keywords, one after the other."""
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
        """The keyword arguments one by one, as plain Python values."""
        lists = [c.tolist() if isinstance(c, np.ndarray) else c for c in self.columns.values()]
        if not lists:
            yield from ({} for _ in range(self.count))
        for row in zip(*lists, strict=True):
            yield {k: v for k, v in zip(self.columns, row, strict=True) if v is not MISSING}

    def take(self, places: np.ndarray | slice) -> Datums:
        """Those at some places, in the given order."""
        chosen = np.arange(self.count)[places]
        columns = {
            name: c[chosen] if isinstance(c, np.ndarray) else [c[i] for i in chosen]
            for name, c in self.columns.items()
        }
        return Datums(columns, len(chosen))

    def integers(self, *names: str) -> np.ndarray:
        """The column of the first of these names that there is, as int64.

        Raises
        ------
        FillError
            If there is none, other columns are there too, or values are no whole numbers of
            0 or more.
        """
        found = next((name for name in names if name in self.columns), None)
        unknown = [name for name in self.columns if name != found]
        if found is None and (self.count or unknown):
            raise FillError(f"datums lack {' or '.join(map(repr, names))}{_also(unknown)}")
        if unknown:
            raise FillError(f"datums have keywords that the handler does not know{_also(unknown)}")
        values = np.asarray(self.columns[found] if found is not None else (), dtype=object)
        try:
            whole = values.astype(np.int64)
        except (TypeError, ValueError, OverflowError):
            whole = None
        if whole is None or values.ndim != 1 or (whole != values).any() or (whole < 0).any():
            bad = next(v for v in values.tolist() if not _is_place(v))
            raise FillError(f"{found!r} of a datum must be a whole number from 0, not {bad!r}")
        return whole


def _also(unknown: Sequence[str]) -> str:
    return f"; they have {listed(map(repr, unknown))}" if unknown else ""


def _is_place(value: Any) -> bool:
    try:
        return 0 <= int(value) == value < 2**63
    except (TypeError, ValueError, OverflowError):
        return False


class FramesThere(NamedTuple):
    """How many frames there are for the events of a resource, whoever takes them.

    Attributes
    ----------
    frames
        That the file has, or the files have.
    name
        The keyword of a datum that counts events.
    per_event
        The event ``n`` has ``per_event`` frames from ``(n - first) * per_event`` on.
    first
        See above.
    option
        Keyword of the handler for ``per_event``, "" if there is none.
    """

    frames: int
    name: str
    per_event: int = 1
    first: int = 0
    option: str = ""

    def up_to(self, place: int) -> int:
        """Number of frames up to those of an event, these included."""
        return (place + 1 - self.first) * self.per_event


class BlockHandler(ABC):
    """Reads the cells of many datums of one resource in one call.

    It is built in the process that reads, as ``Handler(path, **resource_kwargs)``. For a stream
    resource that is ``Handler(path, data_key=..., **parameters)``, with the descriptor's entry of
    the data key, and ``indices=(first, stop)`` among the parameters where the resource's
    ``stream_datum`` documents begin above 0.

    Building opens no file. A handler is kept open by the process's cache and may be read by
    several threads at once; it closes its files when the last reference to it goes.

    Attributes
    ----------
    specs
        The specs or mimetypes it is for.
    readable
        Set before the first read; open files by :meth:`ReadableRoots.open`, or
        :meth:`ReadableRoots.check` every path before opening it.
    """

    specs: ClassVar[frozenset[str]] = frozenset()
    readable: ReadableRoots = ANYWHERE

    @abstractmethod
    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        """Read one region of the cells of some datums.

        Parameters
        ----------
        datums
            Any number, in any order, repeated or not.
        roi
            What to read of each cell.

        Returns
        -------
        numpy.ndarray or list
            Shape ``(len(datums), *cell[roi].shape)``; a list of one object a datum where the cells
            have no common shape.

        Raises
        ------
        FillError
            For what cannot be read; other exceptions are turned into it by who calls.
        """

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        """Shape of the whole cells of these datums, without reading their values.

        It may differ from what the descriptor claims: `roi` counts its dimensions. None where
        only reading tells, or where the cells have no common shape.
        """
        return None

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        """Dtype of the cells of these datums, without reading their values; None: see above."""
        return None

    def frames_there(self, datums: Datums) -> FramesThere | None:
        """How many frames there are, in the file of these datums, for all events together.

        It opens nothing that :meth:`cell_shape` does not. None where events do not share the
        frames of a file, or of numbered files, by their place; then nobody is told of frames
        that are in no event.
        """
        return None

    def frames_of(self, datums: Datums) -> CellFrames:
        """Which bytes of which files the cells of these datums are, for references to them.

        Raises
        ------
        NoReference
            If they are none, or it cannot be told.
        """
        raise NoReference(f"{type(self).__name__} does not tell where frames lie in its files")

    def refresh(self) -> bool:
        """Take notice that the file changed in place; False: build a new handler instead."""
        return False
