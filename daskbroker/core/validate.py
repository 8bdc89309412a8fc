"""Checks of documents on insertion: one that passes can be stored and read back.

The few big documents (start, stop, descriptor, resource, stream_resource) are checked against
event-model's JSON schemas, except that keys unknown to the schema are accepted (recorded documents
have them). Nearly all are valid, which ``jsonschema-rs`` decides in microseconds; what it does not
accept (it has no NaN and no lone surrogates, and refuses unknown keys) is checked by
``jsonschema``, which takes a millisecond and decides. Events, datums and pages come in thousands,
so these have a check of their own here, column by column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from .documents import is_unicode, normalize
from .errors import BadDocument
from .layouts import DATUM, EVENT, STREAM_DATUM, Layout
from .leaves import EXACT_INTEGER
from .name_lists import listed
from .printable import shown, without_middle

SCHEMA_CHECKED = ("start", "stop", "descriptor", "resource", "stream_resource")
ROW_LAYOUTS: dict[str, Layout] = {"event": EVENT, "datum": DATUM, "stream_datum": STREAM_DATUM}
PAGES: dict[str, Layout] = {"event_page": EVENT, "datum_page": DATUM}
BULK = ("bulk_events", "bulk_datum")
NAMES = (*SCHEMA_CHECKED, *ROW_LAYOUTS, *PAGES, *BULK)
"""Every name of a document that event-model knows, deprecated ones included."""

MAX_INTEGER = 2**63 - 1
MOST_FRAMES = 2**32
"""Maximum number of frames of one stream_datum: a thousand frames a second for seven weeks."""


def document_label(name: Any, doc: Any) -> str:
    """Return name and uid of a document, for messages."""
    if type(doc) is dict or isinstance(doc, Mapping):
        for key in ("uid", "datum_id"):
            if isinstance(doc.get(key), str):
                return f"{name} {doc[key]!r}"
    return f"{name} document"


def prepare(name: Any, doc: Any) -> dict[str, Any]:
    """Return a checked private copy of a document.

    Arrays in events, datums and pages are kept as arrays, structured arrays in descriptors too, see
    :func:`daskbroker.core.documents.normalize`. Bulk documents are only copied; their rows are
    checked by :func:`daskbroker.core.bulk.expand_bulk`.

    Raises
    ------
    BadDocument
        If the document is not valid; the message names it and the field.
    """
    if name not in NAMES:
        raise BadDocument(
            f"{name!r} is not a document name; event-model defines {', '.join(NAMES)}"
        )
    # The usual documents are dicts; an abstract isinstance costs as much as a small check.
    if type(doc) is not dict:
        check_is_mapping(name, doc)
    try:
        # Events keep arrays for the codec of chunks; a descriptor may have rows as configuration.
        plain: dict[str, Any] = normalize(
            doc, "", arrays=name not in SCHEMA_CHECKED, rows=name == "descriptor"
        )
        if name in SCHEMA_CHECKED:
            _check_schema(name, plain, "")
        elif name in ROW_LAYOUTS:
            check_row(ROW_LAYOUTS[name], plain, "")
        elif name in PAGES:
            check_page(PAGES[name], plain, "")
    except BadDocument as error:  # each message begins with where in the document it is
        raise BadDocument(f"{document_label(name, doc)}{error}") from error.__cause__
    return plain


@cache
def _validators(name: str) -> tuple[Any, Any]:
    """Return the quick validator, which accepts documents, and the one that decides the rest."""
    from event_model import DocumentNames, schema_validators, schemas
    from jsonschema_rs import Draft202012Validator

    kind = DocumentNames[name]
    return Draft202012Validator(schemas[kind]), schema_validators[kind]


def _plainly_sound(quick: Any, doc: Mapping[str, Any]) -> bool:
    try:
        return bool(quick.is_valid(doc))
    except (ValueError, SystemError):  # not JSON; jsonschema-rs before 0.61: a lone surrogate
        return False


def _check_schema(name: str, doc: Mapping[str, Any], label: str) -> None:
    # The schemas accept empty text, and jsonschema times that are not finite.
    for key in ("uid", "time", "run_start"):
        if key in doc:
            _CHECKS[key](doc[key], f"{label}.{key}")
    if name == "descriptor" and doc.get("name"):
        _text(doc["name"], f"{label}.name")
    quick, thorough = _validators(name)
    if _plainly_sound(quick, doc):
        return
    for error in thorough.iter_errors(doc):
        # Additional keys are no fault: they are stored with the document.
        if error.validator in ("additionalProperties", "unevaluatedProperties"):
            continue
        where = ".".join([label, *map(str, error.absolute_path)])
        raise BadDocument(f"{where}: {_message(error)}")


def _message(error: Any) -> str:
    """Return the message of ``jsonschema``, with the value at its beginning shortened."""
    text = str(error.message)
    # jsonschema begins its message with the value, however long that is.
    if text.startswith(repr(error.instance)):
        text = shown(error.instance) + text.removeprefix(repr(error.instance))
    return without_middle(text, 280)


# -- scalars ---------------------------------------------------------------------------------


def _text(value: object, where: str) -> None:
    if type(value) is not str or not value:
        raise BadDocument(f"{where}: must be text that is not empty, not {shown(value)}")
    if not value.isascii() and not is_unicode(value):
        raise BadDocument(f"{where}: must be valid Unicode text, not {shown(value)}")


def _instant(value: Any, where: str) -> None:
    # A bool is an int to isinstance; larger integers would be rounded as seconds.
    sound = abs(value) <= EXACT_INTEGER if type(value) is int else type(value) is float
    if not sound or not math.isfinite(value):
        raise BadDocument(f"{where}: must be a finite number of POSIX seconds, not {shown(value)}")


def _count(value: object, where: str) -> None:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise BadDocument(f"{where}: must be an integer of 0 or more, not {shown(value)}")


def _mapping(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise BadDocument(f"{where}: must be a mapping, not {type(value).__name__}")


def _list(value: object, where: str) -> None:
    if not isinstance(value, (list, np.ndarray)):
        raise BadDocument(f"{where}: must be a list, not {type(value).__name__}")


def _stamps(value: Any, where: str) -> None:
    _mapping(value, where)
    for key, stamp in value.items():
        # Types are compared, as a bool is an int to isinstance.
        if type(stamp) is not float and type(stamp) is not int and stamp is not None:
            raise BadDocument(f"{where}.{key}: must be a number, not {shown(stamp)}")


def _filled(value: Any, where: str) -> None:
    _mapping(value, where)
    for key, state in value.items():
        if type(state) not in (bool, str):
            raise BadDocument(
                f"{where}.{key}: must be true, false or a datum_id, not {shown(state)}"
            )


def _range(value: Any, where: str) -> None:
    _mapping(value, where)
    for key in ("start", "stop"):
        if key not in value:
            raise BadDocument(f"{where}: lacks {key!r}")
        _count(value[key], f"{where}.{key}")
    if value["stop"] < value["start"]:
        raise BadDocument(f"{where}: stop {value['stop']} comes before start {value['start']}")
    if value["stop"] - value["start"] > MOST_FRAMES:
        raise BadDocument(f"{where}: a document can refer to at most {MOST_FRAMES:,} frames")


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "uid": _text,
    "datum_id": _text,
    "descriptor": _text,
    "resource": _text,
    "stream_resource": _text,
    "run_start": _text,
    "time": _instant,
    "seq_num": _count,
    "data": _mapping,
    "timestamps": _stamps,
    "filled": _filled,
    "datum_kwargs": _mapping,
    "indices": _range,
    "seq_nums": _range,
}


_PATHS = {key: f".{key}" for key in _CHECKS}
"""Names of the keys of a document that needs no label, made once for all documents."""


# -- rows and pages --------------------------------------------------------------------------


def check_row(layout: Layout, doc: Mapping[str, Any], label: str) -> None:
    """Check a normalized event, datum or stream_datum.

    Raises
    ------
    BadDocument
        If a key is missing or has a value of another type; the message names it.
    """
    for key in layout.keys:
        if key in doc:
            _CHECKS[key](doc[key], f"{label}.{key}" if label else _PATHS[key])
        # References may lack their texts, such as a path that only its mapping has.
        elif key not in layout.texts:
            raise BadDocument(f"{label}: lacks {key!r}")


def check_is_mapping(name: str, doc: object) -> None:
    """Check that a document is a mapping.

    Raises
    ------
    BadDocument
        If it is not.
    """
    if not isinstance(doc, Mapping):
        raise BadDocument(f"{name}: a document is a mapping, not {type(doc).__name__}")


def check_keys(data: Collection[str], known: Collection[str], label: str, descriptor: str) -> None:
    """Check that an event has no data key that its descriptor does not declare.

    Keys may be missing from an event (recorded documents have such events); an undeclared one
    would have no place in the table.

    Raises
    ------
    BadDocument
        If there is an undeclared data key.
    """
    unknown = [key for key in data if key not in known]
    if unknown:
        raise BadDocument(
            f"{label}: the data keys {listed(sorted(unknown))} are not declared by descriptor "
            f"{descriptor!r}, which has {listed(sorted(known), unknown[0])}"
        )


def check_page(layout: Layout, page: dict[str, Any], label: str) -> None:
    """Check a normalized event_page or datum_page, column by column.

    Raises
    ------
    BadDocument
        If a key is missing, or a column has a wrong type or length; the message names it.
    """
    for key in layout.keys:
        if key not in page and key not in layout.texts:
            raise BadDocument(f"{label}: lacks {key!r}")
    _text(page[layout.owner], f"{label}.{layout.owner}")
    uids = page[layout.uid]
    _list(uids, f"{label}.{layout.uid}")
    rows = len(uids)
    for key in layout.scalars:
        _check_column(page[key], rows, f"{label}.{key}", _CHECKS[key])
    # Keys that the event model does not know are stored, too, so they need a value for each row.
    for key in page.keys() - layout.keys:
        _check_column(page[key], rows, f"{label}.{key}", None)
    nested = [key for key, _ in layout.mappings] + [k for k in layout.texts if k in page]
    for key in nested:
        _mapping(page[key], f"{label}.{key}")
        for name, values in page[key].items():
            _check_column(values, rows, f"{label}.{key}.{name}", None)
            if key == "timestamps":
                _check_stamps(values, f"{label}.{key}.{name}")
            elif key == "filled":
                for row, value in enumerate(values):
                    _filled({name: value}, f"{label}.{key}[{row}]")


def _check_column(
    values: Any, rows: int, where: str, check: Callable[[Any, str], None] | None
) -> None:
    _list(values, where)
    if len(values) != rows:
        raise BadDocument(f"{where}: has {len(values)} rows where the page has {rows}")
    # Text has no quick check by NumPy; it goes on to the join below.
    if check is None or (check is not _text and _sound(values, check)):
        return
    # One look at the joined text is faster than one at each text of a long column.
    if check is _text and set(map(type, values)) <= {str} and all(values):
        check = None if is_unicode("".join(values)) else _text
    if check is None:
        return
    for row, value in enumerate(values if isinstance(values, list) else values.tolist()):
        check(value, f"{where}[{row}]")


def _sound(values: Sequence[Any] | np.ndarray, check: Callable[[Any, str], None]) -> bool:
    """Return whether a whole numeric column passes; if not, it is checked row by row."""
    if not isinstance(values, np.ndarray):
        if not set(map(type, values)) <= ({int} if check is _count else {int, float}):
            return False
        try:
            values = np.array(values, np.int64 if check is _count else np.float64)
        # An integer beyond int64: the check of single rows names it.
        except OverflowError:
            return False
    # Cells of a page that are arrays themselves are refused row by row.
    if values.ndim != 1:
        return False
    if check is _count:
        return values.dtype.kind in "iu" and bool(
            (values >= 0).all() and (values <= MAX_INTEGER).all()
        )
    small = np.abs(values) <= EXACT_INTEGER if values.dtype.kind in "iuf" else np.False_
    return bool(small.all())  # False for NaN, and for larger floats, which are checked one by one


def _check_stamps(values: Any, where: str) -> None:
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iuf" or values.ndim != 1:
            raise BadDocument(f"{where}: must hold numbers")
    # Types are compared rather than values: pages have long columns of floats.
    elif not set(map(type, values)) <= {float, int, type(None)}:
        bad = next(v for v in values if type(v) not in (float, int, type(None)))
        raise BadDocument(f"{where}: must hold numbers, not {shown(bad)}")
