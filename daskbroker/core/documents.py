"""Documents: immutable mappings of JSON-like values, bytes and UUIDs.

The vocabulary is event-model's (https://blueskyproject.io/event-model). A document that comes in
goes through :func:`normalize`, which makes a private, plain copy of what the caller gave (so that
reusing a dict or array after ``insert`` changes nothing). A document that is returned is a
:class:`Document`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .checksum import without_checksum
from .errors import BadDocument
from .frozen import FROZEN, FrozenDict, FrozenList, freeze, to_pickle
from .json_text import from_json, to_json
from .normalizing import is_unicode, normalize
from .packed import ext_hook, pack, unpack
from .plain_msgpack import unpackb
from .plain_values import as_lists, equal, plain

__all__ = [
    "ALL",
    "PRIMARY",
    "AllStreams",
    "Document",
    "NamedDocument",
    "NamedMapping",
    "StreamName",
    "as_lists",
    "equal",
    "from_json",
    "frozen_document",
    "is_unicode",
    "normalize",
    "pack",
    "plain",
    "show_by",
    "start_of",
    "stream_of",
    "to_json",
    "unpack",
    "unpack_document",
]

NamedDocument = tuple[str, "Document"]
"""Item of a stream of documents: ``(name, doc)``."""
NamedMapping = tuple[str, Mapping[str, Any]]
"""The same with any mapping, such as a plain dict, in place of a document."""


class AllStreams:
    """Type of :data:`ALL`, which stands for every stream of a run."""

    _instance: AllStreams | None = None

    def __new__(cls) -> AllStreams:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "ALL"

    def __reduce__(self) -> str:
        return "ALL"


ALL = AllStreams()

StreamName = str | AllStreams
"""Name of a stream, or :data:`ALL`."""
PRIMARY = "primary"


def stream_of(descriptor: Mapping[str, Any]) -> str:
    """Return the stream name of a descriptor, :data:`PRIMARY` for old ones that have none."""
    return str(descriptor.get("name") or PRIMARY)


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


def unpack_document(data: bytes) -> Document:
    """Return the document whose content :func:`pack` was given; see :func:`unpack` for errors."""
    # Not by `unpack`: one more call for each document is 4 % of the time of a list of runs.
    content = unpackb(
        without_checksum(data, "a stored document"),
        ext_hook=ext_hook,
        unicode_errors="surrogatepass",
        strict_map_key=False,
        object_hook=FrozenDict,
        list_hook=FrozenList,
    )
    # No one else has the outermost mapping, so its class is changed rather than its items copied.
    object.__setattr__(content, "__class__", Document)
    return content


def start_of(run: object) -> Any:
    """Return the start document of a Header; of anything else, a start document too, itself."""
    # The attributes of a document are its keys, and plans may have one called "start".
    return run if isinstance(run, Mapping) else getattr(run, "start", run)


def iter_named(pairs: Iterable[Any]) -> Iterator[tuple[str, Any]]:
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
            raise BadDocument(f"documents: item {number} is not a (name, document) pair")
        yield pair[0], pair[1]
