"""Pages on their way in: which are stored as chunks at once, and how these are cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .layouts import EVENT, Layout

CHUNK_BYTES = 48 * 2**20
CHUNK_ROWS = 131_072
"""Size of the chunks that a page is cut into; one may hold up to half as much again."""


def is_columnar(layout: Layout, page: Mapping[str, Any], least: int) -> bool:
    """Return whether a page is stored as columns rather than row by row.

    It is if it has at least ``least`` rows or is large (:func:`is_large`), and has no keys that
    its layout does not know.
    """
    plain = page.keys() <= layout.keys and (layout is not EVENT or bool(page["data"]))
    rows = len(page[layout.uid])
    return plain and (rows >= least or (rows > 1 and is_large(layout, page)))


def is_large(layout: Layout, page: Mapping[str, Any]) -> bool:
    """Return whether a page fills a quarter of a chunk's rows or half of its bytes."""
    rows = len(page[layout.uid])
    return rows * 4 >= CHUNK_ROWS or rows * _row_bytes(layout, page) * 2 >= CHUNK_BYTES


def page_parts(layout: Layout, page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield equal parts of a page of about a chunk's size, so that no small rest is left."""
    rows = len(page[layout.uid])
    per_row = max(1, _row_bytes(layout, page))
    most = max(1, min(CHUNK_ROWS, CHUNK_BYTES // per_row))
    count = max(1, round(rows / most))
    if count == 1:
        yield page
        return
    step = -(-rows // count)
    for start in range(0, rows, step):
        yield {key: _cut(layout, key, value, start, start + step) for key, value in page.items()}


def _row_bytes(layout: Layout, page: Mapping[str, Any]) -> int:
    columns = [column for key, _ in layout.mappings for column in page[key].values()]
    return sum(_cell_bytes(column[0]) for column in columns if len(column)) + 64


def _cell_bytes(cell: object) -> int:
    if isinstance(cell, list):
        return len(cell) * _cell_bytes(cell[0]) if cell else 8
    return int(getattr(cell, "nbytes", 0)) or (len(cell) if isinstance(cell, str) else 8)


def _cut(layout: Layout, key: str, value: Any, start: int, stop: int) -> Any:
    if key == layout.owner:
        return value
    if isinstance(value, dict):
        return {name: cells[start:stop] for name, cells in value.items()}
    return value[start:stop]
