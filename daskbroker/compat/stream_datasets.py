"""Datasets in databroker's form: times in POSIX seconds, and data keys as variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..header import Header

if TYPE_CHECKING:
    import xarray as xr


def stream_dataset(
    header: Header, stream_name: str, fields: Mapping[str, str] | Sequence[str] | None = None
) -> xr.Dataset:
    """Open one stream as a lazy Dataset whose only coordinate is ``time``, in POSIX seconds.

    Parameters
    ----------
    header, stream_name
        Run, and name of the stream.
    fields
        Fields as for :meth:`daskbroker.Header.dataset`, or a mapping from such fields to the names
        of the variables.
    """
    asked = fields if fields is None else list(fields)
    dataset = header.dataset(stream_name, asked, duplicates="all")
    dataset = dataset.reset_coords().drop_vars("seq_num", errors="ignore")
    times: Any = dataset["time"].astype("datetime64[us]").astype("int64") / 1e6
    dataset = dataset.assign_coords(time=times).rename(_dimensions(dataset))
    if not isinstance(fields, Mapping):
        return dataset
    names = {_variable(field): name for field, name in fields.items()}
    return dataset.rename(names)[list(names.values())]


def _dimensions(dataset: xr.Dataset) -> dict[Any, str]:
    """Return new names (``dim_0``, …) of the dimensions that descriptors do not name."""
    unnamed = [
        dim
        for key, variable in dataset.data_vars.items()
        for number, dim in enumerate(variable.dims[1:])
        if dim == f"{key}_dim_{number}"
    ]
    return {dim: f"dim_{number}" for number, dim in enumerate(unnamed)}


def _variable(field: str) -> str:
    """Return the name of a field's variable in daskbroker's Dataset."""
    role, _, key = field.partition(":")
    return {"data": key, "ts": f"ts_{key}"}.get(role, field)
