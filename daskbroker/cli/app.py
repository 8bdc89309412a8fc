"""What all commands share: the application, its options, finding runs."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from .. import __version__
from ..broker import DataBroker
from ..connect import connect
from ..core.clock import show_time
from ..core.errors import (
    BadQuery,
    BadRunWarning,
    DaskbrokerError,
    ExportWarning,
    SearchWarning,
    StoreNotFound,
)
from ..core.printable import printable
from ..core.redaction import redacted
from ..core.search import origin_of
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
    "every_run",
    "find_run",
    "line_of",
    "main",
    "making_store",
    "name_failed",
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
        "--db",
        envvar="DASKBROKER_URI",
        help="Folder (./data), MongoDB URI, or a configuration's name.",
        metavar="PLACE",
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
        with _naming_bad_runs():
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


_named: ContextVar[set[str]] = ContextVar("named")
"""Runs that the command has named as bad."""
_level: ContextVar[str] = ContextVar("level", default="warning")


@contextmanager
def _naming_bad_runs() -> Iterator[None]:
    """Each run that is left out is a line on stderr, once; so is a hint about a search."""
    _named.set(set())
    _level.set("warning")
    with warnings.catch_warnings():
        warnings.simplefilter("always", BadRunWarning)
        warnings.simplefilter("always", SearchWarning)
        warnings.simplefilter("always", ExportWarning)
        show_other = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, BadRunWarning):
                text = str(message)
                _name_once(text.partition(": ")[0], f"daskbroker: {_level.get()}: {text}")
            elif issubclass(category, (SearchWarning, ExportWarning)):
                say(redacted(f"daskbroker: warning: {message}"), err=True)
            else:
                show_other(message, category, *rest, **more)

        warnings.showwarning = show
        yield


def _name_once(name: str, line: str) -> None:
    if name not in _named.get():
        _named.get().add(name)
        say(redacted(" ".join(line.split())), err=True)


@contextmanager
def every_run() -> Iterator[None]:
    """A command that should do its work on each run ends with status 1 if some were left out."""
    _level.set("error")
    if _named.get(None) is None:  # not called by :func:`main`
        _named.set(set())
    yield
    if _named.get():
        raise typer.Exit(1)


def name_failed(uid: str, error: Exception | str) -> None:
    """Say of a run that a command could not do its work on it, unless that was said before."""
    _name_once(f"run {uid!r}", f"failed: {uid}: {error}")


def say(text: object, *, err: bool = False) -> None:
    """Show one line; of what documents hold nothing has an effect on the terminal."""
    typer.echo(printable(text), err=err)


def say_lines(text: str) -> None:
    """Show a text whose newlines are ours."""
    for line in text.split("\n"):
        say(line)


@contextmanager
def making_store(place: str | None) -> Iterator[DataBroker]:
    """The broker of a store that is written to, and said if it is new."""
    try:
        broker = connect(place, create=False)
    except StoreNotFound:
        broker = connect(place)
        say(f"made a new store: {broker.uri}")
    with broker:
        new = not _is_noted(broker)  # a database is made by the first insert
        yield broker
        if new and _is_noted(broker):
            say(f"made a new store: {broker.uri}")


def _is_noted(broker: DataBroker) -> bool:
    return bool(len(broker)) or all(source.store.is_noted for source in broker.event_sources)


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
    options = {"full": full, "since": since, "until": until}
    for name, value in options.items():
        if value is not None and query.setdefault(name, value) != value:
            raise BadQuery(f"{name} is given twice: {query[name]!r} and {value!r}")
    return broker(**query)


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
    start, stop = header.start, header.known_stop
    when = show_time(start.get("time"), header.db.timezone)
    status = "open" if stop is None else str(stop.get("exit_status", ""))
    plan = str(start.get("plan_name", ""))
    origin = origin_of(start)
    mark = f"  derived from {origin}" if origin else ""
    return f"{header.uid}  {start.get('scan_id', '')!s:>6}  {when}  {plan:<16} {status}{mark}"
