"""Base of handlers of stream resources of one file whose rows are the frames of all events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...core.errors import FillError, FrameMissing
from ..regions import Axis, Roi, axes_of, shape_of
from .contract import Block, BlockHandler, Datums, FramesThere
from .frame_rows import Rows, locate_events, read_events, rows_of
from .layout import EventLayout, parse_slice
from .stored_frames import CellFrames


class StreamRows(BlockHandler):
    """Base class that reads events as rows of one dataset; subclasses open the dataset.

    :class:`~.layout.EventLayout` describes how frames make events.

    Parameters
    ----------
    data_key
        The descriptor's entry of the data key.
    slice
        Part of the dataset that the resource refers to, as a text such as ``":, 5, :"``.
    squeeze
        If True, drop dimensions of length 1, except that of rows.
    join_method, multiplier, indices
        See :class:`~.layout.EventLayout`.
    **others
        ``chunk_shape``, ``join_chunks`` and other parameters of writers. They are ignored, as the
        file itself has this information.
    """

    def __init__(
        self,
        *,
        data_key: Mapping[str, Any],
        slice: str | Sequence[str] = "",
        squeeze: bool = False,
        join_method: str = "concat",
        multiplier: int | None = None,
        indices: tuple[int, int] = (0, 0),
        **others: Any,
    ) -> None:
        self._layout = EventLayout.of(data_key, join_method, multiplier)
        self._slice, self._squeeze, self._indices = parse_slice(slice), bool(squeeze), indices

    @abstractmethod
    def source(self) -> Rows:
        """Return the dataset, with the rows that exist now."""

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source, view, per_event = self._view()
        frame = shape_of(view[1:])
        positions = datums.integers("index") - self._first(view, per_event)
        if per_event is None:
            axes = (0, *axes_of(roi, frame))
            return read_events(source, positions, 1, axes, view)
        axes = axes_of(roi, (per_event, *frame))
        try:
            return read_events(source, positions, per_event, axes, view)
        except FrameMissing as error:
            raise FrameMissing(f"{error}{self._advice(per_event)}") from None

    def _advice(self, per_event: int) -> str:
        """Say what to pass if the number of frames of an event is declared wrong."""
        if per_event == 1:
            return ""
        handler = f"{type(self).__module__}.{type(self).__qualname__}"
        return (
            f". {per_event} frames for each event are declared (the shape {self._layout.shape}); "
            "if the file is complete and each event has another number n of frames, "
            f"handler_overrides={{key: functools.partial({handler}, multiplier=n)}} with peek=True "
            "reads them"
        )

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        _, view, per_event = self._view()
        frame = shape_of(view[1:])
        return frame if per_event is None else (per_event, *frame)

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return self._view()[0].dtype.newbyteorder("=")

    def frames_there(self, datums: Datums) -> FramesThere | None:
        _, view, per_event = self._view()
        first = self._first(view, per_event)
        return FramesThere(len(rows_of(view)), "index", per_event or 1, first, "multiplier")

    def frames_of(self, datums: Datums) -> CellFrames:
        source, view, per_event = self._view()
        positions = datums.integers("index") - self._first(view, per_event)
        return locate_events(source, positions, per_event, view)

    def _first(self, view: Sequence[Axis], per_event: int | None) -> int:
        """Return the index of the event that has the first row of the view."""
        return self._layout.first_index(self._indices, len(rows_of(view)), per_event)

    def _view(self) -> tuple[Rows, tuple[Axis, ...], int | None]:
        """Return the dataset, the selection by ``slice`` and ``squeeze``, and frames per event.

        The selection has an item for each dimension. The number of frames is None if events have
        one frame, without an axis of its own.

        Raises
        ------
        FillError
            If ``slice`` drops the first dimension.
        """
        source = self.source()
        view = axes_of(self._slice, source.shape)
        if isinstance(view[0], int):
            raise FillError("the parameter 'slice' drops the first dimension, that of frames")
        if self._squeeze:
            view = (view[0], *(_squeezed(axis) for axis in view[1:]))
        return source, view, self._layout.frames_per_event(1 + len(shape_of(view[1:])))


def _squeezed(axis: Axis) -> Axis:
    return axis if isinstance(axis, int) or len(axis) != 1 else int(axis[0])
