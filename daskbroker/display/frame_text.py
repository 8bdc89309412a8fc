"""DataFrames of runs, made by :func:`~daskbroker.display.runs_frame.runs_frame`, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..core.clock import show_time
from ..core.documents import plain
from ..core.json_text import to_json
from .facts import show_duration
from .listing import LONGEST_CELL, short_uids
from .text_columns import NARROWEST, TextColumn, cut_to, lines


def frame_lines(frame: pd.DataFrame, width: int) -> list[str]:
    """Return a heading and a line for each run that fit a width; no column is left out."""
    return lines([_column(name, frame[name]) for name in frame], width)


def plain_rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield each run as plain values: times as ISO text, durations in seconds, missing as None."""
    names = list(frame)
    for values in zip(*(frame[name] for name in names)):
        yield {name: _plain(value) for name, value in zip(names, values)}


def _column(name: str, values: pd.Series) -> TextColumn:
    cells = short_uids(list(map(str, values))) if name == "uid" else list(map(_text, values))
    return TextColumn(name, cells, right=values.dtype.kind in "iufm", least=NARROWEST)


def _text(value: object) -> str:
    if isinstance(value, pd.Timedelta):
        return show_duration(value.total_seconds())
    if isinstance(value, pd.Timestamp):
        return show_time(value.timestamp(), value.tz or "UTC")
    found = _plain(value)
    if found is None:
        return ""
    return cut_to(to_json(found) if isinstance(found, (dict, list)) else str(found), LONGEST_CELL)


def _plain(value: object) -> Any:
    if value is pd.NaT or value is pd.NA or value is None:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, pd.Timedelta):
        return value.total_seconds()
    found = value.item() if isinstance(value, np.generic) else plain(value)
    return None if found != found else found  # NaN, where some runs have no such number
