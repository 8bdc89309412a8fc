"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer


def known_places(incomplete: str) -> list[str]:
    """Return the names of configurations that begin with a text, for completion by a shell."""
    from ..configuration import list_configurations

    names = dict.fromkeys(found.name for found in list_configurations())
    return [name for name in names if name.startswith(incomplete)]


def _place(context: typer.Context, value: str | None) -> str | None:
    """Return ``--db`` as given after the command, else before it, else by the environment."""
    return context.find_root().params.get("db") if value is None else value


Store = Annotated[
    str | None,
    typer.Option(
        "--db",
        callback=_place,
        autocompletion=known_places,
        help="Folder (./data), MongoDB URI, or a configuration's name; may also be given before "
        "the command. By default $DASKBROKER_URI.",
        metavar="PLACE",
    ),
]
Place = Annotated[
    str | None,
    typer.Argument(help="Store, in place of --db.", metavar="[PLACE]", autocompletion=known_places),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="Store, in place of --db; then key=value of the start documents.",
        metavar="[PLACE] [KEY=VALUE]...",
        autocompletion=known_places,
    ),
]
Run = Annotated[str, typer.Argument(help="uid, prefix, scan_id or offset such as -1.")]
Terms = Annotated[
    list[str] | None,
    typer.Argument(help="key=value of the start document; values are JSON, else text."),
]
Full = Annotated[str | None, typer.Option(help="Words to search for in start and stop.")]
Since = Annotated[
    str | None, typer.Option(help="Earliest start, such as 2026-11-23, in the broker's time zone.")
]
Until = Annotated[
    str | None, typer.Option(help="Latest start; a day, minute or second includes its end.")
]
Limit = Annotated[int | None, typer.Option(min=0, help="Maximum number of runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
FailEmpty = Annotated[
    bool, typer.Option("--fail-empty", help="End with status 1 if no run is found.")
]
