"""Commands on whole stores: what they hold, sealing, indexes, copying, configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..broker import DataBroker
from ..configuration import list_configurations, search_folders, unreadable_files
from ..connect import connect
from ..core.errors import BadDocument, StoreDamaged
from ..header import Header
from ..progress import progress_bar
from ..work.copying import copy as copy_runs
from .app import Full, Limit, Since, Store, Terms, Until, app, line_of, search

__all__ = ["config", "copy", "index", "info", "seal"]

Place = Annotated[str | None, typer.Argument(help="Store, in place of --db.", metavar="[PLACE]")]


@app.command()
def info(place: Place = None, db: Store = None) -> None:
    """Say what a store holds."""
    with connect(place or db, create=False, mode="r") as broker:
        runs = len(broker)
        typer.echo(f"{broker.uri}: {runs:,} runs")
        if runs:
            typer.echo(f"newest: {line_of(broker[-1])}")


@app.command()
def seal(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Store, in place of --db; then key=value of the start documents.",
            metavar="[PLACE] [KEY=VALUE]...",
        ),
    ] = None,
    db: Store = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    keep_journal: Annotated[
        bool, typer.Option("--keep-journal", help="Leave events for databroker to read, too.")
    ] = False,
    peek: Annotated[
        bool,
        typer.Option("--peek", help="Look into detector files for shape and dtype, and remember."),
    ] = False,
) -> None:
    """Pack journalled events into columnar chunks, run by run; may be interrupted and repeated."""
    place, terms = _place_and_terms(words or [])
    made, peeked, failed = 0, 0, []
    with connect(place or db, create=False) as broker:
        results = search(broker, terms, full, since, until)
        for header in progress_bar(results, " runs"):
            try:
                made += broker.seal(header, keep_journal=keep_journal)
                peeked += broker.peek(header) if peek else 0
            except (BadDocument, StoreDamaged) as error:
                failed.append(f"{header.uid}: {error}")
        if not (terms or full or since or until or keep_journal):
            made += broker.seal()  # what killed processes left, also of no run
        typer.echo(f"{made:,} chunks made of {len(results):,} runs in {broker.uri}")
        if peek:
            typer.echo(f"{peeked:,} detector keys looked into")
    _report_failed(failed)


def _place_and_terms(words: list[str]) -> tuple[str | None, list[str]]:
    """The first word is a place unless it looks like ``key=value``."""
    if words and ("://" in words[0] or "=" not in words[0]):
        return words[0], words[1:]
    return None, words


@app.command()
def index(
    place: Place = None,
    db: Store = None,
    peek: Annotated[
        bool,
        typer.Option(
            "--peek/--no-peek",
            help="Look into the detector files of all runs, too, for shape and dtype.",
        ),
    ] = True,
) -> None:
    """Make the indexes that a database lacks, and remember what its detector files hold."""
    failed: list[str] = []
    with connect(place or db, create=False) as broker:
        made = broker.header_source.store.create_indexes()
        for source in broker.event_sources.values():
            made += source.store.create_indexes()
        for name in made:
            typer.echo(name)
        typer.echo(f"{len(made):,} indexes made in {broker.uri}")
        if peek:
            failed = _look_into_all(broker)
    _report_failed(failed)


def _look_into_all(broker: DataBroker) -> list[str]:
    """Look into the detector files of all runs; what went wrong."""
    peeked, failed = 0, []
    for header in progress_bar(broker(), " runs"):
        try:
            peeked += broker.peek(header)
        except (BadDocument, StoreDamaged) as error:
            failed.append(f"{header.uid}: {error}")
    typer.echo(f"{peeked:,} detector keys looked into")
    return failed


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Store to copy from.")],
    target: Annotated[str, typer.Argument(help="Store to copy into.")],
    terms: Terms = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    files: Annotated[
        Path | None, typer.Option(help="Copy detector files, too, below this folder.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what is there already, too.")
    ] = False,
) -> None:
    """Copy runs between any two stores, checking each; may be interrupted and repeated."""
    with connect(source, create=False, mode="r") as origin, connect(target) as into:
        found = search(origin, terms, full, since, until)
        runs = found if limit is None else found[:limit]
        bar = progress_bar(reversed(runs), " runs", of=runs)

        def progress(header: Header, documents: int) -> None:
            bar.set_postfix_str(f"{header.uid[:8]}: {documents:,} documents")

        report = copy_runs(bar, into, files=files, verify=verify, progress=progress)
        typer.echo(f"{report} from {origin.uri} into {into.uri}")
    _report_failed([f"{uid}: {reason}" for uid, reason in report.failed.items()])


@app.command()
def config(
    folders: Annotated[
        bool, typer.Option("--folders", help="Show where they are looked for.")
    ] = False,
) -> None:
    """List the configurations that can be opened by name."""
    if folders:
        for folder in search_folders():
            typer.echo(f"{folder}{'' if folder.exists() else '  (not there)'}")
        return
    seen: set[str] = set()
    for found in list_configurations():
        hidden = "  (hidden by the first of this name)" if found.name in seen else ""
        seen.add(found.name)
        typer.echo(f"{found.name:<20} {found.kind:<10} {found.target()}  {found.file}{hidden}")
    if not seen:
        typer.echo("there is no configuration; --folders shows where they are looked for")
    for message in unreadable_files():
        typer.echo(f"not readable: {message}", err=True)


def _report_failed(messages: list[str]) -> None:
    for message in messages:
        typer.echo(f"failed: {message}", err=True)
    if messages:
        raise typer.Exit(1)
