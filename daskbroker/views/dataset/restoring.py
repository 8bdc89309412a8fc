"""Restore Datasets from streams that were made of Datasets.

See :mod:`daskbroker.views.dataset.stored_form` for the stored form. Columns are read in the dtype
and shape that were stored. In the end, constant variables are added, and variables get their own
names and dimensions again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from xarray.core import indexing
from xarray.indexes import PandasIndex, PandasMultiIndex

from ...core.chunks import chunk_label
from ...core.codec import block as block_of
from ...core.column_kinds import field_kind
from ...core.errors import StoreDamaged
from ...core.fields import shown_names
from ...core.layouts import as_one_chunk
from ...core.schema import to_pandas
from .attributes import renamed_units
from .column_sources import ColumnSource, OneColumn
from .row_block import RowBlock
from .savable import needs_form
from .stored_form import DEVICE, DatasetForm, StoredForm, VariableForm, form_of
from .writers import class_for

SCALARS = ("bool", "int", "long", "uint", "float")
"""Kinds of columns whose Arrow values convert to NumPy directly."""


@dataclass(frozen=True)
class RestoredColumn(OneColumn):
    """Source that is a stored column, in the form that it had in a Dataset.

    Attributes
    ----------
    cell
        Shape and dtype of a cell.
    """

    cell: StoredForm

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """See :attr:`ColumnSource.dtype`."""
        return self.cell.dtype

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """See :attr:`ColumnSource.cell_shape`."""
        return self.cell.shape

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        parts = []
        for table, piece in zip(tables, block.pieces, strict=True):
            try:
                chunk = self.cell.array(self._stored(table), table.num_rows)
                parts.append(chunk[piece.rows])
            except (ValueError, TypeError, OverflowError) as error:
                raise StoreDamaged(
                    f"{block.labels[piece.owner]}: the column {self.name!r} is not of the shape "
                    f"{list(self.cell.shape)} and dtype {self.cell.dtype} that the descriptor "
                    f"declares: {error}"
                ) from None
        return self._joined(parts)

    def _stored(self, table: pa.Table) -> np.ndarray:
        position = table.schema.get_field_index(self.name)
        if position >= 0 and self.cell.dtype.kind != "O":
            kind = field_kind(table.schema.field(position))[0]
            if kind.name == "array" and not kind.nulls and kind.dtype != "<U":
                return block_of(as_one_chunk(table.column(position)), kind)
            if kind.name in SCALARS and not kind.nulls:
                return as_one_chunk(table.column(position)).to_numpy(zero_copy_only=False)
        return to_pandas(table, self.name, "object")


class Restoring:
    """Restores the Dataset that a stream was made of.

    Parameters
    ----------
    form
        Stored form of the Dataset.
    descriptors
        Descriptors of the stream, all with this form.
    selected
        Names of the columns that are shown; all if None.
    """

    def __init__(
        self,
        form: DatasetForm,
        descriptors: Sequence[Mapping[str, Any]],
        selected: Collection[str] | None,
    ) -> None:
        self.form = form
        self._descriptor = descriptors[0]
        self._selected = selected
        self._shown = shown_names(self._descriptor["data_keys"])

    @classmethod
    def of(
        cls, descriptors: Sequence[Mapping[str, Any]], selected: Collection[str] | None
    ) -> Restoring | None:
        """Return the restoring of a stream; None if it was not made of a Dataset."""
        form = form_of(descriptors)
        return None if form is None else cls(form, descriptors, selected)

    def source(self, key: str) -> ColumnSource | None:
        """Return the source of a data key's variable; None if the form does not describe it."""
        variable = self.form.at("event").get(key)
        return None if variable is None else RestoredColumn(f"data:{key}", variable.cell)

    @property
    def coordinates(self) -> list[str]:
        """Names of the columns that are coordinates."""
        variables = self.form.at("event").items()
        return [self._shown[k] for k, form in variables if form.coordinate and k in self._shown]

    @property
    def stamps(self) -> list[str]:
        """Data keys whose timestamps are variables."""
        return list(self.form.at("timestamps"))

    def __call__(self, flat: xr.Dataset, loaded: Collection[str]) -> xr.Dataset:
        """Return the Dataset that was stored.

        Parameters
        ----------
        flat
            Dataset of the stream along ``time``.
        loaded
            Names of those of its variables that are in memory.

        Raises
        ------
        StoreDamaged
            If the configuration lacks a constant variable, or has it in another form.
        """
        single = self.form.dim is None and flat.sizes["time"] == 1
        found: dict[str, xr.Variable] = {}
        in_memory: set[str] = set()
        for form in self.form.variables:
            column = self._column(form)
            if column is None:
                found[form.name] = self._constant(form)
            elif column in flat.variables:
                scalar = single and (self.form.has_time or form.section == "seq_num")
                found[form.name] = self._along_events(form, flat.variables[column], scalar=scalar)
            in_memory |= {form.name} if column is None or column in loaded else set()
        if not self.form.has_time and "time" in flat.variables and "time" not in found:
            time = flat.variables["time"].to_base_variable()
            time.dims = (self._dim,)
            found["time"] = time
            in_memory |= {"time"} & set(loaded)
        if "run" in flat.coords and "run" not in found:
            found["run"] = flat.variables["run"].to_base_variable()
            found["run"].dims = (self._dim,)
        return self._put_together(self._wanted(found), in_memory, flat.attrs)

    @property
    def _dim(self) -> str:
        return self.form.dim or "time"

    def _column(self, form: VariableForm) -> str | None:
        """Return a variable's name in the stream's Dataset; None if it is in the configuration."""
        if form.section == "event":
            return self._shown.get(form.key, form.key)
        if form.section == "timestamps":
            return f"ts_{form.key}"
        return None if form.section == "configuration" else form.section

    def _along_events(
        self, form: VariableForm, column: xr.Variable, *, scalar: bool
    ) -> xr.Variable:
        variable = column.to_base_variable()
        inner = tuple(dim for dim in form.dims if dim != self.form.dim)
        variable.dims = (self._dim, *inner)
        variable.attrs = renamed_units(form.attrs)
        if variable.dtype != form.cell.dtype:
            # Not by `Variable.astype`, which makes pandas' text of objects on the way.
            data = variable.data.astype(form.cell.dtype)
            variable = _variable(variable.dims, data, variable.attrs)
        if scalar:
            return variable.isel({self._dim: 0})
        return variable if self.form.dim is None else variable.transpose(*form.dims)

    def _constant(self, form: VariableForm) -> xr.Variable:
        try:
            value = self._descriptor["configuration"][DEVICE]["data"][form.key]
            array = form.cell.array([value], 1)[0, ...]
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise StoreDamaged(
                f"{chunk_label(self._descriptor)}: the configuration of {DEVICE!r} has no "
                f"{form.key!r} of the shape {list(form.cell.shape)}: {error}"
            ) from None
        return _variable(form.dims, array, renamed_units(form.attrs))

    def _wanted(self, variables: dict[str, xr.Variable]) -> dict[str, xr.Variable]:
        """Return the selected variables, and the coordinates that belong to their dimensions."""
        if self._selected is None:
            return variables
        columns = {form.name: self._column(form) for form in self.form.variables}
        chosen = {name for name in variables if columns.get(name) in self._selected}
        dims = {dim for name in chosen for dim in variables[name].dims} | {self._dim}
        coordinates = {form.name for form in self.form.variables if form.coordinate}
        belongs = {n for n in coordinates & variables.keys() if dims.issuperset(variables[n].dims)}
        added = {"time", "run"} - columns.keys()
        return {n: v for n, v in variables.items() if n in chosen | belongs | added}

    def _put_together(
        self,
        variables: dict[str, xr.Variable],
        in_memory: Collection[str],
        attrs: Mapping[str, Any],
    ) -> xr.Dataset:
        data = {form.name for form in self.form.variables if not form.coordinate}
        coordinates: dict[str, Any] = {n: v for n, v in variables.items() if n not in data}
        indexes = {}
        for name, variable in list(coordinates.items()):
            if variable.dims == (name,) and name in in_memory:
                index = PandasIndex(variable.values, name)
                indexes[name] = index
                coordinates |= index.create_variables({name: variable})
        mixed = any(needs_form(v, in_memory=name in in_memory) for name, v in variables.items())
        result = class_for(variables, mixed=mixed)(
            {name: variable for name, variable in variables.items() if name in data},
            # Given as a mapping, a lazy coordinate would be read to make an index.
            coords=xr.Coordinates(coordinates, indexes=indexes),
            attrs={**self.form.attrs, **attrs},
        )
        for levels in self.form.indexes.values():
            if result.coords.keys() >= set(levels):
                result = result.set_xindex(list(levels), PandasMultiIndex)
        return result


def _variable(dims: tuple[Any, ...], data: Any, attrs: Mapping[Any, Any]) -> xr.Variable:
    """Return a variable; of text with lone surrogates too, which pandas cannot hold."""
    try:
        return xr.Variable(dims, data, attrs)
    except UnicodeEncodeError:
        lazy = indexing.LazilyIndexedArray(indexing.NumpyIndexingAdapter(data))
        return xr.Variable(dims, lazy, attrs)
