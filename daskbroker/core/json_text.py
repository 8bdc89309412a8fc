"""Documents as JSON text: for other programs, and losslessly in the columns of chunks.

Bytes and UUIDs have no form in JSON. For other programs they are written in MongoDB's Extended
JSON, ``{"$binary": {"base64": …, "subType": "00"}}`` and ``{"$uuid": …}``. In a column they are
marked by keys that begin with NUL, so that no mapping of a user is mistaken for one; the notes of
a column say whether it has such marks, see :mod:`daskbroker.core.codec`.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import numpy as np

BYTES, UUID = "\0bytes", "\0uuid"
MARK = '"\\u0000'
"""Beginning of a key that begins with NUL, in JSON text."""


def json_form(value: Any) -> Any:
    """Return the JSON-like form of a value that JSON lacks; a ``default`` for :func:`json.dumps`.

    Bytes and UUIDs get their form of Extended JSON, arrays become lists, NumPy scalars numbers.

    Raises
    ------
    TypeError
        If the value has no such form.
    """
    if isinstance(value, bytes):
        return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": "00"}}
    if isinstance(value, uuid.UUID):
        return {"$uuid": str(value)}
    return _array_form(value)


def _array_form(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    cls = type(value)
    raise TypeError(f"a {cls.__module__}.{cls.__qualname__} cannot be converted to JSON")


def to_json(value: Any) -> str:
    """Return a normalized value as JSON text in Python's dialect, which has NaN and Infinity."""
    return json.dumps(value, separators=(",", ":"), default=json_form)


def from_json(text: str) -> Any:
    """Return the value of a JSON text, which may have NaN and Infinity."""
    return json.loads(text)


def from_extended_json(text: str) -> Any:
    """Return the value of another program's JSON text, with Extended JSON's bytes and UUIDs."""
    if '"$binary"' in text or '"$uuid"' in text:
        return json.loads(text, object_hook=_of_form)
    return json.loads(text)


def _of_form(mapping: dict[str, Any]) -> Any:
    """Return bytes or a UUID if the mapping is the form of one, else the mapping."""
    if len(mapping) == 1:
        inside = mapping.get("$binary")
        try:
            if "$uuid" in mapping:
                return uuid.UUID(mapping["$uuid"])
            if isinstance(inside, dict) and inside.keys() == {"base64", "subType"}:
                return base64.b64decode(inside["base64"], validate=True)
        except (ValueError, TypeError, AttributeError):
            pass
    return mapping


# -- exactly ---------------------------------------------------------------------------------


def marked_json(value: Any) -> str:
    """Return a normalized value as JSON text that :func:`of_marked_json` turns back exactly."""
    text = json.dumps(value, separators=(",", ":"), default=_marked)
    if has_marks(text):  # the marks may also be keys of the user, which are escaped then
        text = json.dumps(_escaped(value), separators=(",", ":"), default=_marked)
    return text


def has_marks(text: str) -> bool:
    """Return whether a text of :func:`marked_json` needs :func:`of_marked_json` to be read."""
    return MARK in text


def of_marked_json(text: str) -> Any:
    """Return the value that :func:`marked_json` was given."""
    return json.loads(text, object_hook=_unmarked)


def _marked(value: object) -> Any:
    if isinstance(value, bytes):
        return {BYTES: base64.b64encode(value).decode()}
    if isinstance(value, uuid.UUID):
        return {UUID: value.hex}
    return _array_form(value)


def _escaped(value: object) -> Any:
    """Return the value with another NUL before each key that begins with one."""
    if isinstance(value, dict):
        return {("\0" + k if k.startswith("\0") else k): _escaped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


def _unmarked(mapping: dict[str, Any]) -> Any:
    if len(mapping) == 1:
        ((key, value),) = mapping.items()
        if key == BYTES:
            return base64.b64decode(value)
        if key == UUID:
            return uuid.UUID(value)
    return {(k[1:] if k.startswith("\0") else k): v for k, v in mapping.items()}
