"""Commands that show lists of runs, one run, or the content of a store."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.printable import counted, printable
from ..progress import progress_bar
from .app import (
    app,
    find_run,
    names_of,
    note_empty,
    say,
    say_json,
    say_lines,
    search,
    width_of_output,
)
from .options import AsJson, FailEmpty, Full, Limit, Place, Run, Since, Store, Terms, Until

if TYPE_CHECKING:
    from ..header import Header
    from ..results import Results
    from ..work.summary import StoreSummary

MAX_CELL_LENGTH = 36
"""Maximum length of a shown cell; a time with its offset must fit."""


class Format(StrEnum):
    """Formats of a list of runs."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command("ls")
def list_runs(
    terms: Terms = None,
    db: Store = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns: scan_id,sample,start:beamline.energy,stop:reason,config:det:gain."
        ),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="JSON has one object per run; CSV has uids in full.")
    ] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    fail_empty: FailEmpty = False,
) -> None:
    """List runs, newest first."""
    from ..connect import connect

    chosen = Format.JSON if as_json else format
    names = names_of(fields)
    with connect(db, create=False, mode="r") as broker:
        results = search(broker, terms, full, since, until)
        some: Any = results[:limit]
        if chosen is Format.TABLE:
            for line in _table(some, names):
                say(line)
        elif chosen is Format.CSV:
            _say_csv(some, names)
        else:
            for told in _objects(some, names):
                say_json(told)
        count = len(results)
        if chosen is Format.TABLE and limit is not None and count > limit:
            say(f"… {count - limit:,} more; --limit shows them")
        note_empty(count, fail=fail_empty)


def _table(runs: Results, names: list[str]) -> list[str]:
    from ..display.facts import RunFacts
    from ..display.listing import run_lines

    if names:
        from ..display.frame_text import frame_lines

        frame = runs.to_dataframe(names)
        return frame_lines(frame, width_of_output()) if len(frame) else []
    facts = [RunFacts.of(one.start, one.known_stop, one.db.timezone) for one in runs]
    return run_lines(facts, width_of_output()) if facts else []


def _say_csv(runs: Results, names: list[str]) -> None:
    from ..core.json_text import to_json
    from ..display.frame_text import plain_rows

    frame = runs.to_dataframe(names or None)
    _say_row(list(frame))
    for row in plain_rows(frame):
        _say_row([to_json(v) if isinstance(v, (dict, list)) else v for v in row.values()])


def _say_row(cells: list[Any]) -> None:
    text = io.StringIO()
    shown = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(text, lineterminator="").writerow(shown)
    say(text.getvalue())


def _objects(runs: Results, names: list[str]) -> Iterator[dict[str, Any]]:
    from ..display.frame_text import plain_rows

    if names:
        yield from plain_rows(runs.to_dataframe(names))
    else:
        for header in runs:
            yield {"start": header.start, "stop": header.known_stop}


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is an offset
def show(
    uid: Run,
    db: Store = None,
    stream: Annotated[str | None, typer.Option(help="Name of the only stream to show.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="Number of rows of each table.")] = 5,
    docs: Annotated[
        bool, typer.Option("--docs", help="Also show start, stop and descriptors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run: its metadata, its streams, and the first rows of each table."""
    from ..connect import connect
    from ..display.page import header_text

    with connect(db, create=False, mode="r") as broker:
        header = find_run(broker, uid)
        if as_json:
            say_json(_run_object(header, stream))
            return
        say_lines(header_text(header, width_of_output()))
        for name in header.streams if stream is None else [stream]:
            _say_head(header, name, rows)
        if docs:
            _say_documents(header, stream)
        else:
            say_lines(f"\ndocuments: {_documents_there(header)}; --docs shows them")


def _run_object(header: Header, stream: str | None) -> dict[str, Any]:
    """Return a run as JSON has it: start and stop, and rows and descriptors of its streams."""
    names = header.streams if stream is None else [stream]
    streams = {
        name: {
            "rows": len(header.table(name, fill=False)),
            "descriptors": header.descriptors[name],
        }
        for name in names
    }
    return {"start": header.start, "stop": header.known_stop, "streams": streams}


def _say_head(header: Header, name: str, rows: int) -> None:
    table = header.table(name, fill=False)
    head = table.head(rows, npartitions=-1)
    head = header.db.tz_convert(head).rename(columns=printable)
    say("")
    say(f"{name}: {counted(len(table), 'row')} x {counted(len(table.columns), 'column')}")
    say_lines(
        head.to_string(max_cols=8, max_colwidth=MAX_CELL_LENGTH, line_width=width_of_output())
        if rows and len(head)
        else "  ".join(map(str, head.columns))
    )


def _documents_there(header: Header) -> str:
    count = sum(map(len, header.descriptors.values()))
    stop = "" if header.known_stop is None else " and stop"
    return f"start{stop}, {count:,} descriptor{'' if count == 1 else 's'}"


def _say_documents(header: Header, stream: str | None) -> None:
    from ..display.tree import document_text

    shown = [("start", header.start)]
    if header.known_stop is not None:
        shown.append(("stop", header.known_stop))
    for name, descriptors in header.descriptors.items():
        if stream in (None, name):
            shown += [(f"descriptor of {name}", one) for one in descriptors]
    for title, doc in shown:
        say_lines(f"\n{printable(title)}:")
        text = document_text(doc, header.db.timezone, width_of_output())
        say_lines("\n".join(f"  {line}" for line in text.split("\n")))


@app.command()
def info(
    place: Place = None,
    db: Store = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Leave out numbers that need all runs to be read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the content of a store: runs, streams, sealed and unsealed rows, size, format, zone."""
    from ..connect import connect
    from ..display.facts import RunFacts
    from ..display.listing import run_lines
    from ..work.summary import count_runs, summarize

    with connect(place or db, create=False, mode="r") as broker:
        summary = summarize(broker)
        if not brief:
            runs = broker()
            count_runs(summary, broker, progress_bar(runs, " runs"))
        newest = list(islice(broker(), 1))
        if as_json:
            uid = newest[0].uid if newest else None
            say_json({**summary.to_dict(), "newest": uid})
            return
        for line in _summary_lines(summary):
            say(line)
        facts = [RunFacts.of(one.start, one.known_stop, one.db.timezone) for one in newest]
        if facts:
            say("newest:")
            for line in run_lines(facts, width_of_output()):
                say(f"  {line}")


def _summary_lines(summary: StoreSummary) -> Iterator[str]:
    """Return the description of a store as lines."""
    from dask.utils import format_bytes

    unfinished = f", {summary.open:,} of them open" if summary.open else ""
    yield f"{summary.place}: {counted(summary.runs, 'run')}{unfinished}"
    yield f"{'zone:':<8} {summary.timezone}"
    for source in summary.sources:
        size = "not known" if source.bytes is None else format_bytes(source.bytes)
        version = "not noted" if source.format is None else str(source.format)
        of = "" if len(summary.sources) == 1 else f"  (event source {source.name})"
        yield f"{'format:':<8} {version}{of}"
        yield f"{'size:':<8} {size}{of}"
    if summary.streams is not None:
        yield f"{'rows:':<8} {summary.sealed:,} sealed, {summary.waiting:,} not"
        for name, stream in sorted(summary.streams.items()):
            rows, runs = counted(stream.rows, "row"), counted(stream.runs, "run")
            yield f"{'stream:':<8} {name}: {rows} of {runs}"
