"""Rules for documents that a store may already have, or whose run it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.documents import Document, equal
from ..core.errors import DuplicateUID, UnknownReference
from ..core.layouts import Layout
from ..core.validate import document_label

if TYPE_CHECKING:
    from .event_store import EventStore


def is_repeated(name: str, doc: Mapping[str, Any], there: Mapping[str, Any] | None) -> bool:
    """Return whether a document is already stored; every store asks this before it stores one.

    Parameters
    ----------
    name, doc
        Name and content of the document to be stored.
    there
        Document stored under the same uid (for a stop: under the same run); None if there is
        none.

    Raises
    ------
    DuplicateUID
        If a different document is stored there.
    """
    if there is None or equal(there, doc):
        return there is not None
    what = "run" if name == "start" else name
    of_run = " or for its run" if name == "stop" else ""
    raise DuplicateUID(
        f"{document_label(name, doc)}: a different {what} is stored under this uid{of_run}"
    )


def new_rows(
    layout: Layout,
    rows: Sequence[Mapping[str, Any]],
    stored: Callable[[str], Mapping[str, Any] | None],
) -> list[Mapping[str, Any]]:
    """Return the rows that are not stored yet, each of them once, in the given order.

    Parameters
    ----------
    layout, rows
        Layout and rows, as for :meth:`EventStore.append`.
    stored
        Function that returns the row of the run that is stored under a uid, or None.

    Raises
    ------
    DuplicateUID
        If a different row has the same uid; see :func:`is_repeated`.
    """
    new: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        uid = row[layout.uid]
        if not is_repeated(layout.kind, row, new.get(uid) or stored(uid)):
            new[uid] = row
    return list(new.values())


def stored_descriptor(store: EventStore, uid: str) -> Document:
    """Return the descriptor of events that are to be stored.

    Raises
    ------
    UnknownReference
        If it is not stored.
    """
    found = store.find_descriptor(uid)
    if found is None:
        raise UnknownReference(f"descriptor {uid!r} of some events is not stored; insert it first")
    return found


def unknown_run(name: str, doc: Mapping[str, Any], run: str | None) -> UnknownReference:
    """Return the error to raise for a document whose run is not stored."""
    return UnknownReference(
        f"{document_label(name, doc)}: its run {run!r} is not stored; "
        "insert its start document first"
    )
