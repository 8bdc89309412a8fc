"""Fill the events of a stream of documents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.documents import NamedMapping
from ...core.errors import BadDocument, FieldNotFound, FillError, UnknownReference
from ...core.filled import as_document
from ...core.name_lists import listed
from ...core.validate import check_is_mapping, document_label
from .event_filling import events_in_block, fill_events, fill_page, wanted_keys
from .filling import Filling
from .target import Target

MOST_WAITING = 10_000
"""Maximum number of documents that are taken from a stream before the first is passed on."""
FillingOf = Callable[[Mapping[str, Any]], Filling]
"""Function that returns the filling of a descriptor's run."""


def fill_stream(
    stream: Iterable[NamedMapping],
    filling_of: FillingOf,
    find_descriptor: Callable[[str], Mapping[str, Any] | None],
    fields: Collection[str] | None = None,
    *,
    in_place: bool = False,
    waits: bool = True,
) -> Iterator[tuple[str, Any]]:
    """Yield the same ``(name, doc)`` pairs lazily, with events and event_pages filled.

    Parameters
    ----------
    stream
        Documents of any kind.
    filling_of
        Function that returns the filling of a descriptor's run; called once per descriptor.
    find_descriptor
        Function that returns a descriptor by its uid, for events whose descriptor is not in the
        stream.
    fields
        Data keys to fill; all external keys if None.
    in_place
        If True, change the given documents (plain dicts) rather than make new ones.
    waits
        If True, the stream may wait for the source of its documents, so each document is passed
        on before the next is requested. If False, events are filled block by block.

    Raises
    ------
    FillError
        At the first event that cannot be filled.
    BadDocument
        If an event, event_page or descriptor is none.
    UnknownReference
        If the descriptor of an event is neither in the stream nor found.
    FieldNotFound
        After the last document, if a field is a data key of none of the descriptors.
    """
    owners = _Owners(filling_of, find_descriptor, fields)
    for block in ([pair] for pair in stream) if waits else _blocks(stream, owners):
        filled = _filled(block, owners)
        for position, (name, doc) in enumerate(block):
            if position not in filled:
                yield name, doc
            elif isinstance(filled[position], FillError):
                raise filled[position]
            else:
                yield (
                    name,
                    _put_into(doc, filled[position]) if in_place else as_document(filled[position]),
                )
    # A stream without descriptors and events says nothing of data keys.
    if owners.known:
        check_are_data_keys(fields, [owner.descriptor for owner in owners.known.values()])


def check_are_data_keys(
    fields: Collection[str] | None, descriptors: Iterable[Mapping[str, Any]]
) -> None:
    """Check that each field to fill is a data key of one of some descriptors.

    Raises
    ------
    FieldNotFound
        If it is not; the message lists the data keys.
    """
    known = {key for descriptor in descriptors for key in descriptor["data_keys"]}
    for name in fields or ():
        # A column whose key is a name of the table's own begins with "data:".
        if name not in known and str(name).removeprefix("data:") not in known:
            raise FieldNotFound(
                f"there is no data key {name!r:.200} to fill; there are: "
                f"{listed(sorted(known), name)}"
            )


@dataclass
class _Owner:
    """A descriptor, its keys to fill, and the filling, which is None if there are no keys."""

    descriptor: Mapping[str, Any]
    keys: Sequence[str] = ()
    filling: Filling | None = None
    share: float = 0.0
    """Part of a full block that one event takes."""


@dataclass
class _Owners:
    """Descriptors that came in the stream or were looked up."""

    filling_of: FillingOf
    find_descriptor: Callable[[str], Mapping[str, Any] | None]
    fields: Collection[str] | None
    known: dict[str, _Owner] = field(default_factory=dict)

    def note(self, descriptor: Mapping[str, Any]) -> None:
        """Note a descriptor that comes in the stream."""
        if _texts_of("descriptor", descriptor, "uid", "data_keys")["uid"] not in self.known:
            keys = wanted_keys(descriptor, self.fields)
            self.known[descriptor["uid"]] = _Owner(descriptor, keys)

    def of(self, event: Mapping[str, Any]) -> _Owner:
        """Return the owner of an event or event_page, with its filling."""
        uid = event["descriptor"]
        if uid not in self.known:
            found = self.find_descriptor(uid)
            if found is None:
                raise UnknownReference(
                    f"{document_label('event', event)}: its descriptor {uid!r:.200} is neither "
                    "stored here nor in the stream, so nothing tells which values are references"
                )
            self.known[uid] = _Owner(found, wanted_keys(found, self.fields))
        owner = self.known[uid]
        if owner.keys and owner.filling is None:
            owner.filling = self.filling_of(owner.descriptor)
            targets = [Target.of(owner.descriptor, key) for key in owner.keys]
            owner.share = 1 / events_in_block(owner.filling, targets)
        return owner


def _texts_of(name: str, doc: Any, uid: str, content: str) -> Mapping[str, Any]:
    """Return a document if it has text and a mapping under these keys.

    Raises
    ------
    BadDocument
        If it has not.
    """
    check_is_mapping(name, doc)
    if not isinstance(doc.get(uid), str):
        raise BadDocument(f"{document_label(name, doc)}.{uid}: must be text")
    if not isinstance(doc.get(content), Mapping):
        raise BadDocument(f"{document_label(name, doc)}.{content}: must be a mapping")
    return doc


def _blocks(stream: Iterable[NamedMapping], owners: _Owners) -> Iterator[list[NamedMapping]]:
    """Divide the stream into blocks whose events are filled together; a page ends a block."""
    block: list[NamedMapping] = []
    share = 0.0
    for name, doc in stream:
        block.append((name, doc))
        if name == "descriptor":
            owners.note(doc)
        elif name == "event":
            share += owners.of(_texts_of(name, doc, "descriptor", "data")).share
        # No more events wait than are filled at a time, which bounds the memory.
        if share >= 1 or name == "event_page" or len(block) == MOST_WAITING:
            yield block
            block, share = [], 0.0
    if block:
        yield block


def _filled(block: Sequence[NamedMapping], owners: _Owners) -> dict[int, Any]:
    """Return filled events and pages, or the error that prevents it, by position in the block."""
    events: dict[str, list[int]] = {}
    filled: dict[int, Any] = {}
    for position, (name, doc) in enumerate(block):
        if name == "descriptor":
            owners.note(doc)
        elif name == "event":
            _texts_of(name, doc, "descriptor", "data")
            events.setdefault(doc["descriptor"], []).append(position)
        elif name == "event_page":
            owner = owners.of(_texts_of(name, doc, "descriptor", "data"))
            filled[position] = doc if owner.filling is None else _page(doc, owner)
    for positions in events.values():
        docs = [block[position][1] for position in positions]
        filled.update(zip(positions, _events(docs, owners.of(docs[0])), strict=True))
    return filled


def _events(docs: Sequence[Mapping[str, Any]], owner: _Owner) -> Sequence[Any]:
    """Return filled events of one descriptor; from the first failure on, the error instead."""
    if owner.filling is None:
        return docs
    found: list[Any] = []
    try:
        for doc in fill_events(owner.filling, owner.descriptor, docs, owner.keys):
            found.append(doc)
    except FillError as error:
        found += [error] * (len(docs) - len(found))
    return found


def _page(page: Mapping[str, Any], owner: _Owner) -> Any:
    assert owner.filling is not None
    try:
        return fill_page(page, owner.descriptor, owner.keys, owner.filling)
    except FillError as error:
        return error


def _put_into(doc: Mapping[str, Any], filled: Mapping[str, Any]) -> Any:
    """Update a given document by ``data`` and ``filled`` of a filled one, and return it."""
    for part in ("data", "filled"):
        if filled is not doc:
            doc.setdefault(part, {}).update(filled[part])  # type: ignore[attr-defined]
    return doc
