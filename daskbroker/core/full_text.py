"""Full-text search over the values of documents, but not their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from . import advice
from .errors import BadQuery
from .patterns import search_pattern
from .printable import shown

METHODS = ("text", "substring", "regex")
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words of a text: sequences of letters, digits and underscores, casefolded."""
    return _WORD.findall(text.casefold())


def leaf_texts(value: Any) -> Iterator[str]:
    """Yield every text, number and UUID among the values, as Python writes it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaf_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaf_texts(item)
    elif value is not None and not isinstance(value, (bool, bytes)):
        yield str(value)


def document_words(*docs: Mapping[str, Any] | None) -> set[str]:
    """Return the words of all values of some documents."""
    return {word for doc in docs if doc is not None for t in leaf_texts(doc) for word in words(t)}


class TextQuery:
    """A full-text query, as in ``db(full=..., search=...)``.

    Parameters
    ----------
    full
        Text to search for.
    search
        Method: ``"text"`` if each of its words must be a word of some value; ``"substring"`` if
        some value must contain it, regardless of case; ``"regex"`` if it is a pattern that must
        match somewhere in some value.

    Attributes
    ----------
    words
        Sorted words of the text, for use with an index; None unless the method is ``"text"``.

    Raises
    ------
    BadQuery
        If the text, the method or the pattern is not valid.
    """

    def __init__(self, full: str, search: str = "text") -> None:
        if search not in METHODS:
            # RE.subscribe(db) calls it with the names and documents of a run.
            meant = "; db.insert inserts documents" if isinstance(search, Mapping) else ""
            raise BadQuery(f"search: {shown(search)} is not one of {', '.join(METHODS)}{meant}")
        if not isinstance(full, str) or not full.strip():
            meant = ""
            # An object of queries, of a mapping or of Tiled, is meant as a condition.
            if not isinstance(full, str):
                meant = f"; a key is searched by {advice.words(key=advice.ANY)}"
            raise BadQuery(f"full: what to search for must be text, not {shown(full)}{meant}")
        self.full, self.search = full, search
        self.words = sorted(set(words(full))) if search == "text" else None
        if self.words == []:
            raise BadQuery(
                f"full: {shown(full)} contains no word; search='substring' searches for any "
                "characters"
            )
        self._folded = full.casefold()
        self._pattern = search_pattern(full, "", "full") if search == "regex" else None

    def matches(self, *docs: Mapping[str, Any] | None) -> bool:
        """Return whether the documents together match.

        Raises
        ------
        BadQuery
            If a regular expression takes too long.
        """
        if self.words is not None:
            return document_words(*docs).issuperset(self.words)
        texts = (text for doc in docs if doc is not None for text in leaf_texts(doc))
        if self._pattern is not None:
            return any(map(self._pattern, texts))
        return any(self._folded in text.casefold() for text in texts)

    def __reduce__(self) -> tuple[Any, ...]:
        return (TextQuery, (self.full, self.search))

    def __repr__(self) -> str:
        return f"TextQuery({self.full!r}, {self.search!r})"
