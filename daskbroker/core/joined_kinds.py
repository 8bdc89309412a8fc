"""Kinds of the columns of a chunk, made of the kinds that two parts of its rows have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .arrays import array_form
from .column_kinds import ColumnKind
from .dtypes import fields_dtype, fields_text
from .field_rows import common_of


def joined_kinds(
    one: Mapping[str, ColumnKind], other: Mapping[str, ColumnKind]
) -> dict[str, ColumnKind]:
    """Return the kinds that the columns of a chunk have, from those of two parts of its rows."""
    return {name: _joined(one.get(name), other.get(name)) for name in {**one, **other}}


def _joined(one: ColumnKind | None, other: ColumnKind | None) -> ColumnKind:
    nulls = any(kind is None or kind.nulls for kind in (one, other))
    found = [kind for kind in (one, other) if kind is not None and kind.name != "null"]
    names = {kind.name for kind in found}
    if not found:
        return ColumnKind("null", True)
    if len(found) == 1 or found[0] == found[1]:
        return replace(found[0], nulls=nulls)
    if "rows" in names:
        return _rows(found, nulls=nulls)
    if names <= {"int", "long"}:
        return ColumnKind("long", nulls)
    if names <= {"int", "float", "number"}:
        return ColumnKind("number", nulls)
    if len(names) == 1 and not (found[0].dtype or found[1].dtype):
        return replace(found[0], nulls=nulls)
    form = array_form(found)
    if form is None:
        return ColumnKind("json", nulls)
    return ColumnKind("json", nulls, form.leaf, form.shape or ())


def _rows(kinds: list[ColumnKind], *, nulls: bool) -> ColumnKind:
    if any(kind.name != "rows" or not kind.dtype for kind in kinds):
        return ColumnKind("rows", nulls)
    common = common_of(fields_dtype(kind.dtype) for kind in kinds)
    if common is None:
        return ColumnKind("rows", nulls)
    shapes = {kind.shape for kind in kinds}
    return ColumnKind("rows", nulls, fields_text(common), shapes.pop() if len(shapes) == 1 else ())
