"""Documents as trees, folded in a notebook and indented in a terminal, with readable times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..core.clock import resolved_zone, show_time
from ..core.printable import printable
from ..core.settings import setting
from .markup import Markup, element, folded, page, shortened
from .text_columns import cut_to, terminal_width

MOST_ITEMS = 200
"""Maximum number of items of a mapping or a list that are shown."""
MOST_NODES = 3000
"""Maximum number of items of a document that are shown."""
LONGEST_INLINE = 80
"""Maximum length, of items and of text, of a list of plain values that is shown in one line."""
MAX_TREE_DEPTH = 50
"""Maximum depth of a tree; deeper values are shown in one line."""

Items = list[tuple[str, Any, bool]]
"""Name and value of each item, and whether the value is a time."""


class _Budget:
    """Number of items of a document that may still be shown."""

    def __init__(self) -> None:
        self.left = MOST_NODES

    def take(self, items: Iterator[tuple[str, Any, bool]]) -> Items:
        """Take as many items as may be shown here, and count them."""
        taken = list(islice(items, min(MOST_ITEMS, max(self.left, 0))))
        self.left -= len(taken)
        return taken


def document_markup(document: Mapping[str, Any], zone: str | None = None) -> str:
    """Return a document as HTML for a notebook, with times in a zone (that of the settings)."""
    return page(*_branches(document, "", _zone(zone), _Budget(), 0))


def folded_tree(name: str, value: Any, zone: str) -> Markup:
    """Return a mapping as a folded tree under a name."""
    return folded(_summary(name, value), *_branches(value, "", zone, _Budget(), 0))


def document_text(
    document: Mapping[str, Any], zone: str | None = None, width: int | None = None
) -> str:
    """Return a document as the lines of an indented tree that fit a terminal."""
    width = terminal_width() if width is None else width
    found = _lines(document, "", _zone(zone), _Budget(), 0)
    return "\n".join(cut_to(line, width) for line in found)


def _zone(zone: str | None) -> str:
    return resolved_zone(setting("timezone")) if zone is None else zone


def _items(value: Any, name: str) -> Iterator[tuple[str, Any, bool]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            is_number = isinstance(item, (int, float)) and not isinstance(item, bool)
            yield str(key), item, is_number and (key == "time" or name == "timestamps")
    else:
        for position, item in enumerate(value):
            yield f"[{position}]", item, False


def _is_branch(value: object) -> bool:
    """Whether a value is shown as a subtree rather than in one line."""
    if isinstance(value, Mapping):
        return bool(value)
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return _inline(value) is None


def _inline(value: Sequence[Any]) -> str | None:
    """Return a short list of plain values as one line; None if it is not one."""
    if len(value) > LONGEST_INLINE or any(isinstance(v, (Mapping, np.ndarray)) for v in value):
        return None
    parts = []
    for item in value:
        part: str | None
        if isinstance(item, (list, tuple)):
            part = _inline(item)
        elif isinstance(item, str):
            part = repr(shortened(item))
        else:
            part = _leaf(item, is_time=False, zone="UTC")
        if part is None:
            return None
        parts.append(part)
    text = f"[{', '.join(parts)}]"
    return text if len(text) <= LONGEST_INLINE else None


def _leaf(value: object, *, is_time: bool, zone: str) -> str:
    if is_time:
        return show_time(value, zone)
    if isinstance(value, np.ndarray):
        return f"array of {value.dtype}, shape {value.shape}"
    if isinstance(value, (list, tuple)):
        return _inline(value) or f"{len(value):,} items"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return shortened(value) if isinstance(value, str) else shortened(repr(value))


def _summary(name: str, value: Any) -> Markup:
    what = "key" if isinstance(value, Mapping) else "item"
    size = f"{len(value):,} {what}" + "s" * (len(value) != 1)
    return element("span", shortened(name), " ", element("span", size, class_="dim"))


def _branches(value: Any, name: str, zone: str, budget: _Budget, level: int) -> Iterator[Markup]:
    taken = budget.take(_items(value, name))
    for key, item, is_time in taken:
        if _is_branch(item) and level < MAX_TREE_DEPTH:
            inside = _branches(item, key, zone, budget, level + 1)
            yield folded(_summary(key, item), *inside)
        else:
            shown = _leaf(item, is_time=is_time, zone=zone)
            title = {"title": repr(item)} if is_time else {}
            label = element("span", f"{shortened(key)}: ", class_="key")
            yield element("div", label, element("span", shown, **title))
    if len(value) > len(taken):
        yield element("div", f"… {len(value) - len(taken):,} more", class_="dim")


def _lines(value: Any, name: str, zone: str, budget: _Budget, level: int) -> Iterator[str]:
    indent = "  " * level
    taken = budget.take(_items(value, name))
    for key, item, is_time in taken:
        label = f"{indent}{printable(shortened(key))}:"
        if _is_branch(item) and level < MAX_TREE_DEPTH:
            yield label
            yield from _lines(item, key, zone, budget, level + 1)
        else:
            yield f"{label} {printable(_leaf(item, is_time=is_time, zone=zone))}"
    if len(value) > len(taken):
        yield f"{indent}… {len(value) - len(taken):,} more"
