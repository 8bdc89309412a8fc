"""Lists of runs, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise, takewhile
from textwrap import wrap
from typing import TYPE_CHECKING

from ..core.errors import DaskbrokerError
from ..core.printable import printable
from .facts import RunFacts
from .markup import Markup, badge, element, escaped, folded, html_table, joined, page, shortened
from .text_columns import NARROWEST, TextColumn, cut_to, lines, terminal_width

if TYPE_CHECKING:
    from ..header import Header

MAX_RUNS_SHOWN = 20
"""Maximum number of runs that are shown."""
FOLDED = 80
"""Maximum number of further runs in a folded table of HTML; any others are only counted."""
UID_LENGTH = 8
"""Length of a uid in a list; longer if several uids begin alike."""
LONGEST_CELL = 60
"""Maximum length of a cell's text."""
TIME_WIDTH = 25
"""Width of a time with its offset."""
MOST_NOTES = 5
"""Maximum number of notes below a list."""

HEADS = ["scan_id", "time", "plan", "sample", "motors", "points", "duration", "status", "uid"]
NUMBERS = ("scan_id", "points", "duration")


@dataclass(frozen=True)
class Listing:
    """The first runs of a list, ready to be shown.

    Attributes
    ----------
    title
        Title of the list.
    facts
        Facts of the first runs, at most ``MAX_RUNS_SHOWN + FOLDED``.
    count
        Number of all runs of the list.
    notes
        Notes shown below the list, for example that a run cannot be read.
    """

    title: str
    facts: Sequence[RunFacts]
    count: int
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        title: str,
        headers: Iterable[Header],
        count: int,
        notes: Sequence[str] = (),
        *,
        most: int = MAX_RUNS_SHOWN + FOLDED,
    ) -> Listing:
        """Make a listing of headers; at most ``most`` of them are fetched."""
        facts = [
            RunFacts.of(header.start, header.known_stop, header.db.timezone)
            for header in islice(headers, most)
        ]
        return cls(title, facts, count, notes)

    def noting(self, notes: Iterable[str]) -> Listing:
        """Return the same listing with more notes, each once, `MOST_NOTES` at most."""
        return replace(self, notes=list(dict.fromkeys((*self.notes, *notes)))[:MOST_NOTES])

    def text(self, width: int | None = None) -> str:
        """Return the listing as lines that fit a terminal."""
        width = terminal_width() if width is None else width
        shown = self.facts[:MAX_RUNS_SHOWN]
        made = [cut_to(line, width) for line in _title_lines(printable(self.title), width)]
        if shown:
            made += run_lines(shown, width)
        if self.count > len(shown):
            made.append(f"… {self.count - len(shown):,} more")
        return "\n".join([*made, *(cut_to(printable(note), width) for note in self.notes)])

    def markup(self) -> str:
        """Return the listing as HTML: a table of the first runs, with further ones folded."""
        first, more = self.facts[:MAX_RUNS_SHOWN], self.facts[MAX_RUNS_SHOWN:]
        parts: list[Markup] = [element("div", shortened(self.title), class_="title")]
        if first:
            parts.append(_table(first))
        if more:
            parts.append(folded(f"{len(more):,} more", _table(more)))
        if self.count > len(self.facts):
            left = f"… and {self.count - len(self.facts):,} more, which are not shown"
            parts.append(element("div", left, class_="dim"))
        parts += [element("div", shortened(note), class_="bad") for note in self.notes]
        return page(*parts)


def shown_or(title: str, make: Callable[[], str]) -> str:
    """Return the result of ``make``, or the title and the error if the store cannot be read."""
    try:
        return make()
    except DaskbrokerError as error:
        return f"{title} {escaped(error) if isinstance(title, Markup) else error}"


def run_lines(facts: Sequence[RunFacts], width: int) -> list[str]:
    """Return a heading and a line for each run, within a width."""
    return lines(_columns(facts), width)


def short_uids(uids: Sequence[str]) -> list[str]:
    """Shorten uids to the length, 8 at least, that still tells all of them apart."""

    def same(signs: tuple[str, str]) -> bool:
        return signs[0] == signs[1]

    # Of sorted texts, neighbours have the longest common beginnings.
    ordered = sorted(set(uids))
    alike = (sum(1 for _ in takewhile(same, zip(*pair))) for pair in pairwise(ordered))
    length = max(UID_LENGTH, max(alike, default=0) + 1)
    return [uid[:length] for uid in uids]


def _columns(facts: Sequence[RunFacts]) -> list[TextColumn]:
    def cells(name: str) -> list[str]:
        return [shortened(getattr(fact, name), LONGEST_CELL) for fact in facts]

    return [
        TextColumn("scan_id", cells("scan_id"), right=True, rank=2),
        TextColumn("time", [fact.time for fact in facts], least=TIME_WIDTH, rank=1),
        TextColumn("plan", cells("plan"), least=NARROWEST, rank=3),
        TextColumn("sample", cells("sample"), least=NARROWEST, rank=5),
        TextColumn("motors", cells("motors"), least=NARROWEST, rank=6),
        TextColumn("points", cells("points"), right=True, rank=5),
        TextColumn("duration", cells("duration"), right=True, rank=7),
        TextColumn("status", cells("marked_status"), rank=4),
        TextColumn("uid", short_uids([fact.uid for fact in facts])),
    ]


def _table(facts: Sequence[RunFacts]) -> Markup:
    return html_table(HEADS, [_row(fact) for fact in facts], NUMBERS)


def _row(fact: RunFacts) -> list[object]:
    told = (fact.plan, fact.sample, fact.motors, fact.points, fact.duration)
    shown = [shortened(text, LONGEST_CELL) for text in (fact.scan_id, *told)]
    return [shown[0], fact.time, *shown[1:], marks(fact), uid_markup(fact.uid)]


def marks(fact: RunFacts) -> Markup:
    """Return the status of a run, with badges if it is not ``success`` or the run is derived."""
    ordinary = fact.status == "success"
    kind = "open" if fact.is_open else "bad"
    status: object = fact.status if ordinary else badge(shortened(fact.status, LONGEST_CELL), kind)
    parts: list[object] = [status, " "] if fact.status else []
    if fact.is_derived:
        parts += [badge("derived", "derived"), " "]
    return joined(*parts)


def uid_markup(uid: str) -> Markup:
    """Return a uid of which eight characters are visible, but all are selected and copied."""
    return element("span", uid, class_="uid", title=shortened(uid))


def _title_lines(title: str, width: int) -> list[str]:
    """Return the lines of a title, broken between criteria, and only in longer ones at spaces."""
    lines: list[str] = []
    for criterion in re.split(r"(?<=,) ", title):
        if lines and len(lines[-1]) + 1 + len(criterion) <= width:
            lines[-1] += f" {criterion}"
        else:
            lines.append(criterion)
    return [piece for line in lines for piece in wrap(line, width, break_on_hyphens=False)]
