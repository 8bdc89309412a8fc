"""Pages of suitcase-mongo's layout "embedded", read as chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from bson.objectid import ObjectId

from ...core.chunks import with_columns
from ...core.errors import StoreDamaged
from ...core.layouts import DATUM, EVENT, Layout
from ...core.stored_documents import encode_stored_page
from .bson_documents import from_bson, was_object_id
from .database import Database
from .journal import event_projection

ALWAYS = {"descriptor": 1, "seq_num": 1, "time": 1, "uid": 1}
BOOKKEEPING = ("size", "first_index", "last_index")


def page_key(kind: str, run: str, page: Mapping[str, Any], *rows: int) -> tuple[Any, ...]:
    """Return the key of a page of a run, ``"event_page"`` or ``"datum_page"``.

    Raises
    ------
    StoreDamaged
        If its ``_id`` is no ObjectId, as those of suitcase-mongo are.
    """
    if not was_object_id(page["_id"]):
        raise StoreDamaged(f"{kind}, _id {page['_id']!r:.60}: its _id is no ObjectId")
    return (kind, run, page["_id"], *rows)


def read_page(database: Database, key: Any, columns: Sequence[str] | None) -> pa.Table:
    """Read a page of events or datums as a table.

    Parameters
    ----------
    database
        Databases of the store.
    key
        Key of :func:`page_key`.
    columns
        Physical names of the columns. Those that the page lacks are left out. All columns if None.

    Raises
    ------
    StoreDamaged
        If the page is not stored any more, or one of its columns has not a value for each row.
    """
    layout = EVENT if key[0] == "event_page" else DATUM
    shown = event_projection(columns) if layout is EVENT else None
    shown = None if shown is None else {**shown, **ALWAYS}
    with database.errors():
        found = database.collection(layout.kind).find_one({"_id": ObjectId(key[2])}, shown)
    if found is None:
        raise StoreDamaged(f"{database.label}: run {key[1]!r} has lost a page of {layout.kind}s")
    page = _cleaned(layout, found, f"{database.label}: run {key[1]!r}")
    table = encode_stored_page(layout, page, {"run": key[1], "kind": layout.kind})
    return with_columns(table, columns)


def _cleaned(layout: Layout, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a page without bookkeeping, after checking that all columns have the same length."""
    page = {key: value for key, value in from_bson(stored).items() if key not in BOOKKEEPING}
    listed = page.get(layout.uid)
    if not isinstance(listed, list):
        raise StoreDamaged(f"{where}: {layout.uid} of a page of {layout.kind}s must be a list")
    rows = len(listed)
    for key, _ in layout.mappings:
        if not isinstance(page.setdefault(key, {}), dict):
            raise StoreDamaged(f"{where}: {key} of a page of {layout.kind}s must be a mapping")
        for name, cells in page[key].items():
            if not isinstance(cells, list) or len(cells) != rows:
                # suitcase packs events of differing keys so that their values shift.
                raise StoreDamaged(
                    f"{where}: {key}.{name} does not have one value for each event in a page of "
                    f"{rows} {layout.kind}s; it is not known which value belongs to which event"
                )
    if layout is EVENT:  # an empty ``filled`` leaves no trace in this layout
        filled = page.get("filled", {})
        filled = filled if isinstance(filled, dict) else {}
        whole = all(isinstance(c, list) and len(c) == rows for c in filled.values())
        page["filled"] = filled if whole else {}
    return page
