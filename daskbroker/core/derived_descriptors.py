"""Descriptors of streams of which only some fields are kept."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from .clock import seconds_of
from .documents import Document
from .fields import PROJECTIONS, Field, configuration_value, project

_DTYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def derive_descriptor(
    descriptor: Mapping[str, Any],
    fields: Sequence[Field],
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
) -> tuple[Document, dict[str, Any], dict[str, float]]:
    """Return the descriptor of a stream of which only some fields are kept.

    Its uid is a function of the parent's uid and the selection, so it is always the same; the
    parent is named under ``derived_from``. If nothing changes, it is the descriptor itself.

    Parameters
    ----------
    descriptor
        Descriptor of the whole stream.
    fields
        Fields to keep, see :func:`~.fields.select`.
    start, stop
        Start and stop document of the run, for projections; stop is None while it goes on.

    Returns
    -------
    descriptor : Document
    data, timestamps : dict
        Values and timestamps of the constant columns to add to each event.
    """
    chosen = [field.key for field in fields if field.role == "data"]
    parts = [field for field in fields if field.role in PROJECTIONS]
    kept = {key: value for key, value in descriptor["data_keys"].items() if key in set(chosen)}
    # Nothing is left out or added, so descriptor and uid stay as they are.
    if len(kept) == len(descriptor["data_keys"]) and not parts:
        return Document(descriptor), {}, {}
    data: dict[str, Any] = {}
    stamps: dict[str, float] = {}
    for field in parts:
        value = project(field, start, stop, descriptor)
        data[field.name] = value
        stamps[field.name] = _stamp(field, start, stop, descriptor)
        kept[field.name] = {
            "source": field.name,
            "dtype": "array" if isinstance(value, list) else _DTYPES.get(type(value), "string"),
            "shape": [len(value)] if isinstance(value, list) else [],
        }
    selection = json.dumps([sorted(kept), [[f.role, f.key] for f in parts]])
    derived = {
        **descriptor,
        "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"daskbroker:{descriptor['uid']}:{selection}")),
        "data_keys": kept,
        "derived_from": descriptor["uid"],
    }
    for key in ("object_keys", "hints"):
        if isinstance(descriptor.get(key), Mapping):
            derived[key] = _prune(descriptor[key], kept)
    return Document(derived), data, stamps


def _prune(objects: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``object_keys`` or ``hints`` with only the data keys that are kept."""
    out: dict[str, Any] = {}
    for device, value in objects.items():
        if isinstance(value, list):
            out[device] = _names_kept(value, kept)
        elif isinstance(value, Mapping) and isinstance(value.get("fields"), list):
            out[device] = {**value, "fields": _names_kept(value["fields"], kept)}
        else:
            out[device] = value
    return out


def _names_kept(names: Sequence[Any], kept: Mapping[str, Any]) -> list[str]:
    # What is no text, and so no data key, may not even be hashable.
    return [name for name in names if isinstance(name, str) and name in kept]


def _stamp(
    field: Field,
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    descriptor: Mapping[str, Any],
) -> float:
    # A run in progress has no stop yet.
    if field.role == "stop" and stop is not None:
        return seconds_of(stop, 0.0)
    if field.role == "config":
        found = configuration_value(descriptor, field.key)
        # Configuration without a time of its own was read when the descriptor was made.
        stamp = None if found is None else found[1]
        return seconds_of(descriptor, 0.0) if stamp is None else float(stamp)
    return seconds_of(start, 0.0)
