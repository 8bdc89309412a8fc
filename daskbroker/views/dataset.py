"""A stream as a lazy xarray Dataset along ``time``.

One :class:`ChunkColumn` per variable serves with dask and without: indexing reads only the
chunks, the columns and the cells that are asked for. Opening a Dataset reads nothing but
``time`` and ``seq_num``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ..assets.filling import cannot_fill
from ..core.chunks import ChunkPlan, cells
from ..core.codec import MISSING, Kind
from ..core.fields import Field, project, select
from ..core.schema import TIME, TableColumn, posix_to_datetime, table_columns, to_pandas
from .dataframe import Runs, target_bytes
from .rows import Duplicates, RowGroup, coalesce, group_rows, keep

__all__ = ["dataset", "run_attrs"]

MOST_CHUNKS_FOR_INDEX = 1000
"""Up to so many chunks are read for the index of ``time``; beyond, ``time`` stays lazy."""


def dataset(
    plan: ChunkPlan,
    stream: str,
    runs: Runs,
    *,
    fields: Any = None,
    fill: bool = True,
    chunks: Any = "auto",
    timestamps: bool = False,
    duplicates: Duplicates = "last",
    with_run: bool = False,
) -> xr.Dataset:
    """A Dataset of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    plan
        The chunks, run after run.
    stream
        For attrs and messages.
    runs
        Start and stop of each run, for attrs and projections.
    fields, timestamps
        See :func:`daskbroker.core.fields.select`.
    fill
        External variables are filled when computed; otherwise they hold references.
    chunks
        ``"auto"``: dask arrays cut where chunks end; None: xarray's own lazy arrays;
        anything else as :meth:`xarray.Dataset.chunk` takes it.
    duplicates
        As for a table.
    with_run
        Add the coordinate ``run``, the uid.

    Returns
    -------
    xarray.Dataset
        Dimension ``time`` (UTC, without zone, as xarray has none), then the data key's own
        ``dims`` or ``<key>_dim_N``. Coordinates ``time``, ``seq_num`` and the scanned motors of
        ``start.hints.dimensions``. Variables have the names of the table's columns. Numbers
        with gaps are floats; cells of no common shape are objects.
    """
    chosen = [
        f for f in select(fields, plan.descriptors, timestamps=timestamps) if f.role != "time"
    ]
    rows = _Rows.of(plan, duplicates)
    variables: dict[Hashable, xr.Variable] = {}
    for column in table_columns(plan, chosen, runs):
        source = _source(plan, rows, column, runs, fill)
        lazy = indexing.LazilyIndexedArray(ChunkColumn(plan, rows, source))
        dims = _dims(plan, column, len(source.cell_shape))
        variables[column.name] = xr.Variable(dims, lazy, _variable_attrs(plan, column.field))
    coordinates = _coordinates(plan, rows, with_run)
    result = xr.Dataset(variables, coords=coordinates, attrs=_attrs(plan, stream, runs, with_run))
    result = result.set_coords([name for name in _scanned(runs, stream) if name in variables])
    if chunks is None:
        return result
    token = _token(plan, stream, runs, fill, duplicates)
    if chunks in ("auto", {}):
        chunks = {"time": rows.cuts()}
    chunked = result.chunk(chunks, token=token, name_prefix="daskbroker-")
    if with_run and "time" in coordinates.xindexes:  # to group by, it has to be in memory
        chunked = chunked.assign_coords(run=coordinates["run"].variable)
    return chunked


def run_attrs(
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    stream: str | None = None,
    plan: ChunkPlan | None = None,
) -> dict[str, Any]:
    """What a Dataset carries of where it comes from."""
    attrs: dict[str, Any] = {"run": start["uid"]}
    for key in ("scan_id", "plan_name"):
        if key in start:
            attrs[key] = start[key]
    if stream is not None:
        attrs["stream"] = stream
    if plan is not None:
        attrs["descriptors"] = [descriptor["uid"] for descriptor in plan.descriptors]
    attrs["start"] = dict(start)
    attrs["stop"] = None if stop is None else dict(stop)
    return attrs


def _attrs(plan: ChunkPlan, stream: str, runs: Runs, with_run: bool) -> dict[str, Any]:
    if not with_run:
        (start, stop), *_ = runs.values()
        return run_attrs(start, stop, stream, plan)
    uids = dict.fromkeys(descriptor["run_start"] for descriptor in plan.descriptors)
    descriptors = [descriptor["uid"] for descriptor in plan.descriptors]
    return {"runs": list(uids), "stream": stream, "descriptors": descriptors}


def _token(plan: ChunkPlan, stream: str, runs: Runs, fill: bool, duplicates: Duplicates) -> str:
    stops = [stop and stop["uid"] for _, stop in runs.values()]
    note = json.dumps([plan.token, stream, stops, fill, duplicates])
    return hashlib.blake2b(note.encode("utf8", "surrogatepass"), digest_size=16).hexdigest()


# -- rows ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rows:
    """Where the rows of the Dataset are.

    Attributes
    ----------
    groups
        Chunks that are read together.
    ends
        Row after the last of each group.
    taken
        For groups that are not simple: which rows of theirs are shown.
    """

    groups: tuple[RowGroup, ...]
    ends: np.ndarray
    taken: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, plan: ChunkPlan, duplicates: Duplicates) -> _Rows:
        groups = tuple(group_rows(plan, duplicates))
        taken: dict[int, np.ndarray] = {}
        counts = []
        for number, group in enumerate(groups):
            if not group.simple:
                taken[number] = keep(_seq_nums(plan, group), duplicates)
            counts.append(len(taken[number]) if number in taken else group.rows or 0)
        return cls(groups, np.cumsum(np.array(counts, dtype=np.int64)), taken)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def begin(self, number: int) -> int:
        return int(self.ends[number - 1]) if number else 0

    def cuts(self) -> tuple[int, ...]:
        """Lengths of dask's chunks: whole groups, up to the partition size."""
        ranges = coalesce(self.groups, target_bytes())
        return tuple(int(self.ends[end - 1]) - self.begin(begin) for begin, end in ranges) or (0,)


def _seq_nums(plan: ChunkPlan, group: RowGroup) -> np.ndarray:
    parts = [plan.read(place, ["seq_num"]).column(0).to_numpy() for place in group.places]
    return np.concatenate(parts)


def _coordinates(plan: ChunkPlan, rows: _Rows, with_run: bool) -> xr.Coordinates:
    sources = {
        "time": _Source("time", TIME, "", (), np.dtype("datetime64[ns]")),
        "seq_num": _Source("seq_num", "int64", "", (), np.dtype(np.int64)),
    }
    if with_run:
        uids = tuple(descriptor["run_start"] for descriptor in plan.descriptors)
        sources["run"] = _Source("", "str", "", (), np.dtype(object), uids)
    lazy = {
        name: xr.Variable(("time",), indexing.LazilyIndexedArray(ChunkColumn(plan, rows, source)))
        for name, source in sources.items()
    }
    if len(plan) > MOST_CHUNKS_FOR_INDEX:
        return xr.Coordinates(lazy, indexes={})
    return xr.Coordinates({name: variable.load() for name, variable in lazy.items()})


def _scanned(runs: Runs, stream: str) -> list[str]:
    """Motors that all the runs scanned."""
    of_each = [_scanned_by(start, stream) for start, _ in runs.values()]
    return [name for name in of_each[0] if all(name in names for names in of_each)]


def _scanned_by(start: Mapping[str, Any], stream: str) -> list[str]:
    dimensions = (start.get("hints") or {}).get("dimensions", [])
    names: list[str] = []
    for entry in dimensions if isinstance(dimensions, list) else []:
        if isinstance(entry, list) and len(entry) == 2 and entry[1] == stream:
            names.extend(name for name in entry[0] if isinstance(name, str) and name != "time")
    return names


# -- variables -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """What a variable is read from: a physical column, or constants per descriptor."""

    physical: str
    dtype: str
    key: str
    cell_shape: tuple[int, ...]
    numpy_dtype: np.dtype
    constants: tuple[Any, ...] = ()
    external: bool = False
    stream: str = ""


def _source(
    plan: ChunkPlan,
    rows: _Rows,
    column: TableColumn,
    runs: Runs,
    fill: bool,
) -> _Source:
    key, stream = column.field.key, (plan.descriptors[0].get("name") or "primary")
    if not column.physical:
        constants = tuple(_constant(column.field, d, runs) for d in plan.descriptors)
        return _Source("", column.dtype, key, (), _numpy_dtype(column.dtype), constants)
    if column.external and fill:
        shape, dtype = _claimed(plan, key)
        return _Source(column.physical, "object", key, shape, dtype, (), True, stream)
    if column.dtype == "object":
        block = _common_block(plan, column.physical)
        if block is not None:
            return _Source(column.physical, "array", key, block[0], block[1])
    return _Source(column.physical, column.dtype, key, (), _numpy_dtype(column.dtype))


def _constant(field: Field, descriptor: Mapping[str, Any], runs: Runs) -> Any:
    if field.role in ("run", "descriptor"):
        return descriptor["run_start" if field.role == "run" else "uid"]
    return project(field, *runs[descriptor["run_start"]], descriptor)


def _numpy_dtype(dtype: str) -> np.dtype:
    """Of a variable; nullable integers become floats, other nullable kinds objects."""
    if dtype in ("float64", "int64", "uint64", "bool"):
        return np.dtype(dtype)
    return np.dtype(np.float64) if dtype == "Int64" else np.dtype(object)


def _common_block(plan: ChunkPlan, physical: str) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and dtype of array cells, if they are the same in all chunks."""
    used = np.unique(plan.records["schema"]).tolist()
    kinds = [plan.schemas[place].get(physical) for place in used]
    if not kinds or any(
        k is None or k.name != "array" or k.nulls or k.dtype == "<U" for k in kinds
    ):
        return None
    found: list[Kind] = [kind for kind in kinds if kind is not None]
    if len({kind.shape for kind in found}) > 1:
        return None
    dtypes = {np.dtype(kind.dtype) for kind in found}
    return (found[0].shape, dtypes.pop()) if len(dtypes) == 1 else None


def _claims(plan: ChunkPlan, key: str) -> list[Mapping[str, Any]]:
    return [d["data_keys"][key] for d in plan.descriptors if key in d["data_keys"]]


def _claimed(plan: ChunkPlan, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """What descriptors say of external cells; unknown lengths count as 1."""
    claim = _claims(plan, key)[0]
    shape = tuple(n if isinstance(n, int) else 1 for n in claim.get("shape") or ())
    text = claim.get("dtype_numpy") or claim.get("dtype_str") or "float64"
    try:
        return shape, np.dtype(text)
    except TypeError:
        return shape, np.dtype(np.float64)


def _dims(plan: ChunkPlan, column: TableColumn, inner: int) -> tuple[str, ...]:
    claims = _claims(plan, column.field.key) if column.field.role == "data" else []
    named = claims[0].get("dims") if claims else None
    if isinstance(named, list) and len(named) == inner and len({*named, "time"}) == inner + 1:
        return ("time", *map(str, named))
    return ("time", *(f"{column.name}_dim_{n}" for n in range(inner)))


def _variable_attrs(plan: ChunkPlan, field: Field) -> dict[str, Any]:
    if field.role != "data":
        return {}
    descriptor = next(d for d in plan.descriptors if field.key in d["data_keys"])
    claim = descriptor["data_keys"][field.key]
    found = {n: claim[n] for n in ("units", "source", "precision") if claim.get(n) is not None}
    owner = claim.get("object_name") or next(
        (name for name, keys in descriptor.get("object_keys", {}).items() if field.key in keys),
        None,
    )
    return {**found, **({"object": owner} if owner else {})}


class ChunkColumn(BackendArray):
    """One column of a stream as an array that reads what is indexed.

    Parameters
    ----------
    plan, rows, source
        Where the chunks are, which rows are shown, what is read.
    """

    def __init__(self, plan: ChunkPlan, rows: _Rows, source: _Source) -> None:
        self._plan = plan
        self._rows = rows
        self._source = source
        self.shape = (len(rows), *source.cell_shape)
        self.dtype = source.numpy_dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        wanted, inner = key[0], key[1:]
        places = np.arange(len(self._rows))[wanted]
        single = np.ndim(places) == 0
        flat = np.atleast_1d(places)
        values = self._gather(flat, inner)
        return values[0] if single else values  # type: ignore[no-any-return]

    def _gather(self, places: np.ndarray, inner: tuple[Any, ...]) -> np.ndarray:
        """Cells of some rows, group by group, in the asked order."""
        if not len(places):
            return self._inner(np.empty((0, *self._source.cell_shape), self.dtype), inner)
        order = np.argsort(places, kind="stable")
        numbers = np.searchsorted(self._rows.ends, places[order], side="right")
        out: np.ndarray | None = None
        # Each piece of the ordered places lies in one group.
        for piece in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            number = int(np.searchsorted(self._rows.ends, places[piece[0]], side="right"))
            local = places[piece] - self._rows.begin(number)
            if number in self._rows.taken:
                local = self._rows.taken[number][local]
            block = self._block(self._rows.groups[number])
            part = self._inner(block[_as_slice(local)], inner)
            if out is None:
                out = np.empty((len(places), *part.shape[1:]), self.dtype)
            out[_as_slice(piece)] = part
        assert out is not None
        return out

    def _inner(self, block: np.ndarray, inner: tuple[Any, ...]) -> np.ndarray:
        """Index the cells' own dimensions, one after the other (outer indexing)."""
        for axis in reversed(range(len(inner))):
            block = block[(slice(None),) * (axis + 1) + (inner[axis],)]
        return block

    def _block(self, group: RowGroup) -> np.ndarray:
        blocks = [self._chunk(place) for place in group.places]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _chunk(self, place: int) -> np.ndarray:
        source = self._source
        if not source.physical:
            return self._constant(place)
        names = [source.physical, "filled"] if source.external else [source.physical]
        table = self._plan.read(place, names)
        if source.external:
            self._refuse(place, table)
        if source.dtype == TIME:
            return posix_to_datetime(table.column("time").to_numpy()).tz_localize(None).to_numpy()
        if source.dtype == "array":
            from ..core.chunks import whole
            from ..core.codec import block, field_kind

            kind = field_kind(table.schema.field(source.physical))[0]
            return block(whole(table.column(source.physical)), kind)
        if table.num_columns == 0:
            table = self._plan.read(place, ["seq_num"])
        values = to_pandas(table, source.physical, source.dtype)
        if source.dtype in ("Int64",):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)  # type: ignore[no-any-return]
        if isinstance(values, np.ndarray):
            return values
        out = np.array(values, dtype=object)
        out[np.asarray(values.isna())] = None
        return out

    def _constant(self, place: int) -> np.ndarray:
        record = self._plan.records[place]
        value = self._source.constants[int(record["descriptor"])]
        out = np.empty(int(record["rows"]), dtype=self.dtype)
        if self.dtype == object:
            for row in range(len(out)):
                out[row] = value
        else:
            out[:] = np.nan if value is None else value
        return out

    def _refuse(self, place: int, table: Any) -> None:
        states = cells(table, "filled") if "filled" in table.column_names else []
        key = self._source.key
        if states and all(isinstance(s, dict) and s.get(key) is True for s in states):
            return
        values = (
            cells(table, self._source.physical)
            if self._source.physical in table.column_names
            else []
        )
        reference = next((value for value in values if value is not MISSING), None)
        run = self._plan[place].descriptor["run_start"]
        raise cannot_fill(run, self._source.stream, key, reference)


def _as_slice(places: np.ndarray) -> Any:
    """A slice where the rows are consecutive, so that no copy is made."""
    if len(places) and places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
