"""The frames of databroker 1: a sequence with one array per event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


class Images(Sequence[Any]):
    """A sequence with one NumPy array per event, read when it is indexed.

    The index is the position of the event in the runs, not its ``seq_num``.

    Parameters
    ----------
    arrays
        One lazy array per run, whose first dimension is the events.
    """

    def __init__(self, arrays: Sequence[xr.DataArray]) -> None:
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(array) for array in self._arrays])

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the array of one event."""
        return tuple(self._arrays[0].shape[1:])

    @property
    def pixel_type(self) -> np.dtype[Any]:
        """Dtype of the frames."""
        return self._arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of events, followed by the shape of one."""
        return (len(self), *self.frame_shape)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._arrays else 0

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        position = range(len(self))[index]
        number = int(np.searchsorted(self._ends, position, side="right"))
        array = self._arrays[number]
        return np.asarray(array[position - self._ends[number] + len(array)])

    def __iter__(self) -> Iterator[Any]:
        return (self[position] for position in range(len(self)))
