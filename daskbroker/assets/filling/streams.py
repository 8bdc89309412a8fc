"""Filling whatever comes in a stream of documents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import FillError
from ...core.filled import as_document
from .events import events_in_block, fill_events, fill_page, wanted_keys
from .filling import Filling, Target

__all__ = ["fill_stream"]

MOST_WAITING = 10_000
"""Documents that are taken from a stream before the first of them is given."""

Named = tuple[str, Mapping[str, Any]]
FillingOf = Callable[[Mapping[str, Any]], Filling]
"""From a descriptor to how its run is filled."""


def fill_stream(
    stream: Iterable[Named],
    filling_of: FillingOf,
    find_descriptor: Callable[[str], Mapping[str, Any] | None],
    in_place: bool = False,
    fields: Collection[str] | None = None,
    *,
    waits: bool = True,
) -> Iterator[tuple[str, Any]]:
    """The same ``(name, doc)`` pairs, with events and event_pages filled. Lazy.

    Parameters
    ----------
    stream
        Any documents.
    filling_of
        Of the run of a descriptor; asked for once a descriptor.
    find_descriptor
        Of those whose descriptor is not in the stream.
    in_place
        Change the given documents (plain dicts) rather than give new ones.
    fields
        Only these keys; None: all.
    waits
        The stream may wait for what makes its documents, so that each is given before the next
        is asked for. Otherwise events are filled block by block.

    Raises
    ------
    FillError
        At the first event with a reference that cannot be followed.
    """
    owners = _Owners(filling_of, find_descriptor, fields)
    for block in ([pair] for pair in stream) if waits else _blocks(stream, owners):
        filled = _filled(block, owners)
        for place, (name, doc) in enumerate(block):
            if place not in filled:
                yield name, doc
            elif isinstance(filled[place], FillError):
                raise filled[place]
            else:
                yield (
                    name,
                    _put_into(doc, filled[place]) if in_place else as_document(filled[place]),
                )


@dataclass
class _Owner:
    """A descriptor, its keys that are filled, and how; of no keys nothing is."""

    descriptor: Mapping[str, Any]
    keys: Sequence[str] = ()
    filling: Filling | None = None
    share: float = 0.0
    """What an event is of the block of which all are."""


@dataclass
class _Owners:
    """Descriptors that came, or were looked up."""

    filling_of: FillingOf
    find_descriptor: Callable[[str], Mapping[str, Any] | None]
    fields: Collection[str] | None
    known: dict[str, _Owner] = field(default_factory=dict)

    def note(self, descriptor: Mapping[str, Any]) -> None:
        """A descriptor that comes in the stream."""
        if descriptor["uid"] not in self.known:
            keys = wanted_keys(descriptor, self.fields)
            self.known[descriptor["uid"]] = _Owner(descriptor, keys)

    def of(self, event: Mapping[str, Any]) -> _Owner:
        """Whose an event or event_page is, as it is filled."""
        uid = event["descriptor"]
        if uid not in self.known:
            found = self.find_descriptor(uid)
            self.known[uid] = _Owner({"uid": uid})
            if found is not None:
                self.known[uid] = _Owner(found, wanted_keys(found, self.fields))
        owner = self.known[uid]
        if owner.keys and owner.filling is None:
            owner.filling = self.filling_of(owner.descriptor)
            targets = [Target.of(owner.descriptor, key) for key in owner.keys]
            owner.share = 1 / events_in_block(owner.filling, targets)
        return owner


def _blocks(stream: Iterable[Named], owners: _Owners) -> Iterator[list[Named]]:
    """Documents of which the events are filled together; a page ends a block."""
    block: list[Named] = []
    share = 0.0
    for name, doc in stream:
        block.append((name, doc))
        if name == "descriptor":
            owners.note(doc)
        elif name == "event":
            share += owners.of(doc).share
        if share >= 1 or name == "event_page" or len(block) == MOST_WAITING:
            yield block
            block, share = [], 0.0
    if block:
        yield block


def _filled(block: Sequence[Named], owners: _Owners) -> dict[int, Any]:
    """By their place, the events and pages as they are when filled, or why they cannot be."""
    events: dict[str, list[int]] = {}
    filled: dict[int, Any] = {}
    for place, (name, doc) in enumerate(block):
        if name == "descriptor":
            owners.note(doc)
        elif name == "event":
            events.setdefault(doc["descriptor"], []).append(place)
        elif name == "event_page":
            owner = owners.of(doc)
            filled[place] = doc if owner.filling is None else _page(doc, owner)
    for places in events.values():
        docs = [block[place][1] for place in places]
        filled.update(zip(places, _events(docs, owners.of(docs[0])), strict=True))
    return filled


def _events(docs: Sequence[Mapping[str, Any]], owner: _Owner) -> Sequence[Any]:
    """Events of one descriptor when filled; from the first that cannot be on, why."""
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
    """A given document, changed."""
    for part in ("data", "filled"):
        if filled is not doc:
            doc.setdefault(part, {}).update(filled[part])  # type: ignore[attr-defined]
    return doc
