"""Plots of runs, as described by their hints; matplotlib is imported on the first plot."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import advice
from ..core.absent_streams import no_stream
from ..core.arguments import Accepted, is_whole
from ..core.clock import show_time
from ..core.errors import BadQuery, ConfigError, FieldNotFound, StreamNotFound
from ..core.name_lists import listed
from ..core.printable import printable
from .facts import sample_of
from .hints import Hints
from .markup import shortened
from .readings import Readings, on_grid, read_shown_cell, read_signals

if TYPE_CHECKING:
    from ..header import Header

Y = str | Sequence[str] | None
Frame = int | tuple[int, ...] | None

FRAME = Accepted(
    "a whole number, the position of an event, or a tuple of them, such as (event, image); or None",
    lambda v: (
        v is None or is_whole(v) or (isinstance(v, tuple) and v != () and all(map(is_whole, v)))
    ),
)

MOST_RUNS = 50
"""Maximum number of runs in the same axes."""
MOST_SIGNALS = 16
"""Maximum number of signals that are drawn if none are named."""
MAX_LABEL_LENGTH = 60
"""Maximum length of a label."""
TEXT_OPTIONS = {"parse_math": False, "usetex": False}
"""Text options of matplotlib: text from documents must not be read as a formula or as TeX."""


def plot_run(header: Header, stream: str | None, y: Y, frame: Frame, ax: Any) -> Any:
    """Plot a run; see :meth:`daskbroker.Header.plot`."""
    hints = _hints(header, stream)
    keys = _chosen(header, hints, y, frame)
    axes = _axes(ax, len(keys))
    # Images are drawn one cell at a time; everything else along the scan.
    if frame is not None or set(keys) <= set(hints.images):
        for one, key in zip(axes, keys):
            _draw_cell(one, header, hints.stream, key, 0 if frame is None else frame)
    else:
        read = read_signals(header, hints.stream, [*hints.across, *keys])
        draw = _draw_line if len(hints.across) == 1 else _draw_map
        for one, key in zip(axes, keys):
            draw(one, read, hints, key)
    axes[0].set_title(_title(header), **TEXT_OPTIONS)
    return axes[0] if len(axes) == 1 else axes


def plot_runs(headers: Iterable[Header], stream: str | None, y: Y, ax: Any) -> Any:
    """Plot several runs in the same axes; see :meth:`daskbroker.Results.plot`."""
    chosen = list(islice(headers, MOST_RUNS + 1))
    if len(chosen) > MOST_RUNS:
        raise BadQuery(
            f"at most {MOST_RUNS} runs can be drawn in the same axes; choose some: "
            "results[:10].plot()"
        )
    if not chosen:
        raise BadQuery("there are no runs to draw")
    drawn: dict[str, list[tuple[Header, Hints, Readings]]] = {}
    left_out: list[str] = []
    for header in chosen:
        try:
            hints = _hints(header, stream)
            keys = _chosen(header, hints, y, None)
            read = read_signals(header, hints.stream, [hints.across[0], *keys])
        # One run that cannot be drawn must not hide the others.
        except (StreamNotFound, FieldNotFound, BadQuery) as error:
            left_out.append(str(error))
            continue
        for key in keys:
            drawn.setdefault(key, []).append((header, hints, read))
    if not drawn:
        several = f"none of {len(chosen):,} runs can be drawn; the first: "
        raise BadQuery(f"{several if len(chosen) > 1 else ''}{left_out[0]}")
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {len(chosen)} runs are not drawn; the first: {left_out[0]}",
            stacklevel=3,
        )
    axes = _axes(ax, len(drawn))
    for one, (key, runs) in zip(axes, drawn.items()):
        for header, hints, read in runs:
            _draw_line(one, read, hints, key, label=_label(header))
        for text in one.legend().get_texts():
            text.set(**TEXT_OPTIONS)
    return axes[0] if len(axes) == 1 else axes


def save_plot(
    path: Any,
    headers: Sequence[Header],
    stream: str | None = None,
    y: Y = None,
    frame: Frame = None,
) -> None:
    """Plot a run, or several in the same axes, into a file without opening a window.

    Parameters
    ----------
    path
        Path of the file; its suffix selects the format.
    headers
        Runs to plot.
    stream, y, frame
        As for :meth:`daskbroker.Header.plot`; ``frame`` is allowed for a single run only.

    Raises
    ------
    BadQuery
        If ``frame`` is given for several runs, or the suffix is no format of matplotlib.
    ConfigError
        If matplotlib is not installed.
    """
    # Here, so that a missing package is reported before data are read.
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    if len(headers) == 1:
        plot_run(headers[0], stream, y, frame, figure)
    elif frame is not None:
        raise BadQuery(f"{advice.option('frame')} needs one run, not {len(headers)}")
    else:
        plot_runs(headers, stream, y, figure)
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:  # the suffix is no format of matplotlib
        raise BadQuery(f"{path}: {error}") from None


# -- what is drawn ---------------------------------------------------------------------------


def _hints(header: Header, stream: str | None) -> Hints:
    if stream is not None and stream not in header.streams:
        by = advice.option("y")
        raise no_stream(header.uid, stream, header.streams, header.fields(), by)
    hints = Hints.of(header.start, header.descriptors, stream)
    if hints is None:
        raise StreamNotFound(f"run {header.uid!r} has no stream, so there is nothing to plot")
    return hints


def _chosen(header: Header, hints: Hints, y: Y, frame: Frame) -> list[str]:
    """Return the data keys to draw."""
    known = header.fields(hints.stream)
    if y is not None:
        keys = list(y) if isinstance(y, Iterable) and not isinstance(y, str) else [y]
        for key in keys:
            # Checked here, as the error of a reading would name only the first.
            if key not in known:
                raise FieldNotFound(
                    f"run {header.uid!r}, stream {hints.stream!r}: there is no data key {key!r} to "
                    f"plot; there are: {listed(sorted(known), key)}"
                )
    elif frame is not None:
        keys = list(hints.images[:1])
    else:
        keys = list(hints.signals[:MOST_SIGNALS] or hints.images[:1])
    if not keys:
        what = (
            "hinted data key can be plotted" if frame is None else "data key is declared as image"
        )
        raise BadQuery(
            f"run {header.uid!r}, stream {hints.stream!r}: no {what}; "
            f"choose one with {advice.option('y')}; there are: {listed(sorted(known))}"
        )
    return keys


def _draw_line(axes: Any, read: Readings, hints: Hints, key: str, label: str | None = None) -> None:
    across = hints.across[0]
    shown = {} if label is None else {"label": label}
    axes.plot(read.columns[across], read.columns[key], ".-", **shown)
    _name(axes, read.labels[across], read.labels[key])


def _draw_map(axes: Any, read: Readings, hints: Hints, key: str) -> None:
    slow, fast = hints.across
    values = read.columns[key].astype(float)
    # Points of a scan that is no grid have no rows and columns.
    if hints.shape is None:
        drawn = axes.scatter(read.columns[fast], read.columns[slow], c=values)
    else:
        across, up = (_positions(read, hints, axis) for axis in (1, 0))
        grid = np.ma.masked_invalid(on_grid(values, read.numbers, hints))
        drawn = axes.pcolormesh(across, up, grid, shading="nearest")
    _name(axes, read.labels[fast], read.labels[slow])
    axes.figure.colorbar(drawn, ax=axes).set_label(_plain(read.labels[key]), **TEXT_OPTIONS)


def _positions(read: Readings, hints: Hints, axis: int) -> np.ndarray:
    """Return the positions of a grid's rows or columns: as planned, else as the motor was read."""
    assert hints.shape is not None
    length = hints.shape[axis]
    # Planned positions are evenly spaced; read ones scatter.
    if hints.extents is not None:
        return np.linspace(*hints.extents[axis], length)
    motor = on_grid(read.columns[hints.across[axis]].astype(float), read.numbers, hints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rows that were not reached
        found = np.nanmedian(motor, axis=1 - axis)
    return found if np.isfinite(found).all() else np.arange(length)


def _draw_cell(
    axes: Any, header: Header, stream: str, key: str, frame: int | tuple[int, ...]
) -> None:
    cell, label = read_shown_cell(header, stream, key, frame)
    if cell.ndim == 0:
        raise BadQuery(
            f"{key!r} has no frames: its cells are single values; plot it without "
            f"{advice.option('frame')}"
        )
    if cell.ndim == 1:
        axes.plot(cell)
        _name(axes, "", label)
        return
    if cell.ndim == 3:  # coloured
        cell = cell / (cell.max() or 1)
    drawn = axes.imshow(cell, aspect="equal", interpolation="nearest")
    # Colours of a coloured image need no scale.
    has_scale = cell.ndim == 2
    _name(axes, f"frame {frame}", "" if has_scale else label)
    if has_scale:
        axes.figure.colorbar(drawn, ax=axes).set_label(_plain(label), **TEXT_OPTIONS)


# -- axes and labels -------------------------------------------------------------------------


def _import_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(
            "plots are made by matplotlib, which is not installed: pip install 'daskbroker[plot]'"
        ) from None


def _axes(given: Any, count: int) -> Any:
    """Return an array of axes for a number of signals: the given ones, or new ones.

    Parameters
    ----------
    given
        Axes, several axes, or a Figure to make them in; None makes a figure with pyplot.
    count
        Number of signals.

    Raises
    ------
    BadQuery
        If the number of given axes is not ``count``.
    """
    _import_matplotlib()
    if given is None:
        from matplotlib import pyplot

        given = pyplot.figure(layout="constrained")
    # A figure gets axes of its own; else axes were given.
    if hasattr(given, "subplots"):
        columns = int(np.ceil(count / 4))
        rows = -(-count // columns)
        given.set_size_inches(6.0 * columns, 1.5 + 2.7 * rows)
        made = given.subplots(rows, columns, squeeze=False).ravel()
        # The grid of axes has more places than signals.
        for unused in made[count:]:
            unused.set_visible(False)
        return made[:count]
    axes = np.atleast_1d(np.asarray(given, dtype=object)).ravel()
    if len(axes) != count:
        raise BadQuery(
            f"there are {count} signals to plot, and {len(axes)} axes; choose signals with "
            f"{advice.option('y')}"
        )
    return axes


def _plain(text: object) -> str:
    return shortened(printable(text), MAX_LABEL_LENGTH)


def _name(axes: Any, across: str, up: str) -> None:
    axes.set_xlabel(_plain(across), **TEXT_OPTIONS)
    axes.set_ylabel(_plain(up), **TEXT_OPTIONS)


def _label(header: Header) -> str:
    """Return the label of a run in a legend; never with a leading ``_``, which hides it."""
    parts = (header.start.get("scan_id"), sample_of(header.start) or header.uid[:8])
    text = _plain(" ".join(str(part) for part in parts if part is not None))
    return f" {text}" if text.startswith("_") else text


def _title(header: Header) -> str:
    start = header.start
    when = show_time(start.get("time"), header.db.timezone)
    named = (start.get("plan_name", "run"), start.get("scan_id"), sample_of(start))
    return _plain(" ".join(str(part) for part in (*named, when) if part not in (None, "")))
