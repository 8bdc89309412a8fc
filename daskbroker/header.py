"""Header: one run, with its documents and the views of its data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.arguments import MAPPING, NAME, PATH, accepts
from .core.documents import ALL, AllStreams, StreamName
from .core.errors import FieldNotFound
from .core.name_lists import listed
from .core.old_names import missing
from .display.page import header_line, header_markup, header_text
from .display.plots import FRAME, Frame, Y, plot_run
from .header_documents import HeaderDocuments
from .header_views import HeaderViews


class Header(HeaderViews, HeaderDocuments):
    """A run: its start and stop documents, and views of its data.

    Headers are made by searching a broker. A Header pickles as its two documents and the broker's
    configuration; unpickled, it uses the one broker of that configuration in the process.

    A run in progress gets its stop document later: :attr:`stop` looks for it. Each view (table,
    dataset, tree, documents) looks for it once, before it lists the chunks to read, and shows the
    run as of that moment. A view therefore never has a stop that is later than its events.

    Parameters
    ----------
    db
        Broker that the run comes from.
    start, stop
        Start and stop documents; ``stop`` is None while the run has none.
    live
        Whether a missing stop is looked up again; see :meth:`as_now`.

    Attributes
    ----------
    start
        Start document.
    known_stop
        Stop document as far as it is known, without a lookup in the store; None if there is none.
    db
        Broker that the run comes from.
    """

    # -- what is shown and written elsewhere -------------------------------------------------

    @accepts(stream=NAME.or_none(), frame=FRAME)
    def plot(
        self, stream: str | None = None, y: Y = None, frame: Frame = None, *, ax: Any = None
    ) -> Any:
        """Plot the run with matplotlib, as described by the hints of its plan and devices.

        With one scanned motor, or over time, each signal is a line. With two motors it is a map,
        or scattered points if the plan describes no regular grid. Needs ``daskbroker[plot]``.

        Parameters
        ----------
        stream
            Name of the stream; by default the one with the scanned motors.
        y
            Data keys to plot in place of the hinted signals. A key whose cells are images is shown
            as an image.
        frame
            Number of the event whose cell is shown, as an image or as a line; negative numbers
            count from the last. ``(event, image)`` chooses among the images of a cell, of which
            the first is the default.
        ax
            Axes to draw on, as many as there are signals, or a matplotlib Figure for new ones; by
            default pyplot makes a figure.

        Returns
        -------
        matplotlib.axes.Axes or array of Axes
            An array if there are several signals.

        Raises
        ------
        StreamNotFound, FieldNotFound
            If the run has no such stream or data key.
        BadQuery
            If there is nothing to plot, or no such frame.
        ConfigError
            If matplotlib is not installed.
        """
        return plot_run(self, stream, y, frame, ax)

    @accepts(path=PATH, format=NAME.or_none())
    def export(
        self, path: str | os.PathLike[str], format: str | None = None, **options: Any
    ) -> list[Path]:
        """Write the run to files that other tools read.

        Parameters
        ----------
        path
            Folder, or the file itself if it ends with a suffix of the format: ``.jsonl``,
            ``.parquet``, ``.nc``, ``.zarr``, ``.csv``, ``.nxs``, ``.json`` or ``.parq`` for
            references, ``.icechunk``.
        format
            ``"jsonl"``, ``"parquet"``, ``"netcdf"``, ``"zarr"``, ``"csv"``, ``"nexus"``,
            ``"references"`` or ``"icechunk"``; by default the format of the suffix, or ``"jsonl"``
            if it has none.
        **options
            ``stream``, ``fill``, ``files``, ``arrays``, ``partition``, ``to``, ``verify``, as for
            :func:`daskbroker.exporting.runs.export`. For example, ``fill=True`` writes frames in
            place of references, and ``arrays="drop"`` leaves columns with arrays out of CSV.

        Returns
        -------
        list of Path
            Files that were written, each complete and synced.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        BadQuery
            If the format is unknown or does not have an option, if ``path`` is one file for
            several streams, or if CSV would have arrays.
        StoreFull, StoreReadOnly, StoreError
            If a file cannot be written.
        """
        from .exporting.runs import export_run  # see `header_views` on late imports

        return export_run(self, path, format, **options)

    @accepts(to=MAPPING.or_none(), arrays=NAME)
    def references(
        self,
        stream_name: StreamName = ALL,
        *,
        to: Mapping[str, str] | None = None,
        arrays: str = "raise",
    ) -> dict[str, Any]:
        """Return streams as references: external frames are byte ranges of the detectors' files.

        The format is kerchunk's. xarray opens it through fsspec's file system ``reference``,
        without daskbroker and without a copy of any frame. ``export(path, "references")`` writes
        it to a file, ``export(path, "icechunk")`` does the same for Icechunk.

        Parameters
        ----------
        stream_name
            Name of one stream, whose variables are then in the root group; with all streams, each
            has a group.
        to
            Locations that references give to folders, ``{"/gpfs/x": "s3://x"}``; all files must be
            below one of these folders. By default references have the paths on this machine, with
            ``root_map`` applied.
        arrays
            What to do with frames that references cannot describe: ``"raise"``, or ``"drop"`` to
            leave them out with an :class:`daskbroker.ExportWarning`.

        Returns
        -------
        dict
            ``version`` and ``refs``; under ``daskbroker`` the size and time of each file. Readers
            do not notice that a file was replaced later: :func:`daskbroker.verify_references` does.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        BadQuery
            If frames cannot be described by one grid of chunks with one chain of codecs; the
            message names them.
        FillError
            If a file is missing or cannot be read.
        """
        from .exporting.references.kerchunk import references

        if not isinstance(stream_name, AllStreams):
            self.es_given_stream(stream_name)
        return references(self.as_now(), stream_name, to, arrays)

    def portable(self) -> Header:
        """Return a Header that a worker can use without opening the store.

        A Header normally pickles as its documents and the broker's configuration, by which the
        worker opens the store. An embedded store must not be opened over a network file system.
        For such a store this returns a read-only Header of the run as of now, which carries its
        descriptors and the list of its chunks (no data except the unsealed tail). For other stores
        it returns this Header. :meth:`daskbroker.Results.map` calls this by itself.
        """
        if all(source.store.opens_on_workers for source in self._sources):
            return self
        return Header(self.db.portable_broker(self), self.start, self.known_stop, live=False)

    # -- mapping, equality, pickling, looks --------------------------------------------------

    def keys(self) -> tuple[str, ...]:
        """Return the keys of ``h[...]``: ``start``, ``stop`` and ``descriptors``."""
        return ("start", "stop", "descriptors")

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            stream = key if isinstance(key, str) and key in self.streams else "primary"
            raise FieldNotFound(
                f"a Header has the keys {listed(self.keys())}, not {key!r:.200}; a stream is read "
                f"by header.table({stream!r:.200}) or header.dataset({stream!r:.200})"
            )
        return getattr(self, key)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Header) and self.uid == other.uid

    def __hash__(self) -> int:
        return hash(self.uid)

    if not TYPE_CHECKING:  # a type checker should report unknown attributes
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        return (partial(Header, live=self._live), (self.db, self.start, self.known_stop))

    def __repr__(self) -> str:
        return header_line(self)

    def __str__(self) -> str:
        return header_text(self)

    def _repr_html_(self) -> str:
        return header_markup(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(header_text(self))
