"""Filled events that remember what they were before: references in place of values.

Whoever inserts documents that a broker gave, wants a copy of the run. What a stream filled for the
reader is to be a reference again in the copy, not pixels. So a document that was filled here, and
that nobody changed, has its unfilled form with it; every copy that can be changed is a plain dict
and has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .documents import Document

__all__ = ["FilledDocument", "as_document", "read_only", "unfilled_form"]


class FilledDocument(Document):
    """An event, or event_page, with external data in place of references; see `unfilled_form`."""

    __slots__ = ("_unfilled",)

    @classmethod
    def of(cls, filled: Mapping[str, Any], unfilled: Mapping[str, Any]) -> FilledDocument:
        """A filled document.

        Parameters
        ----------
        filled
            What it holds.
        unfilled
            What it was made of; itself filled, perhaps, as far as its other keys go.
        """
        doc = cls(filled)
        before = unfilled_form(unfilled)
        object.__setattr__(doc, "_unfilled", as_document(before))
        return doc

    def __reduce__(self) -> tuple[Any, ...]:
        return (FilledDocument.of, (self.copy(), self._unfilled.copy()))


def unfilled_form(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a document was before it was filled; itself, if that is not known."""
    return doc._unfilled if isinstance(doc, FilledDocument) else doc


def as_document(doc: Mapping[str, Any]) -> Document:
    """The mapping as a document; one that is such already is itself."""
    return doc if isinstance(doc, Document) else Document(doc)


def read_only(values: Any) -> Any:
    """Values of which no view can be made writable: what a document holds is what was read."""
    array = values
    while isinstance(array, np.ndarray):
        array.flags.writeable = False
        array = array.base
    return values
