"""The command that draws runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app, find_run, say
from .options import Store


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is an offset
def plot(
    uids: Annotated[
        list[str],
        typer.Argument(
            metavar="UID...",
            help="uid, prefix, scan_id or offset such as -1; several runs are drawn together.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File of the picture: .png, .svg or .pdf.")
    ],
    db: Store = None,
    stream: Annotated[
        str | None, typer.Option(help="Name of the stream; by default the one of the scan.")
    ] = None,
    y: Annotated[
        list[str] | None, typer.Option(help="Data keys in place of the hinted ones.")
    ] = None,
    frame: Annotated[
        int | None, typer.Option(help="Number of the event whose image is shown; -1 is the last.")
    ] = None,
) -> None:
    """Draw runs as their hints describe: a line, a map, or a frame of a detector."""
    from ..connect import connect
    from ..display.plots import save_plot

    with connect(db, create=False, mode="r") as broker:
        headers = [find_run(broker, uid) for uid in uids]
        save_plot(output, headers, stream, y or None, frame)
    say(f"{output}")
