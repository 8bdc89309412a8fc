"""What all commands share: the application, its options, finding runs."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from .. import __version__
from ..broker import DataBroker
from ..core.clock import show_time
from ..core.errors import BadQuery, DaskbrokerError
from ..core.printable import printable
from ..core.redaction import redacted
from ..header import Header
from ..results import Results

__all__ = [
    "Full",
    "Limit",
    "Since",
    "Store",
    "Terms",
    "Until",
    "app",
    "find_run",
    "line_of",
    "main",
    "pair_of",
    "say",
    "say_lines",
    "search",
    "value_of",
]

app = typer.Typer(
    help="Bluesky data as lazy Dask tables, xarray datasets and document streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Store = Annotated[
    str | None,
    typer.Option(
        "--db", envvar="DASKBROKER_URI", help="Folder, MongoDB URI, or name.", metavar="PLACE"
    ),
]
Terms = Annotated[
    list[str] | None,
    typer.Argument(help="key=value of the start document; values are JSON, else text."),
]
Full = Annotated[str | None, typer.Option(help="Words to look for in start and stop.")]
Since = Annotated[
    str | None, typer.Option(help="Not before, such as 2026-11-23; in the broker's time zone.")
]
Until = Annotated[
    str | None, typer.Option(help="Not after; a day, minute or second is meant to its end.")
]
Limit = Annotated[int | None, typer.Option(min=0, help="At most so many runs.")]


def main() -> None:
    """Run the command line; any error is one line on stderr, and status 1."""
    try:
        app()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (DaskbrokerError, OSError, MemoryError) as error:
        text = redacted(" ".join(str(error).split())) or type(error).__name__
        say(f"daskbroker: error: {text}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("daskbroker: interrupted\n")
        sys.exit(130)


def say(text: object, *, err: bool = False) -> None:
    """Show one line; of what documents hold nothing has an effect on the terminal."""
    typer.echo(printable(text), err=err)


def say_lines(text: str) -> None:
    """Show a text whose newlines are ours."""
    for line in text.split("\n"):
        say(line)


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


def pair_of(text: str) -> tuple[str, str]:
    """Both sides of ``key=value``."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise BadQuery(f"{text!r} is not of the form key=value")
    return key, value


def value_of(text: str) -> Any:
    """A value of the command line: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def search(
    broker: DataBroker,
    terms: list[str] | None,
    full: str | None,
    since: str | None,
    until: str | None,
) -> Results:
    """The runs that a query on the command line means."""
    query = {key: value_of(value) for key, value in map(pair_of, terms or ())}
    return broker(full, "text", since, until, **query)


def find_run(broker: DataBroker, text: str) -> Header:
    """A run as a user names it: a number is an offset or scan_id, unless it is a uid."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        try:
            return broker[int(text)]  # type: ignore[no-any-return]
        except KeyError:
            pass
    return broker[text]  # type: ignore[no-any-return]


def line_of(header: Header) -> str:
    """A run in one line."""
    start, stop = header.start, header.stop
    when = show_time(start.get("time"), header.db.timezone)
    status = "open" if stop is None else str(stop.get("exit_status", ""))
    plan = str(start.get("plan_name", ""))
    return f"{header.uid}  {start.get('scan_id', '')!s:>6}  {when}  {plan:<16} {status}"
