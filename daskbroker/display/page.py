"""The page of one run: plan, time, duration, sample, motors, detectors, streams, documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import DaskbrokerError
from ..core.printable import printable, shown
from ..core.search import origin_of
from .facts import RunFacts, names_in, text_of
from .listing import marks, uid_markup
from .markup import Markup, element, joined, page, shortened
from .streams import Streams
from .text_columns import cut_to, terminal_width
from .thumbnails import thumbnails
from .tree import folded_tree

if TYPE_CHECKING:
    from ..header import Header


def header_line(header: Header) -> str:
    """Return a run in one line, from its start and stop documents only."""
    fact = _fact(header)
    origin = origin_of(header.start)
    told = {
        "uid": fact.uid,
        "scan_id": header.start.get("scan_id", ""),
        "plan_name": fact.plan,
        "time": fact.time,
        "exit_status": fact.status,
        **({"derived_from": origin} if origin else {}),
    }
    return "<Header " + " ".join(f"{k}={shown(v)}" for k, v in told.items() if v != "") + ">"


def header_text(header: Header, width: int | None = None) -> str:
    """Return the page as lines that fit a terminal."""
    width = terminal_width() if width is None else width
    fact = _fact(header)
    found = [_title(fact) + f"  {fact.uid}"]
    found += [f"{name + ':':<10} {value}" for name, value in _told(header, fact)]
    try:
        found += Streams(header).lines()
    except DaskbrokerError as error:  # the rest of the page is shown anyway
        found.append(f"streams: {error}")
    return "\n".join(cut_to(printable(line), width) for line in found)


def header_markup(header: Header) -> str:
    """Return the page as HTML, with small pictures and with the documents folded."""
    fact = _fact(header)
    zone = header.db.timezone
    title = element(
        "div",
        joined(
            element("b", shortened(_title(fact), 120)), " ", uid_markup(fact.uid), " ", marks(fact)
        ),
        class_="title",
    )
    rows = (
        element("tr", element("th", name), element("td", shortened(value)))
        for name, value in _told(header, fact)
        if name != "status"  # it is shown beside the title
    )
    documents = [folded_tree("start", header.start, zone)]
    if header.known_stop is not None:
        documents.append(folded_tree("stop", header.known_stop, zone))
    return page(title, element("table", *rows), _streams(header), *documents)


def _streams(header: Header) -> Markup:
    try:
        streams = Streams(header)
        pictures = thumbnails(header, streams.descriptors, streams.rows)
        return joined(pictures, streams.markup(), streams.configuration())
    except DaskbrokerError as error:  # the rest of the page is shown anyway
        return element("div", f"streams: {error}", class_="bad")


def _fact(header: Header) -> RunFacts:
    return RunFacts.of(header.start, header.known_stop, header.db.timezone)


def _title(fact: RunFacts) -> str:
    return " ".join(part for part in (fact.plan or "run", fact.scan_id) if part)


def _told(header: Header, fact: RunFacts) -> list[tuple[str, str]]:
    """Return the names and values of those facts that are known."""
    start, stop = header.start, {} if header.known_stop is None else header.known_stop
    lasted = f", {fact.duration}" if fact.duration else ""
    told = [
        ("time", fact.time + lasted),
        ("status", fact.status),
        ("reason", text_of(stop.get("reason"))),
        ("sample", fact.sample),
        ("purpose", text_of(start.get("purpose"))),
        ("motors", fact.motors),
        ("detectors", ", ".join(names_in(start, "detectors"))),
        ("points", fact.points),
        ("made of", _origin(start)),
    ]
    return [(name, value) for name, value in told if value]


def _origin(start: Mapping[str, Any]) -> str:
    """Return the uids of the runs that a derived run was made from, as text."""
    origin = start.get("derived_from")
    runs = origin.get("runs") if isinstance(origin, Mapping) else origin
    if isinstance(runs, (list, tuple)):
        return ", ".join(map(str, runs))
    return text_of(runs)
