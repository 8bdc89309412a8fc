"""The lazy views of one run: tables, Datasets and trees of these.

Dask's tables and xarray take a second to import. What inserts, and lists runs, does not wait for
them: modules above the views import those of tables and Datasets where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .assets.access import FileAccess, Handlers, Overrides
from .assets.filling.missing import MissingMode
from .assets.peek.peeking import PeekMode
from .core.arguments import accepts, check_one_of
from .core.group_names import group_name
from .core.run_plan import RunPlan
from .stored_run import StoredRun
from .views.missing import check_fill_names, for_keys
from .views.row_order import Duplicates
from .views.view_options import FillOptions, View, ViewOptions

if TYPE_CHECKING:
    import dask.dataframe as dd
    import xarray as xr

    from .views.dataset.frame_locations import DatasetFrames

VIEWS = ("dataframe", "dataset")


class HeaderViews(StoredRun):
    """Methods of :class:`daskbroker.Header` that return tables, Datasets and trees."""

    @accepts()
    def table(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        fill: bool = True,
        format: str = "dataframe",
        *,
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        timezone: str | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Any:
        """Open one stream as a lazy table, in which a partition is one or more chunks.

        Parameters
        ----------
        stream_name
            Name of the stream.
        fields
            Data keys, regular expressions, or projections such as ``start:sample.name``,
            ``stop:exit_status``, ``config:eiger:exposure_time``; also ``uid``, ``descriptor``,
            ``run``. All data keys if None.
        fill
            Whether to fill external data when its column is computed; False keeps the references.
        format
            ``"dataframe"`` or ``"dataset"``.
        timestamps
            Whether to add the columns ``ts_<key>``, in POSIX seconds.
        duplicates
            Which events to keep of those that were taken again after a rewind: ``"last"`` or
            ``"all"``.
        timezone
            Zone of the column ``time``. Only UTC is possible, because Dask loses rows in other
            zones. A computed table is converted to the broker's zone by
            :meth:`daskbroker.DataBroker.tz_convert`, or to any zone by ``.dt.tz_convert``.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call; see
            :meth:`daskbroker.DataBroker.register_handler`.
        peek
            Whether to read shape and dtype from detector files, if they were not read before:
            only for keys whose descriptor leaves them open if None, for every key if True, never
            if False. ``"each"`` reads the files of each run when several runs are opened, which
            otherwise share what the files of some of them hold.
        missing
            How to treat missing cells of external data: gaps (events without a reference) and lost
            frames (not on disk). With None, a gap is NaN and a lost frame raises. With ``"nan"``
            both are NaN, or None in tables and documents. With ``"drop"`` events with a missing
            cell are left out. With ``"raise"`` both raise.
        fill_value
            Value of missing cells, whose arrays keep their dtype: one value, or ``{key: value}``;
            ``missing`` applies to keys without a value.

        Returns
        -------
        dask.dataframe.DataFrame or xarray.Dataset
            A table has the index ``seq_num`` with known divisions, and ``time``
            (``datetime64[us, UTC]``) as its first column. Nothing is read before ``compute``,
            which then reads only the selected columns.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        FieldNotFound
            If the stream has no such field.
        BadQuery
            If ``format`` is unknown, ``timezone`` is not UTC, or ``missing`` or ``fill_value`` is
            not valid.
        """
        check_one_of("format", format, VIEWS)
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(fields, fill, timestamps, duplicates, timezone, external=external)
        view = self._view(stream_name, options)
        if format == "dataset":
            from .views.dataset import lazy_dataset

            return lazy_dataset.dataset(view)
        from .views.table import lazy_table

        return lazy_table.table(view)

    @accepts()
    def dataset(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        fill: bool = True,
        *,
        chunks: Any = "auto",
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        dtypes: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
        grid: bool = False,
        index: str | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> xr.Dataset:
        """Open one stream as a lazy Dataset along ``time``.

        See :func:`daskbroker.views.dataset.lazy_dataset.dataset` for its variables and coordinates.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates
            As for :meth:`table`.
        handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`table`.
        chunks
            With ``"auto"``, variables that are not in memory are dask arrays, all with the same
            blocks of about the partition size along ``time``. Stored objects, such as text, are
            xarray's own lazy arrays, unless ``chunks`` names them. With None, all variables are.
            ``{"time": n}`` or ``{name: n}`` gives the number of events per block for
            all variables or for one. A size such as ``"8 MiB"``, alone or in place of ``n``, gives
            the approximate size of blocks. Any other value is passed to
            :meth:`xarray.Dataset.chunk`.
        dtypes
            Dtypes of variables, such as ``{"img": "uint16"}``. They replace the dtype that
            descriptors declare and files hold for external variables, and the common dtype of the
            values for others.
        roi
            Region of each cell, by external variable: ``{"img": np.s_[..., 10:20, :]}``. Nothing
            outside it is read from the file, whatever is computed from the variable; a slice taken
            after other steps may not reach the file.
        grid
            Whether to replace ``time`` by a dimension for each axis of a grid scan, as described
            by :func:`daskbroker.views.dataset.grids.gridded`. The start document names the axes,
            the motors' setpoints are their coordinates, and points that were not taken are NaN.
            ``chunks`` then applies to the grid: ``{axis: n}``.
        index
            Name of a motor, or of another variable with one number per event, that replaces
            ``time`` as dimension; the Dataset is sorted by it: ``h.dataset(index="motor").sel(
            motor=1.2, method="nearest")``.

        Returns
        -------
        xarray.Dataset

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        FieldNotFound
            If the stream has no such field.
        BadQuery
            If an option is not valid, or if ``grid`` is True and the run is no grid scan; the
            message says what is missing.
        """
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(
            fields,
            fill,
            timestamps,
            duplicates,
            dtypes=dtypes,
            roi=roi,
            grid=grid,
            index=index,
            external=external,
        )
        from .views.dataset import lazy_dataset

        return lazy_dataset.dataset(self._view(stream_name, options), chunks=chunks)

    def _view(self, stream_name: str, options: ViewOptions) -> View:
        runs = self.as_now()._runs
        plan, files = self._planned(stream_name, references=options.runs_to_fill)
        return View(plan, stream_name, runs, options, files)

    @accepts()
    def tree(
        self,
        fill: bool = True,
        *,
        chunks: Any = "auto",
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> xr.DataTree:
        """Open all streams as an ``xarray.DataTree`` with one lazy Dataset per stream.

        Streams are in the order in which they began; a ``/`` in a name is ``%2F`` in the tree.
        Parameters are as for :meth:`dataset`.
        """
        from .views.dataset import lazy_dataset, trees
        from .views.dataset.attributes import root_attrs

        external = FillOptions(peek=peek, missing=missing, fill_value=fill_value)
        options = ViewOptions(fill=fill, external=external)
        run = self.as_now()
        found: dict[str, tuple[RunPlan, FileAccess]] = {}
        for source in self._sources:
            plan = source.store.plan_runs([self.uid], references=options.runs_to_fill).checked()
            for name in plan.streams:
                found.setdefault(name, (plan.of_stream(name), source.reach))
        check_fill_names(fill_value, [d for plan, _ in found.values() for d in plan.descriptors])
        began = sorted(found, key=lambda name: found[name][0].descriptors[0]["time"])
        nodes = {}
        for name in began:
            plan, files = found[name]
            values = for_keys(fill_value, plan.descriptors)
            own = replace(options, external=replace(external, fill_value=values))
            view = View(plan, name, run._runs, own, files)
            nodes[group_name(name)] = lazy_dataset.dataset(view, chunks=chunks)
        return trees.tree(nodes, root_attrs(run.start, run.known_stop), self.uid)

    def table_and_datasets(self, stream_name: str) -> tuple[dd.DataFrame, xr.Dataset, xr.Dataset]:
        """Return the views of a stream that a server needs, which have the same rows.

        They are made of one plan, so that this holds for a run in progress, too.

        Returns
        -------
        table
            As ``table(stream_name, timestamps=True)``.
        blocks
            As ``dataset(stream_name)``.
        whole
            As ``dataset(stream_name, chunks=None)``.
        """
        from .views.dataset import lazy_dataset
        from .views.table import lazy_table

        view = self._view(stream_name, ViewOptions())
        blocks, whole = lazy_dataset.datasets(view, ("auto", None))
        stamped = replace(view, options=ViewOptions(timestamps=True))
        return lazy_table.table(stamped), blocks, whole

    def dataset_frames(self, stream_name: str) -> DatasetFrames:
        """Return the Dataset of a stream, and the byte ranges of its external cells in their files.

        References are made from it; see :mod:`daskbroker.views.dataset.frame_locations`.
        """
        from .views.dataset.frame_locations import dataset_frames

        return dataset_frames(self._view(stream_name, ViewOptions()))
