"""Text in columns, fitted to the width of a terminal."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.printable import printable

GAP = "  "
NARROWEST = 8
"""Minimum width to which a column of text is narrowed; then columns are left out instead."""


@dataclass(frozen=True)
class TextColumn:
    """A column of text.

    Attributes
    ----------
    head
        Heading.
    cells
        Texts of the rows, one line each.
    right
        Whether the column is set flush right.
    least
        Minimum width to which it may be narrowed in a narrow terminal; not narrowed if None.
    rank
        Columns of the highest rank are left out first; those of rank 0 never.
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    least: int | None = None
    rank: int = 0


def terminal_width() -> int:
    """Return the width of the terminal, or ``COLUMNS``; 100 if there is neither, at least 20."""
    return max(shutil.get_terminal_size((100, 24)).columns, 20)


def text_width(text: str) -> int:
    """Return the number of columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_sign_width, text))


def _sign_width(sign: str) -> int:
    if unicodedata.category(sign) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in ("W", "F") else 1


def cut_to(text: str, width: int) -> str:
    """Cut a text to a maximum number of columns, with ``…`` at the end if it is cut."""
    if text_width(text) <= width:
        return text
    kept, used = [], 0
    for sign in text:
        used += _sign_width(sign)
        if used > width - 1:
            break
        kept.append(sign)
    return "".join(kept) + "…"


def lines(columns: Sequence[TextColumn], width: int) -> list[str]:
    """Return the lines of a heading and of all rows.

    Columns are narrowed, then left out, until the lines fit the width.
    """
    columns = [replace(one, cells=[printable(cell) for cell in one.cells]) for one in columns]
    while True:
        widths = _fitted(columns, width)
        most = max(column.rank for column in columns)
        if widths is not None or most == 0:
            break
        columns = [column for column in columns if column.rank < most]
    widths = widths or [_natural(column) for column in columns]
    made = [
        [_set(text, size, right=column.right) for text in (column.head, *column.cells)]
        for column, size in zip(columns, widths)
    ]
    return [cut_to(GAP.join(row).rstrip(), width) for row in zip(*made)]


def _natural(column: TextColumn) -> int:
    return max(map(text_width, (column.head, *column.cells)))


def _fitted(columns: Sequence[TextColumn], width: int) -> list[int] | None:
    """Return widths that fit, narrowing the widest column first; None if none fit."""
    widths = [_natural(column) for column in columns]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        wide = [
            (widths[position], position)
            for position, column in enumerate(columns)
            if column.least is not None and widths[position] > max(column.least, len(column.head))
        ]
        if not wide:
            return None
        widths[max(wide)[1]] -= 1
    return widths


def _set(text: str, width: int, *, right: bool) -> str:
    text = cut_to(text, width)
    space = " " * (width - text_width(text))
    return space + text if right else text + space
