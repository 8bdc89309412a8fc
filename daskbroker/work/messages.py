"""Decoding of the messages that bluesky's 0MQ publisher sends.

A message consists of a prefix, the name of the document and the serialized document, separated by
spaces. The publisher's default serializer is pickle, and any pickle can run code where it is
loaded. This module makes only plain values, arrays and a few types of the standard library of it.
Nothing that a message names is imported or called.
"""

from __future__ import annotations

import collections
import datetime
import io
import pickle
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..core.dtypes import plain_dtype
from ..core.errors import DaskbrokerError
from ..core.json_text import from_extended_json
from ..core.plain_msgpack import unpackb
from ..core.validate import NAMES
from .recordings import msgpack_array


class BadMessage(DaskbrokerError, ValueError):
    """Raised for a message that does not hold a document."""


def decoded(
    message: bytes, serializer: str = "pickle", prefix: bytes = b""
) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the document of a message.

    Parameters
    ----------
    message
        Bytes as :class:`bluesky.callbacks.zmq.Publisher` sends them.
    serializer
        Serializer of the document, one of :data:`SERIALIZERS`.
    prefix
        Prefix that the message must have. Any prefix is taken if empty.

    Returns
    -------
    tuple of (str, dict) or None
        None if the message has another prefix.

    Raises
    ------
    BadMessage
        If the message does not hold a document, or a pickle names a type that documents lack.
    """
    parts = message.split(b" ", 2)
    # A message of another program at this address.
    if len(parts) != 3:
        raise BadMessage(f"it is not a prefix, a name and a document: {message[:40]!r}")
    given, label, body = parts
    # Another publisher's messages may arrive at the same address.
    if prefix and given != prefix:
        return None
    name = label.decode("utf8", "replace")
    if name not in NAMES:
        raise BadMessage(f"{name[:40]!r} is not the name of a document")
    try:
        doc = SERIALIZERS[serializer](body)
    except BadMessage as error:
        raise BadMessage(f"a {name} with what cannot be taken: {error}") from None
    # With damaged bytes the parsers may raise almost any exception.
    except Exception as error:
        raise BadMessage(
            f"a {name} that {serializer} cannot read: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(doc, dict):
        raise BadMessage(f"a {name} that is not a mapping but a {type(doc).__name__}")
    return name, doc


# -- pickle ----------------------------------------------------------------------------------


def _from_pickle(body: bytes) -> Any:
    unpickler = _Unpickler(io.BytesIO(body))
    value = unpickler.load()
    return _with_arrays(value) if unpickler.has_arrays else value


class _Unpickler(pickle.Unpickler):
    """An unpickler with a fixed substitute for each name that it knows; it never imports any.

    NumPy's own functions trust the state that they are given, down to addresses in memory.
    Therefore arrays are made from their bytes here.
    """

    has_arrays = False

    def find_class(self, module: str, name: str) -> Any:
        # Names of both NumPy 1 and 2 occur, by the version of the publisher.
        if module in ("numpy._core.multiarray", "numpy.core.multiarray"):
            if name == "_reconstruct":
                # Arrays are made only after the pickle is read, as their parts come one by one.
                self.has_arrays = True
                return lambda *_: _Array()
            if name == "scalar":
                return _scalar
        elif module in ("numpy._core.numeric", "numpy.core.numeric") and name == "_frombuffer":
            return _array_of
        elif module == "numpy" and name in ("dtype", "ndarray"):
            return _Dtype if name == "dtype" else None
        elif (module, name) in _TYPES:
            return _TYPES[module, name]
        # ophyd's enumerations are subclasses of text or numbers; only their value is taken.
        elif module.partition(".")[0] not in _NO_ENUMERATIONS:
            return _member_of(f"{module}.{name}")
        raise BadMessage(f"{module}.{name} is not a type of documents; it is not called")


_NO_ENUMERATIONS = sys.stdlib_module_names | {"numpy", "pandas", "daskbroker"}
"""Packages whose names in a message are refused. Names of others may be a device's enumeration."""

_TYPES: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("uuid", "UUID"): uuid.UUID,
}


def _member_of(enumeration: str) -> Callable[..., Any]:
    """Return a substitute for an enumeration that gives the value of a member, not the member.

    Events of ophyd-async hold members of enumerations.
    """

    def value_of(*given: Any) -> Any:
        # A member is made from its value alone.
        if len(given) == 1 and isinstance(given[0], (str, int, float)):
            return given[0]
        raise BadMessage(f"{enumeration} is not a type of documents; it is not called")

    return value_of


class _Dtype:
    """A placeholder for a dtype while a pickle is read."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._code = code
        self._order = "="
        self._fields: tuple[Any, Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]
        # A structured dtype has names, fields and bytes in the state.
        if state[3] is not None:
            self._fields = state[3], state[4], state[5]

    def made(self) -> np.dtype:
        # A plain dtype is its code with a byte order.
        if self._fields is None:
            order = self._order if self._order in ("<", ">") else ""
            return plain_dtype(f"{order}{self._code}")
        names, fields, size = self._fields
        return np.dtype({
            "names": list(names),
            "formats": [fields[name][0].made() for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": size,
        })  # fmt: skip


class _Array:
    """A placeholder for an array while a pickle is read."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _array_of(data, dtype, shape, "F" if fortran else "C")


def _array_of(data: object, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    # An array of objects would need further pickles.
    if not isinstance(data, (bytes, bytearray)):
        raise BadMessage("an array of objects")
    return np.frombuffer(data, dtype.made()).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, data: object) -> Any:
    return _array_of(data, dtype, (1,), "C")[0]


def _with_arrays(value: object) -> Any:
    """Return a value with arrays in place of their placeholders."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_arrays, value))
    return value


SERIALIZERS: Mapping[str, Callable[[bytes], Any]] = {
    "pickle": _from_pickle,
    "msgpack": partial(unpackb, object_hook=msgpack_array, strict_map_key=False),
    "json": lambda body: from_extended_json(body.decode()),
}
"""Functions that decode a document, by the names of the serializers."""
