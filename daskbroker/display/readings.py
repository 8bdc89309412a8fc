"""Read the data that a plot of a run needs: columns of numbers, a map, one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.clock import seconds_of
from ..core.errors import BadQuery, FieldNotFound
from ..core.fields import shown_names
from ..core.name_lists import listed
from .hints import TIME_COLUMN, Hints

if TYPE_CHECKING:
    import xarray as xr

    from ..header import Header

ELAPSED = "time since start"


@dataclass(frozen=True)
class Readings:
    """Columns of a stream, with one row per event; an event taken again has only its last row.

    Attributes
    ----------
    numbers
        ``seq_num`` of the rows.
    columns
        Values by data key, one number per row; ``time`` is in seconds since the start of the run.
    labels
        Labels by data key: its name with its units.
    """

    numbers: np.ndarray
    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, str]


def read_signals(header: Header, stream: str, keys: Sequence[str]) -> Readings:
    """Read some columns of numbers of a stream.

    Raises
    ------
    FieldNotFound
        If the stream has no such data key.
    BadQuery
        If a column does not hold one number per event.
    """
    wanted = [key for key in dict.fromkeys(keys) if key != TIME_COLUMN]
    names = _names(header, stream, wanted)
    fields = [f"data:{key}" for key in wanted]
    dataset = header.dataset(stream, fields, fill=False, chunks=None)
    elapsed = _elapsed(dataset, seconds_of(header.start))
    columns = {TIME_COLUMN: elapsed} | {
        key: _numbers(header, stream, key, dataset[names[key]]) for key in wanted
    }
    labels = {TIME_COLUMN: f"{ELAPSED} (s)"} | {
        key: _label(key, dataset[names[key]]) for key in wanted
    }
    return Readings(np.asarray(dataset["seq_num"].values), columns, labels)


def _names(header: Header, stream: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the name of the variable of each data key."""
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
        f"run {header.uid!r}, stream {stream!r}: {key!r} does not hold one number per event, but "
        f"cells of {values.dtype} and shape {values.shape[1:]}; y= names another data key, frame= "
        "shows one cell"
    )


def _label(key: str, variable: xr.DataArray) -> str:
    units = variable.attrs.get("units", variable.attrs.get("unit"))
    return f"{key} ({units})" if isinstance(units, str) and units else key


def on_grid(values: np.ndarray, numbers: np.ndarray, hints: Hints) -> np.ndarray:
    """Return values as an array of shape ``hints.shape``; points that were not taken are NaN."""
    assert hints.shape is not None
    slow, fast = hints.shape
    grid = np.full(hints.shape, np.nan)
    positions = numbers.astype("int64") - 1
    there = (positions >= 0) & (positions < slow * fast)
    rows, columns = np.divmod(positions[there], fast)
    if hints.snakes:
        columns = np.where(rows % 2 == 1, fast - 1 - columns, columns)
    grid[rows, columns] = values[there]
    return grid


def read_shown_cell(
    header: Header,
    stream: str,
    key: str,
    frame: int | tuple[int, ...],
    most_bytes: float = float("inf"),
) -> tuple[np.ndarray, str]:
    """Read one cell of a data key, or one image of it, and its label; no other cell is read.

    Parameters
    ----------
    header, stream, key
        Run, name of the stream, and data key.
    frame
        Number of the event; negative numbers count from the last. Further numbers choose among
        the images of a cell that has several; the default is the first.
    most_bytes
        Maximum bytes to read.

    Raises
    ------
    FieldNotFound
        If the stream has no such data key.
    BadQuery
        If there is no such event, its cell is larger than ``most_bytes``, or it holds no numbers.
    """
    names = _names(header, stream, [key])
    dataset = header.dataset(stream, [f"data:{key}"], chunks=None)
    variable = dataset[names[key]]
    chosen = frame if isinstance(frame, tuple) else (frame,)
    leading = max(1, variable.ndim - (3 if _is_coloured(variable.shape) else 2))
    if len(chosen) > leading:
        raise BadQuery(
            f"run {header.uid!r}, stream {stream!r}: frame {frame} of {key!r} has {len(chosen)} "
            f"numbers; {leading} choose one, as the variable has the shape {variable.shape}"
        )
    chosen = (*chosen, *[0] * (leading - len(chosen)))
    for position, length in zip(chosen, variable.shape):
        if not -length <= position < length:
            raise BadQuery(
                f"run {header.uid!r}, stream {stream!r}: there is no frame {frame} of {key!r}; "
                f"there are {length}, from 0 to {length - 1}"
            )
    cell = variable[chosen]
    if cell.nbytes > most_bytes:
        raise BadQuery(f"frame {frame} of {key!r} has {cell.nbytes:,} bytes")
    values = np.asarray(cell.values)
    if values.dtype == object and values.ndim == 0:  # cells of the key differ in shape
        with suppress(ValueError):  # lists of differing lengths
            values = np.asarray(values.item())
    if values.dtype.kind not in "fiub":
        raise BadQuery(
            f"run {header.uid!r}, stream {stream!r}: frame {frame} of {key!r} holds no numbers"
        )
    return values, _label(key, variable)


def _is_coloured(shape: Sequence[int]) -> bool:
    """Whether cells are images whose last dimension is red, green, blue and perhaps opacity."""
    return len(shape) >= 4 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4
