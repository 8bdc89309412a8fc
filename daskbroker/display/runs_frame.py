"""Lists of runs as a pandas DataFrame: the columns of a listing, and any metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..core.bad_runs import BadRun
from ..core.batches import batched
from ..core.clock import seconds_of, zone_of
from ..core.documents import is_unicode, plain
from ..core.errors import BadQuery, FieldNotFound
from ..core.fields import PROJECTIONS, Field, MetadataOfRuns, project
from ..core.schema import posix_to_datetime
from ..core.search import is_derived
from .facts import duration_of, motors_of, points_of, sample_of

if TYPE_CHECKING:
    from ..broker import DataBroker
    from ..header import Header

BATCH = 500
"""Number of runs whose descriptors are looked up together."""

RUN_COLUMNS = {
    "uid": lambda start, stop: start.get("uid"),
    "scan_id": lambda start, stop: start.get("scan_id"),
    "time": lambda start, stop: seconds_of(start),
    "plan_name": lambda start, stop: start.get("plan_name"),
    "sample": lambda start, stop: sample_of(start) or None,
    "motors": lambda start, stop: ", ".join(motors_of(start)),
    "points": lambda start, stop: points_of(start, stop)[0],
    "duration": duration_of,
    "exit_status": lambda start, stop: (stop or {}).get("exit_status"),
    "derived": lambda start, stop: is_derived(start),
}
"""Functions from start and stop to the value of each column of a listing."""

HEADS = {"plan": "plan_name", "status": "exit_status"}
"""Columns of which a listing has a shorter head."""

Columns = dict[str, list[Any]]


def runs_frame(
    db: DataBroker,
    headers: Iterable[Header],
    fields: Any,
    leave_out: Callable[[Mapping[str, BadRun]], None],
) -> pd.DataFrame:
    """Return a DataFrame with one row per run; see :meth:`daskbroker.Results.to_dataframe`.

    ``leave_out`` is called with the runs, by uid, of which a needed descriptor cannot be read. They
    have no row.
    """
    wanted = _wanted(fields)
    columns: Columns = {name: [] for name in wanted}
    metadata = MetadataOfRuns()
    projected = [field for field in wanted.values() if field is not None]
    for batch in batched(headers, BATCH):
        leave_out(_add(db, batch, wanted, columns))
        for header in batch:
            metadata.look(projected, header.start, header.known_stop)
    metadata.check()
    _check_configuration(wanted, columns)
    return pd.DataFrame({name: _column(db, name, values) for name, values in columns.items()})


def _wanted(fields: Any) -> dict[str, Field | None]:
    """Return the projection of each column; None for the columns of a listing."""
    if fields is None:
        return dict.fromkeys(RUN_COLUMNS)
    is_several = isinstance(fields, Iterable) and not isinstance(fields, str)
    names = list(fields) if is_several else [fields]
    found: dict[str, Field | None] = {"uid": None}
    for name in names:
        if not isinstance(name, str) or not name:
            raise BadQuery(
                f"fields takes names such as 'scan_id', 'start:sample.name', not {name!r:.100}"
            )
        space, sign, path = name.partition(":")
        if HEADS.get(name, name) in RUN_COLUMNS:
            found[name] = None
        elif sign and space in PROJECTIONS and path:
            found[name] = Field(space, path, name)
        else:
            found[name] = Field("start", name, name)
    return found


def _add(
    db: DataBroker,
    batch: Sequence[Header],
    wanted: Mapping[str, Field | None],
    columns: Columns,
) -> dict[str, BadRun]:
    """Add the values of some runs to the columns; return the runs, by uid, that are left out."""
    configured = any(field and field.role == "config" for field in wanted.values())
    descriptors, bad = _descriptors(db, batch) if configured else ({}, {})
    for header in batch:
        if header.uid in bad:
            continue
        for name, field in wanted.items():
            if field is None:
                value = RUN_COLUMNS[HEADS.get(name, name)](header.start, header.known_stop)
            else:
                value = _projected(field, header, descriptors.get(header.uid, ()))
            columns[name].append(value)
    return bad


def _projected(field: Field, header: Header, descriptors: Sequence[Mapping[str, Any]]) -> Any:
    if field.role != "config":
        return plain(project(field, header.start, header.known_stop, {}))
    for descriptor in descriptors:
        value = project(field, header.start, header.known_stop, descriptor)
        if value is not None:
            return plain(value)
    return None


def _descriptors(
    db: DataBroker, batch: Sequence[Header]
) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, BadRun]]:
    """Return the descriptors of some runs, and the runs with one that cannot be read, by uid."""
    uids = [header.uid for header in batch]
    found: dict[str, list[Mapping[str, Any]]] = {}
    bad: dict[str, BadRun] = {}
    for source in db.event_sources.values():
        for one in source.store.list_descriptors(uids):
            if isinstance(one, BadRun):
                bad[str(one.uid)] = one
            else:
                found.setdefault(one["run_start"], []).append(one)
    return found, bad


def _check_configuration(wanted: Mapping[str, Field | None], columns: Columns) -> None:
    """Raise FieldNotFound for configuration that no run has, rather than give an empty column."""
    for name, field in wanted.items():
        values = columns[name]
        if field and field.role == "config" and values and all(value is None for value in values):
            raise FieldNotFound(
                f"none of {len(values):,} runs has the configuration {name!r:.200}; use "
                "config:<device>:<key>"
            )


def _column(db: DataBroker, name: str, values: list[Any]) -> Any:
    if name == "time":
        # Documents of any writer may hold times that no datetime64 has: they become NaT.
        return posix_to_datetime(np.array(values, float)).tz_convert(zone_of(db.timezone))
    if name == "duration":
        # Those that no timedelta64 has, of times of any writer, become NaT.
        return pd.to_timedelta(np.array(values, dtype=float), unit="s", errors="coerce")
    if name == "points":
        return pd.array([v if v is not None and abs(v) < 2**63 else None for v in values], "Int64")
    made = pd.Series(np.fromiter(values, object, len(values)), dtype=object)
    held = all(is_unicode(value) for value in values if isinstance(value, str))
    return made.infer_objects() if held else made  # pandas' text has no lone surrogates
