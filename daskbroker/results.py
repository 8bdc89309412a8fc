"""Results: the runs that a search finds. Lazy."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.arguments import CALLABLE, COUNT, FLAG, NAME, PATH, accepts
from .core.errors import BadRunWarning
from .core.old_names import missing
from .core.printable import counted, printable
from .display.listing import FOLDED, MAX_RUNS_SHOWN, Listing, shown_or
from .display.markup import escaped
from .display.plots import Y, plot_runs
from .mapping import Outcome, map_runs
from .progress import progress_bar
from .results_views import ResultsViews

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client


class Results(ResultsViews):
    """The runs that a search finds, newest first.

    Iterating, slicing and mapping go from the newest run to the oldest. Tables, Datasets and
    documents have the oldest run first.

    Lazy: the store is queried when the results are iterated, counted or indexed, and each
    iteration queries it again. A slice is another Results. Headers are fetched in batches, so a
    million of them need not fit in memory.

    Runs that cannot be read (a damaged row, an invalid document of another writer) are left out
    with a :class:`daskbroker.BadRunWarning` and are listed in :attr:`bad`. They are not counted by
    ``len`` or by positions: ``results[0]`` is the newest run that can be read.
    """

    # -- what is shown ----------------------------------------------------------------------

    def to_dataframe(self, fields: Any = None) -> pd.DataFrame:
        """Return a pandas DataFrame with one row per run: the listed columns, or any metadata.

        The runs are read in batches; only the chosen values are kept in memory. Runs of which a
        document cannot be read are left out with a :class:`daskbroker.BadRunWarning`.

        Parameters
        ----------
        fields
            Columns beside ``uid``: names of the columns below; projections such as
            ``start:sample.name``, ``stop:reason`` or ``config:eiger:exposure_time``; any other
            name is a path in the start document. If None, the columns are ``uid``, ``scan_id``,
            ``time`` (in the broker's zone), ``plan_name``, ``sample``, ``motors``, ``points``,
            ``duration``, ``exit_status`` and ``derived``. The heads ``plan`` and ``status`` of a
            listing are names of ``plan_name`` and ``exit_status`` too; keys of the start document
            that are called like a column are ``start:plan``, ``start:motors``.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        FieldNotFound
            If none of the runs has a field.
        """
        from .display.runs_frame import runs_frame

        return runs_frame(self._db, self, fields, self._leave_out)

    @accepts(stream=NAME.or_none())
    def plot(self, stream: str | None = None, y: Y = None, *, ax: Any = None) -> Any:
        """Plot all these runs as lines in the same axes, with matplotlib.

        A run with two motors is drawn against the motor that its plan names first. Runs that
        cannot be drawn are left out with a warning.

        Parameters
        ----------
        stream, y, ax
            As for :meth:`daskbroker.Header.plot`. Each data key has its own axes, which all runs
            share.

        Returns
        -------
        matplotlib.axes.Axes or array of Axes
            An array if there are several signals.

        Raises
        ------
        BadQuery
            If none of the runs can be drawn, or if there are more than 50.
        """
        return plot_runs(self, stream, y, ax)

    # -- work --------------------------------------------------------------------------------

    @accepts(folder=PATH, format=NAME.or_none(), progress=FLAG.or_none())
    def export(
        self,
        folder: str | os.PathLike[str],
        format: str | None = None,
        *,
        progress: bool | None = None,
        **options: Any,
    ) -> list[Path]:
        """Write these runs to files that other tools read.

        Parameters
        ----------
        folder
            Folder to write to; created if it does not exist.
        format
            ``"jsonl"``, ``"parquet"``, ``"netcdf"``, ``"zarr"``, ``"csv"``, ``"nexus"``,
            ``"references"`` or ``"icechunk"``; ``"jsonl"`` if None.
        progress
            Whether to show a progress bar; by default in a terminal and in a notebook.
        **options
            ``stream``, ``fill``, ``files``, ``arrays``, ``partition``, ``to``, ``verify``,
            ``resume``, as for :func:`daskbroker.exporting.runs.export`, which also describes the
            files and the exceptions. ``partition="run"`` makes a folder of Parquet files for each
            stream; a later call adds new runs to it.

        Returns
        -------
        list of Path
            Files that were written.
        """
        from .exporting.runs import export  # see `header_views` on late imports

        with progress_bar(self, " runs", show=progress) as bar:
            return list(export(bar, folder, format, **options))

    @accepts(func=CALLABLE, in_flight=COUNT.or_none(), progress=FLAG.or_none())
    def map(
        self,
        func: Callable[..., Any],
        *args: Any,
        client: Client | None = None,
        in_flight: int | None = None,
        progress: bool | None = None,
        **kwargs: Any,
    ) -> Iterator[Outcome]:
        """Call a function for each run, on the workers; yield outcomes as the calls end.

        An exception of the function is kept in the outcome of its run and does not stop the
        others; so is the loss of a run whose worker died more often than the scheduler allows.
        Lazy: calls are started while this is iterated, and closing the iterator early cancels
        those that have not run.

        Parameters
        ----------
        func
            Function called as ``func(header, *args, **kwargs)``. What it computes with dask goes
            to the same cluster, as in any task; ``.compute(scheduler="threads")`` stays on the
            worker.
        *args, **kwargs
            Further arguments of the function.
        client
            ``distributed.Client`` to use; by default the active one, else dask's local scheduler
            (threads, unless ``dask.config.set(scheduler="processes")`` or the like).
        in_flight
            Maximum number of calls that are submitted and not yet yielded, however many runs there
            are. The default on a cluster is 64, or twice the number of threads if that is more;
            on a local scheduler it is twice the number of threads.
        progress
            Whether to show a progress bar; by default in a terminal and in a notebook.

        Yields
        ------
        Outcome
            Has ``header``, ``uid``, ``error`` (None on success) and ``result()``, which fetches
            what the function returned or raises what it raised.
        """
        return map_runs(
            self, func, args, kwargs, client=client, in_flight=in_flight, progress=progress
        )

    # -- pickling, looks ---------------------------------------------------------------------

    if not TYPE_CHECKING:  # a type checker should report unknown attributes
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        return (Results, (self._db, self._search, self._start, self._stop))

    def __repr__(self) -> str:
        title = f"<Results of {printable(self._asked)}>"
        return shown_or(title, lambda: self._listing(MAX_RUNS_SHOWN).text())

    def _repr_html_(self) -> str:
        title = escaped(f"<Results of {printable(self._asked)}>")
        return shown_or(title, lambda: self._listing().markup())

    @property
    def _asked(self) -> str:
        return ", ".join(self._search.shown) or "all runs"

    def _listing(self, most: int = MAX_RUNS_SHOWN + FOLDED) -> Listing:
        return self.listing(f"<Results of {self._asked}: {counted(len(self), 'run')}>", most)

    def listing(self, title: str, most: int = MAX_RUNS_SHOWN + FOLDED) -> Listing:
        """Return a listing of the first runs, with notes on runs that cannot be read."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BadRunWarning)
            listing = Listing.of(title, self, len(self), most=most)
            return listing.noting(str(one.message) for one in caught)
