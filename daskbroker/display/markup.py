"""HTML that is safe by construction: all text is escaped, except HTML made by this module."""

from __future__ import annotations

import html

from ..core.printable import printable

MAX_TEXT_LENGTH = 400
"""Maximum length of a text that is shown in one place."""

STYLE = """
.daskbroker{font-size:13px;line-height:1.45;max-width:100%;overflow-x:auto}
.daskbroker.daskbroker table{border-collapse:collapse;margin:4px 0;border:0}
.daskbroker.daskbroker th,.daskbroker.daskbroker td{text-align:left;vertical-align:top;
padding:2px 10px 2px 0;border:0}
.daskbroker.daskbroker td{max-width:32em;overflow-wrap:anywhere}
.daskbroker.daskbroker thead th{border-bottom:1px solid rgba(128,128,128,.5);font-weight:600}
.daskbroker.daskbroker .number{text-align:right;font-variant-numeric:tabular-nums}
.daskbroker.daskbroker .dim{opacity:.65}
.daskbroker.daskbroker .title{font-size:15px;margin:2px 0}
.daskbroker.daskbroker .uid{font-family:monospace;font-size:inherit;display:inline-block;
width:8ch;overflow:hidden;white-space:nowrap;vertical-align:top;user-select:all;
-webkit-user-select:all}
.daskbroker.daskbroker .badge{border:1px solid currentColor;border-radius:8px;padding:0 6px;
font-size:11px}
.daskbroker.daskbroker .open{color:#2da44e}
.daskbroker.daskbroker .bad{color:#e5534b}
.daskbroker.daskbroker .derived{color:#a475f9}
.daskbroker.daskbroker details{margin:2px 0}
.daskbroker.daskbroker summary{cursor:pointer}
.daskbroker.daskbroker details>div,.daskbroker.daskbroker details>table,
.daskbroker.daskbroker details>details{margin-left:1.4em}
.daskbroker.daskbroker .key{opacity:.75}
.daskbroker.daskbroker .pictures{display:flex;flex-wrap:wrap;gap:16px;margin:6px 0}
.daskbroker.daskbroker figure{margin:0}
.daskbroker.daskbroker figcaption{opacity:.65;font-size:11px}
.daskbroker.daskbroker .pixels{image-rendering:pixelated}
"""
"""Style of the page. Rules name their class twice to override those of notebooks for tables."""


class Markup(str):
    """Text that is already HTML and is not escaped again."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Return any value as escaped HTML; :class:`Markup` is returned as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(value)))


def joined(*parts: object) -> Markup:
    """Concatenate parts, each escaped if it is not :class:`Markup`."""
    return Markup("".join(map(escaped, parts)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; ``class_`` becomes ``class``, and ``stroke_width`` ``stroke-width``."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{named}>{joined(*children)}</{tag}>")


def shortened(value: object, longest: int = MAX_TEXT_LENGTH) -> str:
    """Return a value as text of bounded length, with ``…`` at the end if it is cut."""
    text = value[: longest + 1] if isinstance(value, str) else str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def badge(text: str, style: str) -> Markup:
    """Return a word in a frame; ``style`` is ``"open"``, ``"bad"``, ``"derived"`` or ``""``."""
    return element("span", text, class_=f"badge {style}".rstrip())


def folded(summary: object, *children: object, opened: bool = False) -> Markup:
    """Return an element that shows its children when its summary is clicked."""
    attributes = {"open": "open"} if opened else {}
    return element("details", element("summary", summary), *children, **attributes)


def html_table(heads: list[str], rows: list[list[object]], numbers: tuple[str, ...] = ()) -> Markup:
    """Return a table; columns named in ``numbers`` are set flush right."""
    kinds: list[dict[str, object]] = [
        {"class_": "number"} if head in numbers else {} for head in heads
    ]
    head = element("tr", *(element("th", h, **kind) for h, kind in zip(heads, kinds)))
    body = (
        element("tr", *(element("td", cell, **kind) for cell, kind in zip(row, kinds)))
        for row in rows
    )
    return element("table", element("thead", head), element("tbody", *body))


def page(*children: object) -> str:
    """Return the HTML for a notebook: the parts with their style.

    It is a plain str, not :class:`Markup`: code that puts it into other HTML has to decide whether
    to escape it.
    """
    return str(
        element(
            "div",
            element("style", Markup("".join(STYLE.splitlines()))),
            *children,
            class_="daskbroker",
        )
    )
