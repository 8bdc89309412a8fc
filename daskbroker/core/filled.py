"""Filled events that keep their unfilled form, with references in place of values.

Documents of a broker that are inserted again are meant as a copy of the run. Values that were
filled for the reader have to be references again in the copy, not pixels. So a document that was
filled here carries its unfilled form. Every copy of it that can be changed is a plain dict and has
no such form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .documents import Document
from .frozen import FROZEN, FrozenDict, FrozenList, freeze


class FilledDocument(Document):
    """An event or event_page with external data in place of references; see `unfilled_form`.

    Structured arrays in its data stay arrays, as those of numbers do. (In other documents they are
    lists of rows.)
    """

    __slots__ = ("_unfilled",)

    @classmethod
    def of(cls, filled: Mapping[str, Any], unfilled: Mapping[str, Any]) -> FilledDocument:
        """Return a filled document that keeps its unfilled form.

        Parameters
        ----------
        filled
            Content of the document.
        unfilled
            Document that was filled; other keys of it may have been filled before.
        """
        doc = cls({**filled, "data": _frozen_data(filled["data"])})
        before = unfilled_form(unfilled)
        object.__setattr__(doc, "_unfilled", as_document(before))
        return doc

    def __reduce__(self) -> tuple[Any, ...]:
        return (FilledDocument.of, (self.copy(), self._unfilled.copy()))


def _frozen_data(data: Mapping[str, Any]) -> FrozenDict:
    if type(data) is FrozenDict:
        return data
    return FrozenDict((k, v if type(v) in FROZEN else _frozen(v)) for k, v in data.items())


def _frozen(value: Any) -> Any:
    """Return a value as :func:`~.frozen.freeze` does, but structured arrays as read-only views."""
    if isinstance(value, np.ndarray) and value.dtype.names:
        view = value.view()
        view.flags.writeable = False
        return view
    if type(value) is list:  # as a column of an event_page
        return FrozenList(map(_frozen, value))
    return freeze(value)


def unfilled_form(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the unfilled form of a document, or the document itself if none is known."""
    return doc._unfilled if isinstance(doc, FilledDocument) else doc


def as_document(doc: Mapping[str, Any]) -> Document:
    """Return the mapping as a :class:`Document`; one that is a Document is returned as it is."""
    return doc if isinstance(doc, Document) else Document(doc)


def read_only(values: Any) -> Any:
    """Make an array read-only for good and return it; anything else is returned as it is.

    A document holds what was read, so no view of it may be made writeable again.
    """
    array = values
    # A view can be made writeable again as long as an array that it is a view of is writeable.
    while isinstance(array, np.ndarray):
        array.flags.writeable = False
        array = array.base
    return values
