"""Turn the options ``missing=`` and ``fill_value=`` into the rules of a filling."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from ..assets.filling.common_cells import common_cells
from ..assets.filling.filling import Filling
from ..assets.filling.missing import MissingMode, Rule, filler, is_mode
from ..assets.filling.target import Target
from ..assets.shapes import HAVE_MISSING, Declared, Mismatch
from ..core.errors import BadQuery, FieldNotFound
from ..core.external import external_keys
from ..core.name_lists import listed
from ..core.run_plan import RunPlan


def check_asked(missing: Any, fill_value: Any, *, fill: bool) -> None:
    """Check ``missing=`` and ``fill_value=`` before anything is planned.

    Raises
    ------
    BadQuery
        If an option is not valid, or if options exclude each other; the message says what to
        write instead.
    """
    if missing is not None and not is_mode(missing):
        modes = ", ".join(map(repr, get_args(MissingMode)))
        hint = ""
        if not isinstance(missing, str) and np.ndim(missing) == 0:
            hint = f"; a value is written fill_value={missing!r}"
        raise BadQuery(f"missing must be {modes} or None, not {missing!r:.100}{hint}")
    if not fill and (missing is not None or fill_value is not None):
        name = "fill_value" if missing is None else "missing"
        raise BadQuery(
            f"{name}= says what is filled in where a frame is missing, and fill=False fills "
            f"nothing: write fill=True, or leave {name}= out"
        )
    if isinstance(fill_value, Mapping):
        return
    if fill_value is not None and missing is not None:
        raise BadQuery(
            f"missing={missing!r} and fill_value={fill_value!r:.100} exclude each other: write one "
            "of them, or fill_value={key: value} for some keys and missing= for the others"
        )
    if np.ndim(fill_value):
        raise BadQuery(f"fill_value is one value, or {{key: value}}, not {fill_value!r:.100}")


def check_fill_names(fill_value: Any, descriptors: Iterable[Mapping[str, Any]]) -> None:
    """Check that all keys of a mapping ``fill_value`` are external keys of the descriptors.

    Raises
    ------
    FieldNotFound
        If a key is not external in any descriptor.
    """
    if not isinstance(fill_value, Mapping):
        return
    there = dict.fromkeys(key for d in descriptors for key in external_keys(d))
    for name in fill_value:
        if name not in there:
            shown = listed(there, str(name)) if there else "none"
            raise FieldNotFound(
                f"fill_value names {name!r:.100}, which is not an external key; there are: {shown}"
            )


def for_keys(fill_value: Any, descriptors: Sequence[Mapping[str, Any]]) -> Any:
    """Return the part of ``fill_value`` that concerns the external keys of the descriptors.

    A single value is returned unchanged.
    """
    if not isinstance(fill_value, Mapping):
        return fill_value
    there = {key for d in descriptors for key in external_keys(d)}
    return {key: value for key, value in fill_value.items() if key in there}


def with_rules(
    filling: Filling,
    plan: RunPlan,
    missing: MissingMode | None,
    fill_value: Any,
    *,
    keys: Collection[str] | None,
    dtypes: Mapping[str, Any],
) -> Filling:
    """Return the filling with a rule for the missing cells of each external key.

    Parameters
    ----------
    filling, plan
        Filling and plan of the same runs, after their files have been peeked at.
    missing, fill_value
        Options as the user gave them. If both are None, `filling` is returned unchanged.
    keys
        Data keys that get a rule; all if None.
    dtypes
        Requested dtypes by data key or by column name (``data:<key>``).

    Raises
    ------
    BadQuery
        If a dtype cannot hold the fill value, or has no NaN and ``missing="nan"``.
    """
    if missing is None and fill_value is None:
        return filling
    rule_of_mode = Rule() if missing is None else Rule(missing, missing)
    rules: dict[tuple[str, str], Rule] = {}
    for stream in plan.streams:
        part = plan.of_stream(stream)
        there = dict.fromkeys(key for d in part.descriptors for key in external_keys(d))
        if isinstance(fill_value, Mapping):
            values = fill_value
        else:
            values = {} if fill_value is None else dict.fromkeys(there, fill_value)
        for key in [key for key in there if keys is None or key in keys]:
            target = Target.of(part.descriptors[0], key)
            dtype = dtypes.get(key, dtypes.get(f"data:{key}"))
            if key in values:
                declared = common_cells(part.events, key, filling, dtype)
                rule = _fill(target, values[key], declared)
            else:
                rule = rule_of_mode
            if rule.lost == "nan" and dtype is not None:
                _check_has_nan(target, np.dtype(dtype))
            rules[target.stream, key] = rule
    return replace(filling, rules=rules)


def _fill(target: Target, value: object, declared: Declared) -> Rule:
    try:
        return Rule("fill", "fill", filler(value, declared.dtype), declared)
    except Mismatch as error:
        instead = "missing='nan'" if value != value else f"dtypes={{{target.key!r}: dtype}}"
        raise BadQuery(
            f"{target.where}: fill_value={value!r:.100} does not fit cells of {declared.dtype} "
            f"({error}); {instead} makes another dtype of them in a dataset"
        ) from None


def _check_has_nan(target: Target, dtype: np.dtype) -> None:
    if dtype.kind not in HAVE_MISSING:
        raise BadQuery(
            f"{target.where}: dtypes asks for {dtype}, which has no NaN, and missing='nan' for it: "
            f"write dtypes={{{target.key!r}: 'float32'}}, or missing='drop', or fill_value=0"
        )
