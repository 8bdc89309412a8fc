"""What a plot needs of a run: numbers over numbers, a map, one frame; read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.clock import seconds_of
from ..core.errors import BadQuery, FieldNotFound
from ..core.fields import shown_names
from ..core.listing import listed
from .hints import TIME, Hints

if TYPE_CHECKING:
    import xarray as xr

    from ..header import Header

__all__ = ["Readings", "on_grid", "read_cell", "read_signals"]

ELAPSED = "time since start"


@dataclass(frozen=True)
class Readings:
    """Columns of a stream: an event is a row, a rewound one is there once.

    Attributes
    ----------
    numbers
        ``seq_num`` of the rows.
    columns
        By data key, what was read; ``time`` is seconds since the start of the run.
    labels
        By data key, its name with its units.
    """

    numbers: np.ndarray
    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, str]


def read_signals(header: Header, stream: str, keys: Sequence[str]) -> Readings:
    """Some columns of numbers of a stream.

    Raises
    ------
    BadQuery
        If a column does not hold one number an event.
    """
    wanted = [key for key in dict.fromkeys(keys) if key != TIME]
    names = _names(header, stream, wanted)
    fields = [f"data:{key}" for key in wanted]
    dataset = header.dataset(stream, fields, fill=False, chunks=None)
    elapsed = _elapsed(dataset, seconds_of(header.start))
    columns = {TIME: elapsed} | {
        key: _numbers(header, stream, key, dataset[names[key]]) for key in wanted
    }
    labels = {TIME: f"{ELAPSED} (s)"} | {key: _label(key, dataset[names[key]]) for key in wanted}
    return Readings(np.asarray(dataset["seq_num"].values), columns, labels)


def _names(header: Header, stream: str, keys: Sequence[str]) -> dict[str, str]:
    """The variable of each data key."""
    names = shown_names(sorted(header.fields(stream)))
    for key in keys:
        if key not in names:
            raise FieldNotFound(
                f"run {header.uid!r}, stream {stream!r}: there is no data key {key!r}; there are: "
                f"{listed(names, key)}"
            )
    return names


def _elapsed(dataset: xr.Dataset, began: float) -> np.ndarray:
    times = dataset["time"].values.astype("datetime64[us]")
    seconds = times.astype("int64") / 1e6
    seconds[np.isnat(times)] = np.nan
    return seconds - began if np.isfinite(began) else seconds


def _numbers(header: Header, stream: str, key: str, variable: xr.DataArray) -> np.ndarray:
    values = np.asarray(variable.values)
    if values.ndim == 1 and values.dtype.kind in "fiub":
        return values
    if values.ndim == 1 and values.dtype == object:
        try:
            return values.astype(float)
        except (TypeError, ValueError):
            pass
    raise BadQuery(
        f"run {header.uid!r}, stream {stream!r}: {key!r} does not hold one number an event, but "
        f"cells of {values.dtype} and shape {values.shape[1:]}; y= names another data key, frame= "
        "shows one cell"
    )


def _label(key: str, variable: xr.DataArray) -> str:
    units = variable.attrs.get("units")
    return f"{key} ({units})" if isinstance(units, str) and units else key


def on_grid(values: np.ndarray, numbers: np.ndarray, hints: Hints) -> np.ndarray:
    """Values at their places in a regular grid; points that were not taken are NaN."""
    assert hints.shape is not None
    slow, fast = hints.shape
    grid = np.full(hints.shape, np.nan)
    places = numbers.astype("int64") - 1
    there = (places >= 0) & (places < slow * fast)
    rows, columns = np.divmod(places[there], fast)
    if hints.snakes:
        columns = np.where(rows % 2 == 1, fast - 1 - columns, columns)
    grid[rows, columns] = values[there]
    return grid


def read_cell(
    header: Header,
    stream: str,
    key: str,
    frame: int | tuple[int, ...],
    most_bytes: float = float("inf"),
) -> tuple[np.ndarray, str]:
    """One cell of a data key, or one image of it, and its label; no other is read.

    Parameters
    ----------
    header, stream, key
        What is read.
    frame
        Number of the event; negative from the last. Further numbers choose among the images
        of a cell that has several: the first by default.
    most_bytes
        Of what is read.

    Raises
    ------
    BadQuery
        If there is no such event, or it is larger than that.
    """
    names = _names(header, stream, [key])
    dataset = header.dataset(stream, [f"data:{key}"], chunks=None)
    variable = dataset[names[key]]
    chosen = frame if isinstance(frame, tuple) else (frame,)
    leading = max(1, variable.ndim - (3 if _is_coloured(variable.shape) else 2))
    chosen = (*chosen, *[0] * (leading - len(chosen)))
    for place, length in zip(chosen, variable.shape):
        if not -length <= place < length:
            raise BadQuery(
                f"run {header.uid!r}, stream {stream!r}: frame {frame} of {key!r} is asked for; "
                f"there are {length}, from 0 to {length - 1}"
            )
    cell = variable[chosen]
    if cell.nbytes > most_bytes:
        raise BadQuery(f"frame {frame} of {key!r} has {cell.nbytes:,} bytes")
    values = np.asarray(cell.values)
    if values.dtype == object and values.ndim == 0:  # of cells that differ in shape
        values = np.asarray(values.item())
    if values.dtype.kind not in "fiub":
        raise BadQuery(
            f"run {header.uid!r}, stream {stream!r}: frame {frame} of {key!r} holds no numbers"
        )
    return values, _label(key, variable)


def _is_coloured(shape: Sequence[int]) -> bool:
    """Whether cells are images whose last dimension is red, green, blue and perhaps opacity."""
    return len(shape) >= 4 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4
