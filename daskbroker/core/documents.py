"""Documents: immutable mappings of JSON-like values, bytes and UUIDs.

The vocabulary is event-model's (https://blueskyproject.io/event-model). A document that comes in
goes through :func:`normalize`, which makes a private, plain copy of what the caller gave (so that
reusing a dict or array after ``insert`` changes nothing). A document that is returned is a
:class:`Document`.
"""

from __future__ import annotations

import html
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import msgpack
import numpy as np

from .checksum import with_checksum, without_checksum
from .dtypes import fields_dtype, fields_text, plain_dtype
from .errors import BadDocument
from .field_rows import array_of_rows, lists_of, structured_rows
from .frozen import FROZEN, ArrayList, FrozenDict, FrozenList, freeze, to_pickle
from .json_text import from_json, to_json
from .plain_msgpack import Unpacker, packb, unpackb

__all__ = [
    "ALL",
    "Document",
    "NamedDocument",
    "as_lists",
    "equal",
    "from_json",
    "frozen_document",
    "is_unicode",
    "normalize",
    "pack",
    "plain",
    "show_by",
    "to_json",
    "unpack",
    "unpack_document",
]

NamedDocument = tuple[str, "Document"]
"""Item of a stream of documents: ``(name, doc)``."""


class _All:
    """Sentinel: every stream of a run."""

    _instance: _All | None = None

    def __new__(cls) -> _All:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "ALL"

    def __reduce__(self) -> str:
        return "ALL"


ALL = _All()


class Document(FrozenDict):
    """An immutable mapping with attribute access.

    It is a subclass of :class:`dict`, so it equals the plain dict of the same content, can be
    passed to :func:`json.dumps`, and passes ``isinstance(doc, dict)`` checks. ``doc.plan_name`` is
    ``doc["plan_name"]``; a nested mapping that is read as an attribute is a Document too. It
    equals a dict that holds tuples or NumPy values if their JSON-like forms are equal.

    Its content is immutable too: nested mappings are :class:`~.frozen.FrozenDict`, lists are
    :class:`~.frozen.FrozenList` (subclasses of dict and list), and arrays are not writeable.
    Copies can be changed; they are plain dicts and lists at every level: :func:`copy.deepcopy`
    copies arrays too, :func:`copy.copy` and ``doc.copy()`` share them, ``doc.to_dict()`` turns
    them into lists. ``dict(doc)`` is not such a copy: its values are the document's own.

    Raises
    ------
    TypeError
        If the document or its content is to be changed.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        dict.__init__(self, *args, **kwargs)
        for key, value in self.items():
            if type(value) not in FROZEN:
                dict.__setitem__(self, key, freeze(value))

    def __getattr__(self, key: str) -> Any:
        try:
            value = self[key]
        except KeyError:
            raise AttributeError(f"this document has no key {key!r}") from None
        return Document(value) if type(value) is FrozenDict else value

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(k for k in self if k.isidentifier())]

    def __eq__(self, other: object) -> bool:
        return equal(self, other) if isinstance(other, Mapping) else NotImplemented

    def __ne__(self, other: object) -> bool:
        result = self.__eq__(other)
        return result if result is NotImplemented else not result

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return (Document, (to_pickle(self),))

    def to_dict(self) -> dict[str, Any]:
        """Return a deep, plain copy that can be changed; arrays become lists."""
        return plain(self)

    def __repr__(self) -> str:
        return f"Document({dict.__repr__(self)})"

    def _repr_html_(self) -> str:
        return _as_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        first, *others = _as_text(self).split("\n")
        printer.text(first)
        for line in others:
            printer.break_()
            printer.text(line)


_as_html: Callable[[Mapping[str, Any]], str] = lambda document: html.escape(repr(document))  # noqa: E731
_as_text: Callable[[Mapping[str, Any]], str] = repr


def show_by(
    as_html: Callable[[Mapping[str, Any]], str], as_text: Callable[[Mapping[str, Any]], str]
) -> None:
    """Set how notebooks and IPython show documents; the package calls this at import."""
    global _as_html, _as_text
    _as_html, _as_text = as_html, as_text


def frozen_document(content: Any) -> Document:
    """Return a document of items that are frozen already, without checking each."""
    doc = dict.__new__(Document)
    dict.update(doc, content)
    return doc


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
        If a value has no JSON-like form (sets, datetimes, complex numbers, objects), an integer
        has more than 2048 bits, a key is not valid text, or there are more than `DEEPEST`
        levels. The message names the path to it.
    """
    try:
        return _normalize(value, _ALL if arrays else _ROWS if rows else _NONE, DEEPEST)
    except _NoSuchForm as error:
        path = ".".join([where, *reversed(error.path)])
        raise BadDocument(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # any error of an object that acts as a mapping, list or number
        raise BadDocument(f"{where}: a value cannot be read: {_named(error)}") from error


_NONE, _ROWS, _ALL = range(3)
"""Which arrays are kept as arrays: none, structured ones, or all."""

_ATOMS = frozenset({float, str, bool, type(None), bytes, uuid.UUID})
_PLAIN = _ATOMS | {int}

DEEPEST = 50
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
    if kind in _ATOMS:
        return value
    if kind is int:
        return _checked_integer(value)
    if levels == 0:
        raise _NoSuchForm(f"nested deeper than {DEEPEST} levels")
    if kind is not dict and isinstance(value, (list, tuple)):
        if isinstance(value, ArrayList) and (arrays == _ALL or (arrays and value.dtype.names)):
            return value.array()
        types = set(map(type, value))
        if types <= _PLAIN:  # whole columns of pages
            if int in types:
                _check_integers(value, types)
            return list(value)
        return [_normalize(item, arrays, levels - 1) for item in value]
    if kind is dict or isinstance(value, Mapping):  # a slow check, so the common type goes first
        out = {}
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                key = _key(key)
            if type(item) in _ATOMS or (type(item) is int and -_WORD < item < _WORD):
                out[key] = item
                continue
            try:
                out[key] = _normalize(item, arrays, levels - 1)
            except _NoSuchForm as error:
                error.path.append(key)
                raise
        return out
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return _normalize_array(value, arrays, levels)
    if isinstance(value, Enum):
        return _normalize(value.value, arrays, levels)
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
    raise _NoSuchForm(
        f"a {type(value).__module__}.{type(value).__qualname__} is no JSON-like value; "
        "use numbers, text, booleans, None, bytes, UUIDs, lists, arrays and mappings of these"
    )


def _checked_integer(value: int) -> int:
    if not -LARGEST_INTEGER < value < LARGEST_INTEGER:
        raise _NoSuchForm(f"an integer of {value.bit_length()} bits; at most 2048 are possible")
    return value


def _check_integers(values: Sequence[Any], types: set[type]) -> None:
    ints = values if types == {int} else [value for value in values if type(value) is int]
    _checked_integer(min(ints))
    _checked_integer(max(ints))


def _key(key: Any) -> str:
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


def _normalize_array(value: Any, arrays: int, levels: int) -> Any:
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
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
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return _normalize(value.tolist(), arrays, levels)
    if array.ndim == 0 or arrays != _ALL or kind not in "biuf" or array.size == 0:
        return _normalize(array.tolist(), arrays, levels)
    native = array.dtype.newbyteorder("=")
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
    if all(isinstance(item, str) and not item.endswith("\0") for item in values):
        return np.array(values, str)
    found = np.empty(len(values), object)
    found[:] = values
    return found


def plain(value: Any) -> Any:
    """Return a deep copy made of plain dicts and lists; arrays become lists."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return lists_of(value) if isinstance(value, np.ndarray) else value


def as_lists(value: Any) -> Any:
    """Return a normalized value with its arrays as lists that remember them, at every level."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    if isinstance(value, list) and type(value) is not ArrayList:
        return [as_lists(item) for item in value]
    if isinstance(value, np.ndarray):
        return ArrayList(lists_of(value), value.dtype, value.shape)
    return value


def equal(a: Any, b: Any) -> bool:
    """Return whether two JSON-like values are equal; NaN equals NaN.

    Numbers compare as in Python (``1 == 1.0``), except that booleans equal only booleans.
    """
    if a is b:
        return True
    if isinstance(a, dict) and isinstance(b, Mapping):
        return len(a) == len(b) and all(k in b and equal(v, b[k]) for k, v in a.items())
    if isinstance(a, (np.ndarray, np.generic)):
        a = a.tolist()
    if isinstance(b, (np.ndarray, np.generic)):
        b = b.tolist()
    if isinstance(a, (list, tuple)):
        if not isinstance(b, (list, tuple)) or len(a) != len(b):
            return False
        return _same_plain_items(a, b) or all(map(equal, a, b))
    if isinstance(a, bool) is not isinstance(b, bool):
        return False
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


_ALIKE = frozenset({int, float, str})


def _same_plain_items(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Return whether Python itself finds all numbers and texts of two sequences equal."""
    return _ALIKE.issuperset(map(type, a)) and _ALIKE.issuperset(map(type, b)) and a == b


# -- as bytes and as text ------------------------------------------------------------------

_EXT_INTEGER = 1
_EXT_ARRAY = 2
_EXT_UUID = 3
_EXT_ROWS = 4


def _default(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.names:
        parts = fields_text(value.dtype), value.shape, lists_of(value)
        return msgpack.ExtType(
            _EXT_ROWS, packb(parts, default=_default, unicode_errors="surrogatepass")
        )
    if isinstance(value, np.ndarray):
        head = packb((value.dtype.str, value.shape))
        return msgpack.ExtType(_EXT_ARRAY, head + value.tobytes())
    if isinstance(value, int):  # beyond 64 bits
        return msgpack.ExtType(_EXT_INTEGER, str(value).encode())
    if isinstance(value, uuid.UUID):
        return msgpack.ExtType(_EXT_UUID, value.bytes)
    raise TypeError(type(value))


def _ext_hook(code: int, data: bytes) -> Any:
    if code == _EXT_INTEGER:
        return int(data)
    if code == _EXT_UUID:
        return uuid.UUID(bytes=data)
    if code == _EXT_ROWS:
        text, shape, rows = unpackb(data, ext_hook=_ext_hook, unicode_errors="surrogatepass")
        return ArrayList(rows, fields_dtype(text), shape)
    unpacker = Unpacker()
    unpacker.feed(data)
    dtype, shape = unpacker.unpack()
    return np.frombuffer(data, plain_dtype(dtype), offset=unpacker.tell()).reshape(shape)


def pack(value: Any) -> bytes:
    """Return a normalized value as msgpack bytes with a checksum.

    NaN, integers of any size, UUIDs and arrays are kept exactly.
    """
    return with_checksum(packb(value, default=_default, unicode_errors="surrogatepass"))


def unpack(data: bytes) -> Any:
    """Return the value that :func:`pack` was given.

    Raises
    ------
    StoreDamaged
        If the bytes have changed since.
    """
    return unpackb(
        without_checksum(data, "a stored document"),
        ext_hook=_ext_hook,
        unicode_errors="surrogatepass",
        strict_map_key=False,
    )


def unpack_document(data: bytes) -> Document:
    """Return the document whose content :func:`pack` was given; see :func:`unpack` for errors."""
    content = unpackb(
        without_checksum(data, "a stored document"),
        ext_hook=_ext_hook,
        unicode_errors="surrogatepass",
        strict_map_key=False,
        object_hook=FrozenDict,
        list_hook=FrozenList,
    )
    # No one else has the outermost mapping, so its class is changed rather than its items copied.
    object.__setattr__(content, "__class__", Document)
    return content  # type: ignore[no-any-return]


def iter_named(pairs: Iterable[Any], where: str = "documents") -> Iterator[tuple[str, Any]]:
    """Yield the ``(name, document)`` pairs of a sequence, each checked as it is read.

    Raises
    ------
    BadDocument
        At the first item that is not such a pair.
    """
    for number, pair in enumerate(pairs):
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or not isinstance(pair[0], str)
            or not isinstance(pair[1], Mapping)
        ):
            raise BadDocument(f"{where}: item {number} is not a (name, document) pair")
        yield pair[0], pair[1]
