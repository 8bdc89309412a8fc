"""Commands on runs: making, ingesting, listing, showing, exporting them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..connect import connect
from ..core.json_text import json_form, to_json
from ..core.printable import printable
from ..progress import progress_bar
from .app import (
    Full,
    Limit,
    Since,
    Store,
    Terms,
    Until,
    app,
    every_run,
    find_run,
    line_of,
    making_store,
    pair_of,
    say,
    say_lines,
    search,
)

__all__ = ["demo", "export", "ingest", "list_runs", "show"]

LONGEST = 36
"""Of a cell that is shown: a time with its offset must not be cut."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where store and picture go.")] = Path(
        "daskbroker-demo"
    ),
) -> None:
    """Make real runs, store them, and show what they look like."""
    from ..demo import make_runs, tour

    with connect(folder / "store") as db:
        maker = make_runs(db)
        say_lines(f"Runs made by {maker}, stored in {folder / 'store'}.\n")
        tour(db, folder, say_lines)
    say_lines(f"\nGo on with:  daskbroker ls --db {folder / 'store'}")


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders of recorded documents.")],
    db: Store = None,
    define: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for a placeholder {{ NAME }}.")
    ] = None,
) -> None:
    """Bring recorded documents in (JSON, JSON lines, msgpack, gzip, zip), and saved datasets."""
    from ..work.ingest import ingest as ingest_paths

    defined = dict(pair_of(text) for text in define or ())
    with making_store(db) as broker, progress_bar(None, " documents") as bar:

        def progress(file: Path, documents: int) -> None:
            bar.set_postfix_str(printable(file.name[-40:]), refresh=False)
            bar.update(documents - bar.n)

        report = ingest_paths(broker, paths, defined, progress)
        bar.close()
        say(f"{report} into {broker.uri}")
        for refusal in report.refusals:
            place = "" if refusal.reason.startswith(refusal.where) else f"{refusal.where}: "
            say(f"refused: {place}{refusal.reason}", err=True)
        if report.refused > len(report.refusals):
            say(f"refused: and {report.refused - len(report.refusals):,} more", err=True)
    if report.refused:
        raise typer.Exit(1)


@app.command("ls")
def list_runs(
    terms: Terms = None,
    db: Store = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
) -> None:
    """List runs, newest first."""
    with connect(db, create=False, mode="r") as broker:
        results = search(broker, terms, full, since, until)
        for header in results[:limit]:
            if as_json:
                say(to_json({"start": header.start, "stop": header.known_stop}))
            else:
                say(line_of(header))
        count = len(results)
        if not as_json and limit is not None and count > limit:
            say(f"… {count - limit:,} more; --limit shows them")


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is an offset
def show(
    uid: Annotated[str, typer.Argument(help="uid, prefix, scan_id or offset such as -1.")],
    db: Store = None,
    stream: Annotated[str | None, typer.Option(help="Only this stream.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows of each table.")] = 5,
) -> None:
    """Show a run: its metadata, and the head of each stream's table."""
    with connect(db, create=False, mode="r") as broker:
        header = find_run(broker, uid)
        say(line_of(header))
        for name, doc in (("start", header.start), ("stop", header.known_stop)):
            text = json.dumps(doc, indent=2, ensure_ascii=False, default=json_form)
            say_lines(f"\n{name}: {text}")
        for name in header.streams if stream is None else [stream]:
            table = header.table(name, fill=False)
            head = broker.tz_convert(table.head(rows, npartitions=-1)).rename(columns=printable)
            say("")
            say(f"{name}: {len(table):,} rows x {len(table.columns)} columns")
            say_lines(head.to_string(max_cols=8, max_colwidth=LONGEST))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    terms: Terms = None,
    db: Store = None,
    uid: Annotated[list[str] | None, typer.Option(help="These runs only.")] = None,
    format: Annotated[
        str, typer.Option(help="jsonl, parquet, netcdf, zarr, csv or nexus.")
    ] = "jsonl",
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    files: Annotated[
        Path | None, typer.Option(help="Copy detector files, too, below this folder.")
    ] = None,
    stream: Annotated[str | None, typer.Option(help="Only this stream.")] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Frames in place of references.")] = False,
    arrays: Annotated[
        str, typer.Option(help="Columns with arrays in CSV: raise, or drop to leave them out.")
    ] = "raise",
    partition: Annotated[
        str | None, typer.Option(help="run: a Parquet folder that grows by new runs only.")
    ] = None,
) -> None:
    """Write runs as files: documents, tables, datasets."""
    from ..core.documents import ALL
    from ..exporting.runs import export as export_runs

    with every_run(), connect(db, create=False, mode="r") as broker:
        found = search(broker, terms, full, since, until)[:limit]
        headers = [find_run(broker, one) for one in uid] if uid else found
        bar = progress_bar(headers, " runs")
        options: dict[str, Any] = {
            "files": files,
            "fill": fill,
            "arrays": arrays,
            "partition": partition,
        }
        chosen = ALL if stream is None else stream
        written = sum(1 for _ in export_runs(bar, folder, format, stream=chosen, **options))
        say(f"{written:,} files of {len(headers):,} runs in {folder}")
