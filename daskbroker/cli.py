"""The command line: ``daskbroker`` and ``python -m daskbroker``."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from . import __version__
from .broker import DataBroker
from .config import connect
from .core.documents import to_json
from .core.errors import BadQuery, DaskbrokerError
from .header import Header

__all__ = ["app", "main"]

app = typer.Typer(
    help="Bluesky data as lazy Dask tables, xarray datasets and document streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Store = Annotated[
    str | None,
    typer.Option("--db", envvar="DASKBROKER_URI", help="Store: a folder.", metavar="PATH"),
]
Terms = Annotated[
    list[str] | None,
    typer.Argument(help="key=value of the start document; values are JSON, else text."),
]
Full = Annotated[str | None, typer.Option(help="Words to look for in start and stop.")]
Since = Annotated[str | None, typer.Option(help="Not before, such as 2026-11-23.")]
Until = Annotated[str | None, typer.Option(help="Not after.")]
Limit = Annotated[int | None, typer.Option(min=0, help="At most so many runs.")]


def main() -> None:
    """Run the command line; any error is one line on stderr, and status 1."""
    try:
        app()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (DaskbrokerError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"daskbroker: error: {text}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("daskbroker: interrupted\n")
        sys.exit(130)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"daskbroker {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where store and picture go.")] = Path(
        "daskbroker-demo"
    ),
) -> None:
    """Make real runs, store them, and show what they look like."""
    from .demo import make_runs, tour

    with connect(folder / "store") as db:
        maker = make_runs(db)
        typer.echo(f"Runs made by {maker}, stored in {folder / 'store'}.\n")
        tour(db, folder, typer.echo)
    typer.echo(f"\nGo on with:  daskbroker ls --db {folder / 'store'}")


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders of recorded documents.")],
    db: Store = None,
    define: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for a placeholder {{ NAME }}.")
    ] = None,
) -> None:
    """Bring recorded documents in: JSON, JSON lines, msgpack, gzip and zip of these."""
    from .ingest import ingest as ingest_paths

    defined = dict(_pair(text) for text in define or ())
    with connect(db) as broker, tqdm(unit=" documents", disable=_quiet()) as bar:

        def progress(file: Path, documents: int) -> None:
            bar.set_postfix_str(file.name[-40:], refresh=False)
            bar.update(documents - bar.n)

        report = ingest_paths(broker, paths, defined, progress)
        bar.close()
        typer.echo(f"{report} into {broker.uri}")
        for refusal in report.refusals:
            place = "" if refusal.reason.startswith(refusal.where) else f"{refusal.where}: "
            typer.echo(f"refused: {place}{refusal.reason}", err=True)
        if report.refused > len(report.refusals):
            typer.echo(f"refused: and {report.refused - len(report.refusals):,} more", err=True)
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
        results = _search(broker, terms, full, since, until)
        for header in results[:limit]:
            if as_json:
                typer.echo(to_json({"start": header.start, "stop": header.stop}))
            else:
                typer.echo(_line(header))
        count = len(results)
        if not as_json and limit is not None and count > limit:
            typer.echo(f"… {count - limit:,} more; --limit shows them")


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is an offset
def show(
    uid: Annotated[str, typer.Argument(help="uid, prefix, scan_id or offset such as -1.")],
    db: Store = None,
    stream: Annotated[str | None, typer.Option(help="Only this stream.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows of each table.")] = 5,
) -> None:
    """Show a run: its metadata, and the head of each stream's table."""
    with connect(db, create=False, mode="r") as broker:
        header = _find(broker, uid)
        typer.echo(_line(header))
        for name, doc in (("start", header.start), ("stop", header.stop)):
            typer.echo(f"\n{name}: {json.dumps(doc, indent=2, ensure_ascii=False)}")
        for name in header.streams if stream is None else [stream]:
            table = header.table(name, fill=False)
            head = table.head(rows, npartitions=-1)
            typer.echo(f"\n{name}: {len(table):,} rows x {len(table.columns)} columns")
            typer.echo(head.to_string(max_cols=8, max_colwidth=24))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    terms: Terms = None,
    db: Store = None,
    uid: Annotated[list[str] | None, typer.Option(help="These runs only.")] = None,
    format: Annotated[str, typer.Option(help="jsonl or parquet.")] = "jsonl",
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
) -> None:
    """Write runs as JSON lines of documents, or as Parquet files of their tables."""
    from .export import export as export_runs

    with connect(db, create=False, mode="r") as broker:
        found = _search(broker, terms, full, since, until)[:limit]
        headers = [_find(broker, one) for one in uid] if uid else found
        bar = tqdm(headers, total=len(headers), unit=" runs", disable=_quiet())
        files = sum(1 for _ in export_runs(bar, folder, format))
        typer.echo(f"{files:,} files of {len(headers):,} runs in {folder}")


@app.command()
def seal(db: Store = None) -> None:
    """Pack what is in the journal into chunks, of all runs."""
    with connect(db, create=False) as broker:
        typer.echo(f"{broker.seal():,} chunks made")


@app.command()
def info(db: Store = None) -> None:
    """Say what a store holds."""
    with connect(db, create=False, mode="r") as broker:
        runs = len(broker)
        typer.echo(f"{broker.uri}: {runs:,} runs")
        if runs:
            typer.echo(f"newest: {_line(broker[-1])}")


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise BadQuery(f"{text!r} is not of the form key=value")
    return key, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _search(
    broker: DataBroker,
    terms: list[str] | None,
    full: str | None,
    since: str | None,
    until: str | None,
) -> Any:
    query = {key: _value(value) for key, value in map(_pair, terms or ())}
    return broker(full, "text", since, until, **query)


def _find(broker: DataBroker, text: str) -> Header:
    """A run as a user names it: a number is an offset or scan_id, unless it is a uid."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        try:
            return broker[int(text)]  # type: ignore[no-any-return]
        except KeyError:
            pass
    return broker[text]  # type: ignore[no-any-return]


def _line(header: Header) -> str:
    start, stop = header.start, header.stop
    when = datetime.fromtimestamp(start["time"]).isoformat(" ", "seconds")
    status = "open" if stop is None else str(stop.get("exit_status", ""))
    plan = str(start.get("plan_name", ""))
    return f"{header.uid}  {start.get('scan_id', '')!s:>6}  {when}  {plan:<16} {status}"


def _quiet() -> bool:
    return not sys.stderr.isatty()
