"""Assemble a Dataset of the variables in memory and of lazy arrays for the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from xarray.indexes import PandasIndex

from ...core.digests import digest_of
from ...core.external import stream_keys
from ...core.graph_names import graph_name, runs_name
from ...core.layouts import STREAM_RESOURCE
from ...core.run_plan import RunPlan, resources_of
from ...core.schema import TableColumn
from ...core.settings import setting
from .column_sources import ColumnSource, ExternalColumn
from .cutting import (
    column_groups,
    even_cut,
    given_cut,
    is_cut,
    regular_length,
    row_bytes,
    size_of_rows,
    text_bytes,
)
from .dataset_rows import DatasetRows
from .graphs import Blocks, external_array, stored_arrays
from .loading import Loading, names_to_load
from .restoring import Restoring
from .savable import text_encoding
from .variables import Dimensions, chunk_length, declared_dims, lazy_array, variable_attrs
from .writers import class_for

SHARED = ("time", "seq_num", "run")
"""Coordinates of every stream; no data key is shown under these names."""

MOST_TASKS = 10_000
"""Maximum number of tasks of stored variables beside external ones.

If they need more, they are xarray's own lazy arrays instead.
"""

USUAL: tuple[Any, ...] = (None, "auto", {})
"""Values of ``chunks`` with which small variables may be loaded into memory."""


@dataclass(frozen=True, eq=False)
class Assembly:
    """The parts of a Dataset that is being made.

    Attributes
    ----------
    plan
        Plan of the chunks.
    rows
        Rows that are shown.
    columns
        Columns of the stream's table that are shown, by name.
    sources
        Source of each variable, coordinates first.
    coordinates
        Names of the variables that are coordinates.
    attrs
        Attributes of the Dataset.
    stream, token
        Name of the stream and token of the content, for the names of tasks.
    chunks
        The option as the user gave it.
    restoring
        Restores the Dataset that the stream was made of; None if it was not made of a Dataset.
    """

    plan: RunPlan
    rows: DatasetRows
    columns: Mapping[str, TableColumn]
    sources: Mapping[str, ColumnSource]
    coordinates: Collection[str]
    attrs: Mapping[str, Any]
    stream: str
    token: str
    chunks: Any
    restoring: Restoring | None = None

    @cached_property
    def external(self) -> dict[str, ExternalColumn]:
        """Sources of the variables that are filled."""
        return {n: s for n, s in self.sources.items() if isinstance(s, ExternalColumn)}

    @cached_property
    def stored(self) -> dict[str, ColumnSource]:
        """Sources of all other variables."""
        return {n: s for n, s in self.sources.items() if not isinstance(s, ExternalColumn)}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of a cell of each stored variable."""
        return row_bytes(self.plan.events, self.stored)

    @cached_property
    def loading(self) -> Loading:
        """The variables that must be in memory."""
        names = names_to_load(
            self.plan.events,
            len(self.rows),
            self.sizes,
            [name for name in self.coordinates if name in self.stored],
            variables=self.chunks in USUAL,
        )
        sources = {name: self.stored[name] for name in names}
        return Loading(self.plan.events, self.rows, sources)

    @cached_property
    def runs_name(self) -> str:
        """Part of the names of tasks that stands for the runs."""
        return runs_name(descriptor["run_start"] for descriptor in self.plan.descriptors)

    # -- the cut -----------------------------------------------------------------------------

    @cached_property
    def asked(self) -> Any:
        """``chunks`` with lengths in place of sizes along ``time``.

        Sizes cannot be left to Dask, as it does not know the size of objects, such as text.
        """
        # The usual cut, spelled out.
        if self.chunks == "auto":
            return {}
        chunks = {"time": self.chunks} if isinstance(self.chunks, str) else self.chunks
        # An integer, or a form that only xarray knows.
        if not isinstance(chunks, Mapping):
            return chunks
        return {
            name: self._sized(name, cut)
            if isinstance(cut, str) and name in ("time", *self.sources)
            else cut
            for name, cut in chunks.items()
        }

    def _sized(self, name: Any, size: str) -> int | tuple[int, ...]:
        """Return lengths of blocks of a size such as ``"8 MiB"``.

        For ``time``, this is the size of the blocks of the largest variable.
        """
        # Without rows there is no size to divide by; -1 stands for the whole axis.
        if not len(self.rows):
            return -1
        if name == "time":
            return self.usual_lengths if size == "auto" else self._lengths_by(text_bytes(size))
        target = setting("partition-size") if size == "auto" else text_bytes(size)
        cell = self.external[name].cell_bytes if name in self.external else self.sizes[name]
        return even_cut(len(self.rows), target // max(1, cell))

    @cached_property
    def lengths(self) -> dict[str, tuple[int, ...]] | None:
        """Lengths of the blocks of each variable along ``time``.

        None if more than that is requested: then xarray must cut.
        """
        chunks = self.asked
        # Chunks that xarray has to cut.
        if not isinstance(chunks, Mapping):
            return None
        # Names of other dimensions, or lengths that are no plain cuts.
        if not all(n in ("time", *self.sources) and is_cut(cut) for n, cut in chunks.items()):
            return None
        count = len(self.rows)
        all_alike = given_cut(chunks["time"], count) if "time" in chunks else self.usual_lengths
        own = {name: given_cut(cut, count) for name, cut in chunks.items() if name != "time"}
        return dict.fromkeys(self.sources, all_alike) | own

    @cached_property
    def usual_lengths(self) -> tuple[int, ...]:
        """Lengths of blocks along ``time`` if nothing else is requested."""
        target = setting("partition-size")
        # Without frames, all columns of a block are read together.
        if not self.external:
            columns = sum(name not in self.coordinates for name in self.sizes)
            target = size_of_rows(target, columns)
        return self._lengths_by(target)

    def _lengths_by(self, target: int) -> tuple[int, ...]:
        """Return lengths of even blocks, of about `target` bytes in the largest variable."""
        if self.external:
            largest = max(self.external.values(), key=lambda source: source.cell_bytes)
            row, align = largest.cell_bytes, self._frames_of_a_chunk(largest)
        else:
            row = sum(size for name, size in self.sizes.items() if name not in self.coordinates)
            align = regular_length(self.rows.lengths)
        return even_cut(len(self.rows), target // max(1, row), align)

    def _frames_of_a_chunk(self, source: ExternalColumn) -> int:
        """Return how many events share one chunk in the files; 1 if stream_resources do not say."""
        # Datums do not say how frames are stored.
        if not any(source.key in stream_keys(d) for d in self.plan.descriptors):
            return 1
        kind = STREAM_RESOURCE.kind
        resources = resources_of({kind: self.plan.references[kind]})
        return chunk_length(source, self.plan.events, [doc for _, doc in resources])

    def _dask_arrays(self, lengths: Mapping[str, tuple[int, ...]]) -> dict[str, da.Array]:
        """Return Dask arrays of variables; some stored ones are left out (:meth:`_left_out`)."""
        left_out = self._left_out(lengths)
        arrays: dict[str, da.Array] = {}
        for cut in dict.fromkeys(lengths.values()):
            blocks = Blocks(self.plan.events, self.rows, cut)
            names = [name for name in lengths if lengths[name] == cut and name not in left_out]
            for name in names:
                if name in self.external:
                    task_name = self.task_name(name, cut)
                    arrays[name] = external_array(task_name, blocks, self.external[name])
            sizes = {name: self.sizes[name] for name in names if name in self.stored}
            for group in column_groups(sizes, cut[0]):
                arrays |= stored_arrays(
                    # In a list, as a variable may be named `read`, too.
                    self.task_name("read", cut, [self._content_of(name) for name in group]),
                    {name: self.task_name(name, cut, *group) for name in group},
                    blocks,
                    {name: self.stored[name] for name in group},
                )
        return arrays

    def _left_out(self, lengths: Mapping[str, tuple[int, ...]]) -> Collection[str]:
        """Return the stored variables that are no Dask arrays, unless ``chunks`` names them."""
        named = self.asked if isinstance(self.asked, Mapping) else {}
        stored = [name for name in lengths if name in self.stored and name not in named]
        tasks = sum(len(lengths[name]) for name in stored)
        # Beside frames, stored variables may be cut so finely that Dask has too much to do.
        if self.external and tasks > MOST_TASKS:
            return stored
        return [name for name in stored if name in self.objects]

    @cached_property
    def objects(self) -> dict[str, ColumnSource]:
        """Sources of the stored variables of objects, which should not be Dask arrays.

        In Dask arrays of objects xarray takes None for a value (`isnull`, `count`, `fillna`), and
        can neither group by text nor take one cell that is itself an array (`isel(time=0)`).
        """
        return {n: s for n, s in self.stored.items() if s.dtype.kind == "O"}

    def task_name(self, name: str, *content: Any) -> str:
        """Return the name of the tasks of a variable, unique for this content.

        The dashboard shows what comes before the first digits, so the run comes last.
        """
        note = repr((self.token, name, self._content_of(name), content))
        token = digest_of(note)
        return "-".join(
            ["daskbroker", graph_name(self.stream), graph_name(name), self.runs_name, token]
        )

    def _content_of(self, name: str) -> Any:
        """Return what a variable is read from; with other fields, the name may be that of another.

        The field of a structured array has the name of a key if that is not shown.
        """
        source = self.sources.get(name)
        return source and (name, source.physical, getattr(source, "path", None))

    # -- what is put together ----------------------------------------------------------------

    def dataset(self, loaded: Mapping[str, np.ndarray]) -> xr.Dataset:
        """Return the Dataset, given the variables that are in memory."""
        arrays: dict[str, Any] = dict(loaded)
        if self.chunks is not None and self.lengths is not None:
            rest = {name: cut for name, cut in self.lengths.items() if name not in loaded}
            arrays |= self._dask_arrays(rest)
        variables = {
            name: self._variable(name, source, arrays.get(name))
            for name, source in self.sources.items()
        }
        indexes = {}
        # An index that is made of values in memory costs no read.
        if "time" in loaded:
            indexes["time"] = PandasIndex(loaded["time"], "time")
            variables |= indexes["time"].create_variables()
        # So that `xr.open_dataset(..., chunks={})` cuts at the usual blocks.
        if self.chunks is None and variables.keys() - loaded.keys() and self.usual_lengths[0]:
            for variable in variables.values():
                variable.encoding["preferred_chunks"] = {"time": self.usual_lengths[0]}
        mixed = any(
            source.is_mixed
            or (source.dtype.kind == "O" and name not in loaded)
            or "_Encoding" in variables[name].encoding
            for name, source in self.sources.items()
        )
        coordinates = {name: variables.pop(name) for name in self.coordinates}
        result = class_for({**variables, **coordinates}, mixed=mixed)(
            variables,
            # Given as a mapping, a lazy coordinate ``time`` would be read to make an index.
            coords=xr.Coordinates(coordinates, indexes=indexes),
            attrs=self.attrs,
        )
        # Only xarray knows this cut.
        if self.chunks is not None and self.lengths is None:
            result = self._cut(result)
        return result if self.restoring is None else self.restoring(result, loaded)

    def _cut(self, lazy: xr.Dataset) -> xr.Dataset:
        """Cut a lazy Dataset by xarray, as requested, without its stored objects.

        Variables are renamed meanwhile, as xarray makes the names of tasks from theirs.
        """
        chunks = self.asked
        # A cut of other dimensions leaves that along time as it is.
        if isinstance(chunks, Mapping):
            chunks = {"time": self.usual_lengths, **chunks}
        clean = {name: graph_name(str(name)) for name in self.sources}
        renamed = {name: new for name, new in clean.items() if name != new}
        prefix = f"daskbroker-{graph_name(self.stream)}-{self.runs_name}-"
        cut = lazy.rename(renamed).chunk(chunks, token=self.token, name_prefix=prefix)
        cut = cut.rename({new: name for name, new in renamed.items()})
        return cut.assign({name: lazy.variables[name] for name in self.objects})

    def _variable(self, name: str, source: ColumnSource, array: Any) -> xr.Variable:
        plan, column = self.plan.events, self.columns.get(name)
        if array is None:
            array = lazy_array(plan, self.rows, source)
        # Shared coordinates have no attributes of a data key.
        if column is None or name in SHARED:
            return xr.Variable(("time",), array, fastpath=True)
        dims, attrs = ("time", *self.dims[name]), variable_attrs(plan, column.field)
        return xr.Variable(dims, array, attrs, text_encoding(array), fastpath=True)

    @cached_property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the dimensions of the cells of each variable."""
        known = Dimensions(self.sources)
        found = {}
        for name, source in self.sources.items():
            whole, axes = len(source.cell_shape), tuple(range(len(source.cell_shape)))
            # A region that is shown does not change the names of the axes.
            if isinstance(source, ExternalColumn):
                whole, axes = len(source.declared.shape or ()), source.axes
            column = self.columns.get(name)
            declared = None if column is None else declared_dims(self.plan.events, column, whole)
            named = name if column is None else column.name  # fields of rows share their dimensions
            found[name] = known.of(named, declared, dict(zip(axes, source.cell_shape)))
        return found
