"""The parts that all commands share: the application, its options, and finding runs."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.core import TyperGroup

from .. import __version__
from ..core.advice import for_command_line
from ..core.errors import (
    MAKE_ROOM,
    BadQuery,
    BadRunWarning,
    DaskbrokerError,
    ExportWarning,
    RunNotFound,
    SearchWarning,
    StoreNotFound,
)
from ..core.name_lists import listed
from ..core.printable import printable
from ..core.redaction import redacted
from .options import known_places

if TYPE_CHECKING:
    from ..broker import DataBroker
    from ..header import Header
    from ..results import Results

UNLIMITED = 2**20
"""Columns of output that is not fitted to a terminal."""

COMPLETING = "_DASKBROKER_COMPLETE"
"""Environment variable that a shell sets to request completions."""


class _Group(TyperGroup):
    """The group of commands; the error for an unknown command lists the known ones."""

    def resolve_command(self, context: Any, words: list[str]) -> Any:
        if words and self.get_command(context, words[0]) is None and not context.resilient_parsing:
            known = listed(self.list_commands(context), words[0])
            context.fail(f"No such command {words[0]!r}. There are: {known}.")
        return super().resolve_command(context, words)

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except typer.BadParameter as error:
            # Typer shows errors of pydantic as they are.
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    cls=_Group,
    help="Bluesky data as lazy Dask tables, xarray datasets and document streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},  # subcommands inherit it
)


def main() -> None:
    """Run the command line; an expected error becomes one line on stderr, with status 1."""
    _replace_closed_streams()
    try:
        if COMPLETING in os.environ:
            completion_init()  # typer knows the shells by it
        with for_command_line(), _naming_bad_runs():
            app(complete_var=COMPLETING)
    except SystemExit as ended:
        _end(ended)
    except BrokenPipeError:
        _end_unread()
    except (DaskbrokerError, OSError, MemoryError) as error:
        text = redacted(" ".join(_text_of(error).split())) or type(error).__name__
        say(f"daskbroker: error: {text}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("daskbroker: interrupted\n")
        sys.exit(130)  # as shells report a process that SIGINT has ended


def _text_of(error: Exception) -> str:
    # Errors of stores and exports are daskbroker's own, so this is what the command prints.
    if isinstance(error, OSError) and error.errno in MAKE_ROOM and error.filename is None:
        return f"the output cannot be written: {error.strerror}"
    return str(error)


def _replace_closed_streams() -> None:
    """Discard what is written to a stream that the caller has closed (``>&-``)."""
    # Python has None for such a stream, which click and other packages do not expect.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _end(ended: SystemExit) -> None:
    """End as the command did, but without an error if only its output was not read."""
    if isinstance(ended.__context__, BrokenPipeError):
        _end_unread()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _end_unread()
    raise ended


def _end_unread() -> None:
    """End without an error after a pipe was closed, as the reader of the output needs no more."""
    with suppress(OSError, ValueError):  # or the interpreter would try again to write at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


_named: ContextVar[set[str]] = ContextVar("named")
"""Unreadable runs that the command has already reported."""
_level: ContextVar[str] = ContextVar("level", default="warning")


@contextmanager
def _naming_bad_runs() -> Iterator[None]:
    """Print each run that is left out, and each hint about a search, once as a line on stderr."""
    named, level = _named.set(set()), _level.set("warning")
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
        try:
            yield
        finally:
            _named.reset(named)
            _level.reset(level)


def _name_once(name: str, line: str) -> None:
    if name not in _named.get():
        _named.get().add(name)
        say(redacted(" ".join(line.split())), err=True)


@contextmanager
def every_run() -> Iterator[None]:
    """End the command with status 1 if some runs were left out."""
    level = _level.set("error")
    named = _named.set(set()) if _named.get(None) is None else None  # not called by :func:`main`
    try:
        yield
        if _named.get():
            raise typer.Exit(1)
    finally:
        _level.reset(level)
        if named is not None:
            _named.reset(named)


def name_failed(uid: str, error: Exception | str) -> None:
    """Report a run that a command could not process, unless it was reported before."""
    _name_once(f"run {uid!r}", f"failed: {uid}: {error}")


def say(text: object, *, err: bool = False) -> None:
    """Print one line; control characters from documents are escaped, for the terminal's sake."""
    typer.echo(printable(text), err=err)


def say_lines(text: str) -> None:
    """Print a text of several lines, whose newlines are not escaped."""
    for line in text.split("\n"):
        say(line)


def say_of_run(uid: str, text: str) -> None:
    """Print one line about a run, cut to the width of the terminal."""
    from ..display.text_columns import cut_to

    say(cut_to(printable(f"{uid[:8]}  {text}"), width_of_output()))


def say_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    from ..core.documents import plain
    from ..core.json_text import to_json

    say(to_json(plain(value)))


def width_of_output() -> int:
    """Return the width of the terminal, or a very large one if the output is a file or a pipe."""
    from ..display.text_columns import terminal_width

    fitted = sys.stdout.isatty() or "COLUMNS" in os.environ
    return terminal_width() if fitted else UNLIMITED


def note_empty(count: int, *, fail: bool) -> None:
    """Report on stderr that no run was found; with ``fail`` the command ends with status 1."""
    if count == 0:
        say("daskbroker: no run was found", err=True)
        if fail:
            raise typer.Exit(1)


@contextmanager
def making_store(place: str | None, *, err: bool = False) -> Iterator[DataBroker]:
    """Return a broker to write to a store; report if the store is new, with ``err`` on stderr.

    A new folder store in which no run was stored is removed again, which is reported, too.
    """
    from ..connect import connect
    from ..stores.embedded.opening import remove_empty_store

    # Only a folder that is made here is removed: others may have been given permissions for it.
    absent = "" if place is None or os.path.lexists(place) else os.path.abspath(place)
    try:
        broker, made = connect(place, create=False), False
    except StoreNotFound:
        broker, made = connect(place), True
        say(f"made a new store: {broker.uri}", err=err)
    try:
        with broker:
            new = not _is_noted(broker)  # a database is made by the first insert
            yield broker
            if new and _is_noted(broker):
                say(f"made a new store: {broker.uri}", err=err)
    finally:
        if made and remove_empty_store(str(broker.uri)):
            if broker.uri == absent:
                with suppress(OSError):
                    os.rmdir(absent)
            say("removed the new store, as no run was stored in it", err=err)


def _is_noted(broker: DataBroker) -> bool:
    return bool(len(broker)) or all(source.store.is_noted for source in broker.event_sources)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"daskbroker {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            envvar="DASKBROKER_URI",
            help="Store of the command: folder (./data), MongoDB URI, or a configuration's name.",
            metavar="PLACE",
            autocompletion=known_places,
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Read the options that are given before the command."""
    given = getattr(context.get_parameter_source("db"), "name", None) == "COMMANDLINE"
    name = context.invoked_subcommand
    if given and name is not None:
        command = context.command.get_command(context, name)  # type: ignore[attr-defined]
        if all(parameter.name != "db" for parameter in command.params):
            raise typer.BadParameter(f"{name} takes no --db; see daskbroker {name} --help")


def pair_of(text: str) -> tuple[str, str]:
    """Return the key and the value of an argument ``key=value``."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise BadQuery(f"{text!r} is not of the form key=value")
    return key, value


def names_of(texts: list[str] | None) -> list[str]:
    """Return the names in an option that may be repeated, and lists names after commas."""
    parts = (part.strip() for text in texts or () for part in text.split(","))
    return [name for name in parts if name]


def parsed_value(text: str) -> Any:
    """Return the value of an argument: parsed if it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def query_of(
    terms: list[str] | None, full: str | None, since: str | None, until: str | None
) -> dict[str, Any]:
    """Return the query that the arguments of a command describe."""
    query = {key: parsed_value(value) for key, value in map(pair_of, terms or ())}
    options = {"full": full, "since": since, "until": until}
    for name, value in options.items():
        if value is not None and query.setdefault(name, value) != value:
            raise BadQuery(f"{name} is given twice: {query[name]!r} and {value!r}")
    return query


def search(
    broker: DataBroker,
    terms: list[str] | None,
    full: str | None,
    since: str | None,
    until: str | None,
) -> Results:
    """Return the runs that match the query of a command line."""
    return broker(**query_of(terms, full, since, until))


def find_run(broker: DataBroker, text: str) -> Header:
    """Return the run of a uid, prefix, offset or scan_id; a number that is a uid means the uid."""
    digits = text.removeprefix("-")
    # More digits do not fit into 64 bits, so they are (the beginning of) a uid.
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 19
    if is_number:
        with suppress(KeyError):
            return broker[int(text)]
    try:
        return broker[text]
    except RunNotFound as error:
        why = f"no run has the scan_id {text}, or a uid that begins with it" if is_number else error
        raise RunNotFound(f"{why}; daskbroker ls lists the runs") from None
