"""The JSON-like form of what callers give: private plain copies, or errors that name the path."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from .errors import BadDocument
from .field_rows import array_of_rows, lists_of, structured_rows
from .frozen import ArrayList


def normalize(
    value: Any, where: str = "document", *, arrays: bool = False, rows: bool = False
) -> Any:
    """Return a private plain copy of a JSON-like value.

    Mappings become dicts, tuples and subclasses of list become lists, NumPy scalars Python
    scalars, NumPy arrays lists (or, with ``arrays=True``, contiguous private arrays), and the
    masked cells of a masked array ``None``. Structured arrays become lists of rows, as do tables
    of ophyd-async (or, with ``rows=True``, structured arrays). Enum members become their values.
    Bytes and UUIDs are kept.

    Parameters
    ----------
    value
        Value that the caller gave.
    where
        Name of the value for messages, for example ``"start 3a8f…"``.
    arrays
        Whether to keep numeric and boolean arrays of one or more dimensions, unless they are
        empty, as NumPy arrays in native byte order; the codec of chunks takes them as they are.
        float16 becomes float32. A list that remembers its array (:class:`~.frozen.ArrayList`)
        is one.
    rows
        Whether to keep structured arrays and tables as structured arrays, of fields without gaps
        in native byte order; ``arrays`` implies it. Fields of masked or other values are of
        objects.

    Raises
    ------
    BadDocument
        If a value has no JSON-like form (sets, datetimes, tables, complex numbers, objects), an
        integer has more than 2048 bits, a key is not valid text, or there are more than
        `MAX_DOCUMENT_DEPTH` levels. The message names the path to it.
    """
    try:
        return _normalize(value, _ALL if arrays else _ROWS if rows else _NONE, MAX_DOCUMENT_DEPTH)
    except _NoSuchForm as error:
        path = ".".join([where, *reversed(error.path)])
        raise BadDocument(f"{path}: {error}") from None
    # It says nothing about the value.
    except MemoryError:
        raise
    except Exception as error:  # any error of an object that acts as a mapping, list or number
        raise BadDocument(f"{where}: a value cannot be read: {_named(error)}") from error


_NONE, _ROWS, _ALL = range(3)
"""Which arrays are kept as arrays: none, structured ones, or all."""

_ATOMS = frozenset({float, str, bool, type(None), bytes, uuid.UUID})
_PLAIN = _ATOMS | {int}

MAX_DOCUMENT_DEPTH = 50
"""Maximum number of levels of lists and mappings in a document. The limit of NumPy and Arrow is 64,
that of MongoDB 100; Python's own stack ends somewhere beyond."""

LARGEST_INTEGER = 2**2048
"""Bound of the size of integers: 617 digits. Python's limit for their conversion to text can be set
as low as 640 digits."""


_WORD = 2**63
"""Bound of the size of integers that are accepted without a look at the bound."""


class _NoSuchForm(Exception):
    """A value without a JSON-like form; each level adds its key to the path as it unwinds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


def _normalize(value: Any, arrays: int, levels: int) -> Any:
    kind = type(value)
    # First what most cells of events are.
    if kind in _ATOMS:
        return value
    if kind is int:
        return _checked_integer(value)
    if levels == 0:
        raise _NoSuchForm(f"nested deeper than {MAX_DOCUMENT_DEPTH} levels")
    if kind is not dict and isinstance(value, (list, tuple)):
        return _normalize_list(value, arrays, levels)
    if kind is dict or isinstance(value, Mapping):  # a slow check, so the common type goes first
        out = {}
        for key, item in value.items():
            # Text of ASCII alone needs no check for lone surrogates.
            if type(key) is not str or not key.isascii():
                key = _key(key)
            # Scalars are taken here, without a call for each: they are most of a document.
            if type(item) in _ATOMS or (type(item) is int and -_WORD < item < _WORD):
                out[key] = item
                continue
            try:
                out[key] = _normalize(item, arrays, levels - 1)
            # The path is put together while the error passes the levels, and costs nothing
            # otherwise.
            except _NoSuchForm as error:
                error.path.append(key)
                raise
        return out
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return _normalize_array(value, arrays, levels)
    return _normalize_rare(value, arrays, levels)


def _normalize_list(value: Sequence[Any], arrays: int, levels: int) -> Any:
    # It remembers its array, so nothing is converted again.
    if isinstance(value, ArrayList) and (arrays == _ALL or (arrays and value.dtype.names)):
        return value.array()
    types = set(map(type, value))
    if types <= _PLAIN:  # whole columns of pages
        if int in types:
            _check_integers(value, types)
        return list(value)
    return [_normalize(item, arrays, levels - 1) for item in value]


def _normalize_rare(value: Any, arrays: int, levels: int) -> Any:
    """Normalize a value that is neither of a plain type, nor a list, a mapping or an array."""
    if isinstance(value, Enum):
        return _normalize(value.value, arrays, levels)
    # Subclasses, such as numpy.str_ or an IntEnum of old, become the plain type.
    for base in (int, float, str):
        if isinstance(value, base):
            return _normalize(base(value), arrays, levels)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, uuid.UUID):
        return uuid.UUID(int=value.int)
    if callable(getattr(value, "numpy_table", None)):
        table = _structured_table(value)
        return _normalize(lists_of(table) if arrays == _NONE else table, arrays, levels)
    advice = next((advice for kind, advice in _ADVICE if isinstance(value, kind)), "")
    if isinstance(getattr(value, "uid", None), str):  # a Header
        advice = "write its uid, or "
    raise _NoSuchForm(
        f"a {type(value).__module__}.{type(value).__qualname__} is no JSON-like value; {advice}"
        "use numbers, text, booleans, None, bytes, UUIDs, lists, arrays and mappings of these"
    )


_ADVICE_TABLE = "write table.to_dict('list'), or insert it as a run by table_to_stream"
_ADVICE: tuple[tuple[Any, str], ...] = (
    (PurePath, "write str(path), or "),
    (datetime, "write its isoformat(), or timestamp() where seconds are needed, or "),
    (date, "write its isoformat(), or "),
    (timedelta, "write its total_seconds(), or "),
    ((set, frozenset), "write sorted(…), or "),
)
"""What to write in place of common values that have no JSON-like form, by type."""


def _checked_integer(value: int) -> int:
    if not -LARGEST_INTEGER < value < LARGEST_INTEGER:
        raise _NoSuchForm(f"an integer of {value.bit_length()} bits; at most 2048 are possible")
    return value


def _check_integers(values: Sequence[Any], types: set[type]) -> None:
    ints = values if types == {int} else [value for value in values if type(value) is int]
    _checked_integer(min(ints))
    _checked_integer(max(ints))


def _key(key: object) -> str:
    if isinstance(key, Enum) and isinstance(key.value, str):
        key = key.value
    if not isinstance(key, str):
        raise _NoSuchForm(f"the key {key!r} is of type {type(key).__name__}; keys must be text")
    if not is_unicode(key):
        raise _NoSuchForm(f"the key {key!r} is no valid Unicode text")
    return str(key)


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, which neither Arrow nor UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _normalize_array(value: object, arrays: int, levels: int) -> Any:
    # The array of a table has neither the names of its columns nor its index.
    if not isinstance(value, (np.ndarray, np.generic)) and hasattr(value, "columns"):
        raise _NoSuchForm(f"a {type(value).__name__} is no JSON-like value; {_ADVICE_TABLE}")
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    # Any error of an object that says it is an array.
    except Exception as error:
        raise _NoSuchForm(f"a {type(value).__name__} makes no array: {_named(error)}") from error
    kind, size = array.dtype.kind, array.dtype.itemsize
    if not _has_form(array.dtype):
        what = "an array" if array.ndim else "a value"
        raise _NoSuchForm(f"{what} of dtype {array.dtype} has no JSON-like form")
    if array.dtype.names:
        found, dtype = structured_rows(value if isinstance(value, np.ma.MaskedArray) else array)
        found = _normalize(found, _NONE, levels)
        return found if arrays == _NONE else array_of_rows(found, dtype, array.shape)
    # Masked cells become None; without any, the plain array does.
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return _normalize(value.tolist(), arrays, levels)
    # Scalars, empty arrays and other dtypes have no form as blocks of numbers.
    if array.ndim == 0 or arrays != _ALL or kind not in "biuf" or array.size == 0:
        return _normalize(array.tolist(), arrays, levels)
    native = array.dtype.newbyteorder("=")
    # Arrow's half floats are not read by all programs; float32 holds all of them.
    if kind == "f" and size == 2:
        native = np.dtype("f4")
    return np.array(array, dtype=native, order="C", copy=True)


def _has_form(dtype: np.dtype) -> bool:
    """Return whether a dtype, or each of its fields, has numbers, text, bytes or objects.

    Floats of more than 64 bits are excluded.
    """
    if dtype.subdtype is not None:
        return _has_form(dtype.subdtype[0])
    if dtype.names is not None:
        # Each of the fields decides, at any depth.
        return all(_has_form(dtype[name]) for name in dtype.names)
    return dtype.kind in "biuUSO" or (dtype.kind == "f" and dtype.itemsize <= 8)


def _structured_table(table: Any) -> np.ndarray:
    """Return a ``Table`` of ophyd-async, which is made of columns, as a structured array.

    Its own ``numpy_table`` is not used, because it truncates text.
    """
    columns = [(str(name), _column_of_table(column)) for name, column in table]
    rows = {len(column) for _, column in columns}
    if len(rows) > 1:
        raise _NoSuchForm("a table has columns of different lengths")
    found = np.empty(rows.pop() if rows else 0, [(n, c.dtype, c.shape[1:]) for n, c in columns])
    for name, column in columns:
        found[name] = column
    return found


def _column_of_table(column: Any) -> np.ndarray:
    if isinstance(column, np.ndarray):
        return column
    values = [item.value if isinstance(item, Enum) else item for item in column]
    # NumPy's fixed-width text drops trailing null characters.
    if all(isinstance(item, str) and not item.endswith("\0") for item in values):
        return np.array(values, str)
    return np.fromiter(values, object, len(values))
