"""Commands that insert and export runs: demo, ingest, export, verify."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import BadQuery
from ..core.name_lists import listed
from ..core.printable import counted, printable
from ..progress import progress_bar
from .app import (
    app,
    every_run,
    find_run,
    making_store,
    note_empty,
    pair_of,
    say,
    say_json,
    say_lines,
    search,
)
from .options import AsJson, FailEmpty, Full, Limit, Since, Store, Terms, Until
from .serve import address_of_path, is_tiled, take_over


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the stores and the picture.")] = Path(
        "daskbroker-demo"
    ),
) -> None:
    """Make and store runs, and show in a minute what can be done with them."""
    from ..demo import run_demo

    run_demo(folder, say_lines)


@app.command()
def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files or folders of recorded documents, or tiled+http://HOST/… of a Tiled server."
        ),
    ],
    db: Store = None,
    define: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for a placeholder {{ NAME }}.")
    ] = None,
) -> None:
    """Insert recorded documents (JSON, JSON lines, msgpack, gzip, zip) and saved datasets."""
    from ..work.ingest import ingest as ingest_paths

    served = [url for url in map(address_of_path, paths) if is_tiled(url)]
    paths = [path for path in paths if not is_tiled(address_of_path(path))]
    failed = take_over(served, db)
    if served and not paths:
        raise typer.Exit(failed)
    # A mistyped path makes no store.
    if not any(map(os.path.lexists, paths)):
        raise BadQuery(f"no such file or folder: {listed(paths)}")
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
    if report.refused or failed:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the files; for one run by --uid also a file: a.nc.")
    ],
    terms: Terms = None,
    db: Store = None,
    uid: Annotated[list[str] | None, typer.Option(help="Uids of the only runs to export.")] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="jsonl, parquet, netcdf, zarr, csv, nexus, references or icechunk. By default "
            "that of a file's suffix, else jsonl."
        ),
    ] = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    files: Annotated[
        Path | None, typer.Option(help="Also copy detector files, to below this folder.")
    ] = None,
    stream: Annotated[str | None, typer.Option(help="Name of the only stream to export.")] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Write frames in place of references.")
    ] = False,
    arrays: Annotated[
        str,
        typer.Option(
            help="Arrays in CSV, frames that references cannot tell: raise, or drop to leave out."
        ),
    ] = "raise",
    partition: Annotated[
        str | None, typer.Option(help="run: a Parquet folder to which later exports add new runs.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER=URL", help="Location of a folder in references: /data=s3://x."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip runs that are complete in the folder.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read files back and compare.")
    ] = True,
    as_json: AsJson = False,
    fail_empty: FailEmpty = False,
) -> None:
    """Write runs as files: documents, tables, datasets."""
    from ..connect import connect
    from ..core.documents import ALL
    from ..exporting.export_options import is_named_as_file
    from ..exporting.runs import export as export_runs

    with every_run(), connect(db, create=False, mode="r") as broker:
        found = search(broker, terms, full, since, until)[:limit]
        headers = [find_run(broker, one) for one in uid] if uid else found
        note_empty(len(headers), fail=fail_empty)
        options: dict[str, Any] = {
            "files": files,
            "fill": fill,
            "arrays": arrays,
            "partition": partition,
            "verify": verify,
            "to": dict(pair_of(text) for text in to) if to else None,
        }
        chosen = ALL if stream is None else stream
        # As Header.export, which has no folder of runs that could be resumed.
        if format is None and len(uid or ()) == 1 and not resume and is_named_as_file(folder):
            written = headers[0].export(folder, stream=chosen, **options)
        else:
            bar = progress_bar(headers, " runs")
            written = list(
                export_runs(bar, folder, format, stream=chosen, resume=resume, **options)
            )
        if as_json:
            report = {"runs": len(headers), "files": list(map(str, written)), "folder": str(folder)}
            say_json(report)
        else:
            made = counted(len(written), "file")
            say(f"{made} of {counted(len(headers), 'run')} in {folder}")


@app.command()
def verify(
    references: Annotated[
        list[Path], typer.Argument(help="Of the formats references and icechunk.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file.")] = False,
) -> None:
    """Look for detector files that changed since references to them were made. Status 1 if so."""
    from ..exporting.references.file_states import verify_references

    changed = 0
    for place in references:
        for file in verify_references(place):
            changed += 1
            if as_json:
                say_json({"references": str(place), **file.to_dict()})
            else:
                say(f"changed: {place}: {file}")
    say(f"{changed:,} files changed since {len(references):,} references were made", err=as_json)
    if changed:
        raise typer.Exit(1)
