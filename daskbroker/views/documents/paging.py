"""Pack single documents of a stream into pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from ...core.arguments import COUNT, FLAG, accepts
from ...core.documents import Document, iter_named
from ...core.frozen import FrozenDict, FrozenList, freeze
from ...core.layouts import DATUM, EVENT, Layout

PAGES: Mapping[str, tuple[str, Layout]] = {
    "event": ("event_page", EVENT),
    "datum": ("datum_page", DATUM),
}
CELLS = 2_000_000
"""Approximate number of numbers and characters at which a page is full, however few its rows."""


class PageBuffer:
    """Packs events into event_pages; all other documents pass through in order.

    Parameters
    ----------
    rows
        Maximum number of events per page; pages of large events have fewer.
    in_order
        Whether the order of documents is kept. If False, events of each descriptor are collected
        separately, so that streams that alternate still fill their pages, and datums are packed
        into datum_pages. Every document still comes after those that it refers to.

    Raises
    ------
    BadArgument
        If `rows` is less than 1.

    Notes
    -----
    Only events of one descriptor with the same keys share a page, as a page has a value of each
    key for each of its events.
    """

    @accepts(rows=COUNT, in_order=FLAG)
    def __init__(self, rows: int = 1000, *, in_order: bool = True) -> None:
        self._rows = rows
        self._in_order = in_order
        self._names = ("event",) if in_order else tuple(PAGES)
        self._waiting: dict[tuple[str, str], _Page] = {}

    def __call__(
        self, stream: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[tuple[str, Any]]:
        """Yield the stream, lazily, with pages in place of single documents."""
        for name, doc in iter_named(stream):
            if name not in self._names:
                if self._in_order or name == "stop":
                    yield from self._flush(*self._waiting)
                yield name, doc
                continue
            key = (name, doc[PAGES[name][1].owner])
            yield from self._flush(*self._before(key, doc))
            page = self._waiting.setdefault(key, _Page(name, doc))
            page.add(doc)
            if len(page.docs) >= self._rows or page.cells >= CELLS:
                yield from self._flush(key)
        yield from self._flush(*self._waiting)

    def _before(self, key: tuple[str, str], doc: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the keys of the pages that must be yielded before a document is taken."""
        others = [k for k in self._waiting if k != key and self._in_order]
        same = self._waiting.get(key)
        return others if same is None or same.takes(doc) else [*others, key]

    def _flush(self, *keys: tuple[str, str]) -> Iterator[tuple[str, Document]]:
        datums = [key for key in self._waiting if key[0] == "datum"] if keys else []
        for key in dict.fromkeys([*datums, *keys]):  # before the events that refer to them
            yield self._waiting.pop(key).packed()


class _Page:
    """Documents with the same keys, which will be a page."""

    def __init__(self, name: str, first: Mapping[str, Any]) -> None:
        self._name, self._layout = PAGES[name]
        self._parts = [key for key, _ in self._layout.mappings] + list(self._layout.texts)
        self._form = self._form_of(first)
        mappings = {part: first[part] for part in self._parts if part in first}
        self._small = sum(map(len, mappings.values()))
        self._large = [
            (part, key)
            for part, mapping in mappings.items()
            for key, value in mapping.items()
            if not isinstance(value, (int, float))
        ]
        self.docs: list[Mapping[str, Any]] = []
        self._frozen = True
        self.cells = 0

    def _form_of(self, doc: Mapping[str, Any]) -> tuple[Any, ...]:
        return (doc.keys(), *(doc[part].keys() for part in self._parts if part in doc))

    def takes(self, doc: Mapping[str, Any]) -> bool:
        """Return whether a document has the same keys as those of the page, at all levels."""
        return self._form_of(doc) == self._form

    def add(self, doc: Mapping[str, Any]) -> None:
        """Add a document."""
        self.docs.append(doc)
        self._frozen = self._frozen and isinstance(doc, Document)
        self.cells += self._small
        for part, key in self._large:
            self.cells += _cells(doc[part][key])

    def packed(self) -> tuple[str, Document]:
        """Return the page as ``(name, doc)``."""
        docs = self.docs
        page: dict[str, Any] = {self._layout.owner: docs[0][self._layout.owner]}
        for key, first in docs[0].items():
            if key in self._parts:
                rows = [doc[key] for doc in docs]
                page[key] = FrozenDict({name: self._column(rows, name) for name in first})
            elif key != self._layout.owner:
                page[key] = self._column(docs, key)
        return self._name, Document(page)

    def _column(self, rows: Sequence[Mapping[str, Any]], name: str) -> FrozenList:
        column = FrozenList(map(itemgetter(name), rows))
        # The values of a Document are frozen already; those of other mappings may not be.
        return column if self._frozen else freeze(list(column))


def _cells(value: object) -> int:
    """Return roughly how many numbers or characters a cell holds.

    A list is judged by its first item.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return 1 + len(value) * (_cells(value[0]) if len(value) else 0)
    return int(getattr(value, "size", 1))
