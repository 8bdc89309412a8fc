"""Small pictures of a run: its hinted signal, and one frame of a detector.

The setting ``picture-bytes`` is the maximum number of bytes read for them, and
``picture-seconds`` the maximum time that a page waits for them. A picture that would take more is
left out. Only one page reads at a time: while its read is slow (files that do not answer), other
pages have no pictures.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import prod
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from ..core.settings import setting
from ..core.user_warnings import quiet_thread
from .hints import Descriptors, Hints
from .markup import Markup, element, shortened
from .readings import on_grid, read_shown_cell, read_signals

if TYPE_CHECKING:
    from ..header import Header

WIDTH, HEIGHT = 260, 110
"""Size of the picture of a line, in pixels."""
MOST_POINTS = 260
"""Maximum points of a line; of more, the minimum and maximum of each interval are drawn."""
MAX_THUMBNAIL_SIDE = 128
"""Maximum side of the picture of a frame or map, in pixels."""
MOST_ROWS = 500_000
"""Maximum rows of a stream whose signal is drawn.

In a journal, reading a row costs more than the bytes of its numbers.
"""
NUMBER_BYTES = 8
PIXEL_BYTES = 4
"""Assumed bytes of a pixel whose dtype is not declared."""

LONGEST_WAIT = 3600.0
"""Maximum seconds of one wait, because waits of unlimited length are errors for `threading`."""

_reading = threading.Lock()


def thumbnails(
    header: Header, streams: Mapping[str, Descriptors], rows: Mapping[str, int]
) -> Markup:
    """Return the pictures of a run that are within the bounds; empty if there are none.

    Parameters
    ----------
    header
        The run.
    streams, rows
        Descriptors and number of rows of the run, by stream.
    """
    hints = Hints.of(header.start, streams)
    if hints is None or not rows.get(hints.stream):
        return Markup()
    makers: list[Callable[[], Markup]] = []
    columns = 2 + len(hints.across)  # time and seq_num are read as well
    left = setting("picture-bytes") - rows[hints.stream] * NUMBER_BYTES * columns
    if hints.signals and left >= 0 and rows[hints.stream] <= MOST_ROWS:
        makers.append(lambda: _signal(header, hints))
    key = next(iter(hints.images), None)
    if key is not None and _frame_bytes(key, streams[hints.stream]) <= left:
        makers.append(lambda: _frame(header, hints.stream, key, left))
    found = _within(setting("picture-seconds"), makers)
    return element("div", *found, class_="pictures") if found else Markup()


def _within(seconds: float, makers: Sequence[Callable[[], Markup]]) -> list[Markup]:
    """Return the pictures that are made in time; one that fails is left out of the page."""
    until = monotonic() + seconds
    if not makers or not seconds or not _reading.acquire(timeout=min(seconds, LONGEST_WAIT)):
        return []
    made: SimpleQueue[Markup | None] = SimpleQueue()
    # The thread releases the lock, since a slow read goes on after the page has stopped waiting.
    try:
        threading.Thread(target=_make, args=(makers, made), daemon=True).start()
    except RuntimeError:  # no thread can be started, or the interpreter is ending
        _reading.release()
        return []
    return _taken(made, until)


def _make(makers: Sequence[Callable[[], Markup]], made: SimpleQueue[Markup | None]) -> None:
    try:
        for maker in makers:
            with suppress(Exception), quiet_thread():
                made.put(maker())
    finally:
        _reading.release()
        made.put(None)


def _taken(made: SimpleQueue[Markup | None], until: float) -> list[Markup]:
    found: list[Markup] = []
    with suppress(Empty):
        while (
            one := made.get(timeout=min(max(0.0, until - monotonic()), LONGEST_WAIT))
        ) is not None:
            found.append(one)
    return found


# -- the signal ------------------------------------------------------------------------------


def _signal(header: Header, hints: Hints) -> Markup:
    y = hints.signals[0]
    read = read_signals(header, hints.stream, [*hints.across, y])
    if hints.shape is not None:
        picture = _pixels(on_grid(read.columns[y].astype(float), read.numbers, hints)[::-1])
        across = " × ".join(hints.across)
    else:
        across = hints.across[0]
        picture = _line(read.columns[across].astype(float), read.columns[y].astype(float))
    return _figure(picture, f"{read.labels[y]} over {across}")


def _figure(picture: Markup, caption: str) -> Markup:
    return element("figure", picture, element("figcaption", shortened(caption, 80)))


def _line(x: np.ndarray, y: np.ndarray) -> Markup:
    """Return a line as SVG."""
    there = np.isfinite(x) & np.isfinite(y)
    x, y = _thinned(x[there], y[there])
    points = " ".join(
        f"{across:.1f},{up:.1f}"
        for across, up in zip(_scaled(x, WIDTH).tolist(), (HEIGHT - _scaled(y, HEIGHT)).tolist())
    )
    shape = (
        element("polyline", points=points, fill="none", stroke="currentColor", stroke_width="1.3")
        if len(x) > 1
        else element("circle", cx=WIDTH / 2, cy=HEIGHT / 2, r=3, fill="currentColor")
    )
    return element(
        "svg",
        shape,
        viewBox=f"-2 -2 {WIDTH + 4} {HEIGHT + 4}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
        style="border:1px solid rgba(128,128,128,.4)",
    )


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a line to about `MOST_POINTS` points, keeping the extremes of each interval."""
    if len(x) <= MOST_POINTS:
        return x, y
    edges = np.linspace(0, len(x), MOST_POINTS // 2 + 1).astype(int)
    kept = [
        first + position
        for first, last in pairwise(edges.tolist())
        for position in sorted({int(y[first:last].argmin()), int(y[first:last].argmax())})
    ]
    return x[kept], y[kept]


def _scaled(values: np.ndarray, length: int) -> np.ndarray:
    if not len(values):
        return values
    least, most = float(values.min()), float(values.max())
    if most == least:
        return np.full(len(values), length / 2)
    # Halved first, because the difference of two large floats may overflow.
    return (values / 2 - least / 2) / (most / 2 - least / 2) * length


# -- frames ----------------------------------------------------------------------------------


def _frame_bytes(key: str, descriptors: Descriptors) -> float:
    """Return the bytes of one image of a key from its descriptor; infinite if not declared."""
    claim = next(d["data_keys"][key] for d in descriptors if key in d["data_keys"])
    sides = list(claim["shape"])[-2:]
    if not all(type(side) is int and side > 0 for side in sides):
        return float("inf")
    try:
        size = np.dtype(claim.get("dtype_numpy")).itemsize if claim.get("dtype_numpy") else 0
    except TypeError:
        size = 0
    return prod(sides) * (size or PIXEL_BYTES)


def _frame(header: Header, stream: str, key: str, most_bytes: float) -> Markup:
    image, label = read_shown_cell(header, stream, key, 0, most_bytes)
    if image.ndim == 3:  # coloured
        image = image[..., :3].mean(axis=-1)
    return _figure(_pixels(image.astype(float)), f"{label}, frame 0")


def _pixels(image: np.ndarray) -> Markup:
    """Return an image as a grey PNG, reduced by the maximum of each block to keep peaks."""
    step = max(1, -(-max(image.shape) // MAX_THUMBNAIL_SIDE))
    if step > 1:
        with np.errstate(invalid="ignore"):
            for axis in (0, 1):
                edges = np.arange(0, image.shape[axis], step)
                image = np.fmax.reduceat(image, edges, axis=axis)
    there = image[np.isfinite(image)]
    low, high = np.percentile(there, (1, 99.5)) if there.size else (0.0, 1.0)
    scaled = (image - low) / ((high - low) or 1.0)
    shown = (np.nan_to_num(scaled, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    height, width = shown.shape
    png = imagecodecs.png_encode(np.ascontiguousarray(shown))
    larger = max(1, MAX_THUMBNAIL_SIDE // max(height, width))
    return element(
        "img",
        src=f"data:image/png;base64,{base64.b64encode(png).decode()}",
        width=width * larger,
        height=height * larger,
        class_="pixels",
        alt="",
    )
