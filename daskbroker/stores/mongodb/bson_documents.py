"""Conversion of documents to BSON and back, without loss.

A document is stored plain, as databroker expects it. If BSON cannot hold all of it (integers
beyond 64 bits, lone surrogates, keys with NUL or of MongoDB's own kind), the parts that BSON can
hold are stored plain, and the whole document is stored beside them, packed, under the key
``_daskbroker``. Daskbroker's readers never give out this key.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import bson
import numpy as np
from bson.binary import OLD_UUID_SUBTYPE, Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.regex import Regex
from bson.timestamp import Timestamp

from ...core.documents import Document, equal, pack, plain, unpack
from ...core.dtypes import fields_dtype, fields_text
from ...core.errors import BadDocument, StoreDamaged
from ...core.field_rows import has_fields
from ...core.frozen import ATOMS, ArrayList, freeze
from ...core.patterns import flag_letters
from ...core.stored_documents import fault_of
from ..stored_text import storable

SIDE_FIELD = "_daskbroker"
"""Key of what is stored beside the plain form of a document."""
ARRAYS_FIELD = "arrays"
"""Key below :data:`SIDE_FIELD` for the dtypes of arrays, which are lists in BSON."""
ROWS_FIELD = "rows"
"""Key below :data:`SIDE_FIELD` for path, fields and shape of structured arrays, also lists."""
ARRAY_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "f4")
"""Dtypes that have to be noted; the others are restored from the values of the lists."""
MAX_DOCUMENT_BYTES = 16_000_000
"""Maximum bytes of a document; MongoDB's limit is 16 MiB, and it adds an ``_id``."""
ROUTING = ("uid", "datum_id", "run_start", "descriptor", "resource", "stream_resource")
"""Keys by which documents are looked up; their text is always stored plain."""
UNENCODABLE = (OverflowError, UnicodeError, BSONError, RecursionError)


class ForeignText(str):
    """Text in place of a value of a type that documents lack, such as a date or a regex.

    Documents that are given out have plain text in its place.
    """

    __slots__ = ()


def _decoder(bson_type: type, convert: Callable[[Any], Any]) -> TypeDecoder:
    def transform(self: Any, value: Any) -> Any:
        return convert(value)

    name = f"{bson_type.__name__}Decoder"
    return type(name, (TypeDecoder,), {"bson_type": bson_type, "transform_bson": transform})()


def _binary(value: Binary) -> Any:
    # As pymongo wrote UUIDs before version 4.
    if value.subtype == OLD_UUID_SUBTYPE and len(value) == 16:
        return value.as_uuid(UuidRepresentation.PYTHON_LEGACY)
    return bytes(value)


def _decimal(value: Decimal128) -> float:
    number = value.to_decimal()
    return math.nan if number.is_nan() else float(number)


def _pattern(value: Regex[str]) -> str:
    return f"/{value.pattern}/{flag_letters(value.flags)}"


def foreign_values(value: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(dotted path, text)`` of each :class:`ForeignText` in a decoded document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        if isinstance(item, ForeignText):
            yield str(key), str(item)
        elif isinstance(item, (dict, list)):
            yield from ((f"{key}.{path}", text) for path, text in foreign_values(item))


def was_object_id(value: Any) -> bool:
    """Return whether a decoded value is stored as an ObjectId, and not as the text of one."""
    return type(value) is ForeignText and ObjectId.is_valid(value)


def _foreign(text: Callable[[Any], str]) -> Callable[[Any], ForeignText]:
    return lambda value: ForeignText(text(value))


FOREIGN: dict[type, Callable[[Any], str]] = {
    datetime.datetime: datetime.datetime.isoformat,
    DatetimeMS: lambda value: f"{int(value)} ms after 1970",  # out of Python's range
    Timestamp: lambda value: str(value.as_datetime().isoformat()),
    DBRef: lambda value: str(value.id),
    ObjectId: str,
    Regex: _pattern,
    Code: str.__str__,
    MinKey: lambda value: "MinKey",
    MaxKey: lambda value: "MaxKey",
}
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    unicode_decode_error_handler="replace",
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    type_registry=TypeRegistry(
        [
            _decoder(Int64, int),
            _decoder(Binary, _binary),
            # Never written by bluesky, but seen in old databases.
            _decoder(Decimal128, _decimal),
            *(_decoder(kind, _foreign(text)) for kind, text in FOREIGN.items()),
        ]
    ),
)
"""Options to decode documents to values of the types that documents have, and no others."""
PLAIN_CODEC: CodecOptions[dict[str, Any]] = CODEC.with_options(type_registry=TypeRegistry())
"""The same without decoders in Python, for documents that have none of these values."""
RAW_CODEC: CodecOptions[RawBSONDocument] = PLAIN_CODEC.with_options(document_class=RawBSONDocument)
"""Options to read documents for :func:`decoded_alike`."""
ENCODING: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD
)


def to_bson(doc: Mapping[str, Any], run: str | None = None) -> RawBSONDocument:
    """Return a normalized document as BSON. It may be larger than MongoDB accepts.

    Parameters
    ----------
    doc
        Normalized document. Its arrays become lists.
    run
        Uid of the run that the document belongs to, if the document itself does not name it.
    """
    simple = plain(doc)
    encoded = _encoded(simple)
    side: dict[str, Any] = {} if run is None else {"run": storable(run)}
    # BSON would lose or change something: the whole document is kept beside what it can hold.
    if encoded is None:
        side["packed"] = Binary(pack(doc))
        simple = dict(_holdable(simple))
    else:
        side |= _notes_of_arrays(doc)
    # Most documents need nothing beside their plain form, and are encoded once.
    if encoded is not None and not side:
        return RawBSONDocument(encoded)
    return RawBSONDocument(bson.encode({**simple, SIDE_FIELD: side}, codec_options=ENCODING))


def _notes_of_arrays(doc: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be noted of the arrays of a document, which are lists in BSON."""
    dtypes, rows = _array_dtypes(doc), list(_structured(doc))
    return ({ARRAYS_FIELD: dtypes} if dtypes else {}) | ({ROWS_FIELD: rows} if rows else {})


def _array_dtypes(doc: Mapping[str, Any]) -> dict[str, str]:
    """Return, by data key, the dtypes of an event's arrays that their lists do not reveal."""
    data = doc.get("data")
    # The usual event has scalars only.
    if not isinstance(data, dict) or np.ndarray not in set(map(type, data.values())):
        return {}
    arrays = {key: value for key, value in data.items() if isinstance(value, np.ndarray)}
    noted = {key: value.dtype.str[1:] for key, value in arrays.items()}
    return {key: text for key, text in noted.items() if text in ARRAY_DTYPES}


def _structured(doc: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield ``[path, fields, shape]`` of each structured array in an event or a descriptor."""
    for key, value in (doc.get("data") or {}).items() if isinstance(doc.get("data"), dict) else ():
        if has_fields(value):
            yield [["data", key], fields_text(value.dtype), list(value.shape)]
    # Only descriptors have configuration.
    if "data_keys" in doc:
        yield from _structured_inside(doc.get("configuration"), ["configuration"])


def _structured_inside(value: Any, path: list[str]) -> Iterator[list[Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _structured_inside(item, [*path, key])
    elif has_fields(value):
        yield [path, fields_text(value.dtype), list(value.shape)]


def _with_rows(doc: dict[str, Any], side: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its structured arrays as lists that remember their dtype."""
    noted = side.get(ROWS_FIELD)
    for item in noted if isinstance(noted, list) else ():
        try:
            path, text, shape = item
            doc = _with_array(doc, list(path), fields_dtype(text), tuple(shape))
        # A foreign program has written something else there.
        except (ValueError, TypeError):
            raise StoreDamaged(f"{SIDE_FIELD}.{ROWS_FIELD} is not valid: {item!r:.60}") from None
    return doc


def _with_array(value: object, path: list[str], dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    if not path:
        # It was replaced, for example by null, since it was noted.
        return ArrayList(value, dtype, shape) if isinstance(value, list) else value
    if not isinstance(value, dict) or path[0] not in value:
        return value  # it was not fetched
    return {**value, path[0]: _with_array(value[path[0]], path[1:], dtype, shape)}


def _with_arrays(doc: dict[str, Any], side: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with its lists as arrays of the dtypes that are noted, if they fit."""
    noted = side.get(ARRAYS_FIELD)
    data = doc.get("data")
    # Of a foreign program, or not fetched.
    if not isinstance(noted, dict) or not isinstance(data, dict):
        return doc
    arrays = {
        key: _array(data[key], text)
        for key, text in noted.items()
        if key in data and text in ARRAY_DTYPES and isinstance(data[key], list)
    }
    return {**doc, "data": {**data, **arrays}} if arrays else doc


def _array(cell: list[Any], text: str) -> Any:
    """Return a list as an array, or the list itself if the array would have other values."""
    try:
        found = np.array(cell, text)
    # The list was changed since, or is not of the noted dtype.
    except (ValueError, TypeError, OverflowError):
        return cell
    return found if found.tolist() == cell or equal(found, cell) else cell


def sparse_bson(doc: Mapping[str, Any], run: str | None = None) -> RawBSONDocument:
    """Return BSON with only the keys plain that a document is found by; the rest is packed.

    For documents that the server refuses in their plain form.
    """
    kept = ("time", "seq_num", "scan_id", "plan_name", "name")
    simple = {k: v for k, v in _holdable(plain(doc)) if k in ROUTING or k in kept}
    side = {"packed": Binary(pack(doc))} | ({} if run is None else {"run": storable(run)})
    return RawBSONDocument(bson.encode({**simple, SIDE_FIELD: side}, codec_options=ENCODING))


def is_packed(doc: Mapping[str, Any]) -> bool:
    """Return whether a stored document holds more than its plain form."""
    return "packed" in doc.get(SIDE_FIELD, ())


def is_simple(key: str) -> bool:
    """Return whether a key has no special meaning in a path of MongoDB."""
    return bool(key) and "." not in key and not key.startswith("$") and "\0" not in key


def _encoded(doc: dict[str, Any]) -> bytes | None:
    """Return a document as BSON, or None if it would not come back unchanged."""
    try:
        encoded = bson.encode(doc, codec_options=ENCODING)
    except UNENCODABLE:
        return None
    # These keys have a meaning to MongoDB, or to daskbroker, and cannot be stored plain.
    if SIDE_FIELD in doc or "_id" in doc or (b"$" in encoded and _has_signs(doc)):
        return None
    return encoded


def _has_signs(value: object) -> bool:
    """Return whether any key begins with ``$``; MongoDB and pymongo interpret such keys."""
    if isinstance(value, dict):
        return any(key.startswith("$") or _has_signs(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_signs, value))


def _holdable(doc: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the items that BSON can hold, down to the second level of mappings."""
    for key, value in doc.items():
        # Text by which documents are looked up stays plain, with surrogates replaced.
        if key in ROUTING and isinstance(value, str):
            yield key, storable(value)
        elif key in (SIDE_FIELD, "_id") or key.startswith("$") or _encoded({key: None}) is None:
            continue
        elif _encoded({key: value}) is not None:
            yield key, value
        elif isinstance(value, dict):
            yield key, {k: v for k, v in value.items() if k != SIDE_FIELD and _encoded({k: v})}


def from_bson(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content that was given to :func:`to_bson`, or that suitcase-mongo has stored.

    Raises
    ------
    StoreDamaged
        If the value of the key ``_daskbroker`` is not valid.
    """
    side = stored.get(SIDE_FIELD)
    if side is None:
        return {k: v for k, v in stored.items() if k != "_id"}
    if not isinstance(side, dict):
        raise StoreDamaged(f"{SIDE_FIELD} must be a mapping, not {side!r:.60}")
    if "packed" in side:
        content = unpack(side["packed"])
        if not isinstance(content, dict):
            raise StoreDamaged(f"{SIDE_FIELD}.packed is not a document")
        return content
    doc = {k: v for k, v in stored.items() if k not in ("_id", SIDE_FIELD)}
    return _with_rows(_with_arrays(doc, side), side)


def decoded_alike(stored: Iterable[RawBSONDocument]) -> Iterator[dict[str, Any]]:
    """Yield documents as :data:`CODEC` decodes them, with frozen parts which equal ones share.

    Descriptors of many runs have equal data keys and configuration, which are nearly all of
    their bytes and are decoded and frozen once.
    """
    reference = object()
    known: dict[bytes | memoryview, Any] = {}
    for raw in stored:
        doc = dict(raw)
        whole = SIDE_FIELD in doc  # what is beside the plain form changes parts of it
        for key, value in doc.items():
            if type(value) is RawBSONDocument:
                part = known.get(value.raw)
                if part is None:  # only now, as any look into a raw document decodes it
                    is_reference = "$ref" in value
                    part = reference if is_reference else freeze(bson.decode(value.raw, CODEC))
                    known[value.raw] = part
                if part is reference:
                    whole = True  # the text of a reference
                else:
                    doc[key] = part
            elif type(value) is ObjectId:
                doc[key] = str(value)
            elif type(value) not in ATOMS:
                whole = True
        yield bson.decode(raw.raw, CODEC) if whole else doc


def document_from_bson(stored: Mapping[str, Any]) -> Document:
    """Return the content of a stored document as a Document; raises as :func:`from_bson`."""
    return Document(from_bson(stored))


def checked_from_bson(name: str, stored: Mapping[str, Any]) -> Document:
    """Return a start, stop or descriptor, which any program may have stored.

    Parameters
    ----------
    name
        ``"start"``, ``"stop"`` or ``"descriptor"``.
    stored
        Document as stored.

    Raises
    ------
    StoreDamaged
        If the document lacks something that daskbroker needs; see
        :func:`daskbroker.core.stored_documents.fault_of`.
    """
    try:
        doc = document_from_bson(stored)
    except StoreDamaged as error:
        raise StoreDamaged(f"{name} document: {error}") from None
    fault = fault_of(name, doc)
    if fault is not None:
        raise StoreDamaged(fault)
    return doc


def check_size(encoded: RawBSONDocument, label: str) -> RawBSONDocument:
    """Return the document unchanged if MongoDB can hold a document of its size.

    Raises
    ------
    BadDocument
        If it has more than :data:`MAX_DOCUMENT_BYTES` bytes.
    """
    if len(encoded.raw) > MAX_DOCUMENT_BYTES:
        raise BadDocument(
            f"{label}: has {len(encoded.raw):,} bytes; MongoDB holds documents of up to "
            f"{MAX_DOCUMENT_BYTES:,}"
        )
    return encoded
