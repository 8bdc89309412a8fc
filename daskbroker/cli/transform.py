"""The command that makes derived runs with a function."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from operator import attrgetter
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError
from .app import (
    app,
    every_run,
    making_store,
    name_failed,
    note_empty,
    pair_of,
    parsed_value,
    say,
    say_json,
    search,
)
from .options import AsJson, FailEmpty, Full, Limit, Since, Terms, Until


@app.command()
def reprocess(
    function: Annotated[str, typer.Argument(help="module:function, called with each run.")],
    source: Annotated[str, typer.Argument(help="Store to read from.")],
    target: Annotated[str, typer.Argument(help="Store of the new runs.")],
    terms: Terms = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="key=value for the function; values are JSON, else text."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the job, in place of one made from its source.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="STREAM", help="Stream whose Dataset the function is called with."),
    ] = None,
    derived: Annotated[bool, typer.Option("--derived", help="Also process derived runs.")] = False,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address of a Dask cluster to use.")
    ] = None,
    as_json: AsJson = False,
    fail_empty: FailEmpty = False,
) -> None:
    """Make derived runs with a function of yours; repeated, it makes only missing ones."""
    from ..connect import connect
    from ..work.reprocess import reprocess as reprocess_runs

    func = _function(function)
    parameters = {key: parsed_value(value) for key, value in map(pair_of, param or ())}
    with (
        every_run(),
        connect(source, create=False) as db,
        making_store(target, err=as_json) as into,
        _cluster(scheduler),
    ):
        runs = search(db, terms, full, since, until)[:limit]
        note_empty(len(runs), fail=fail_empty)
        report = reprocess_runs(
            runs, func, into, parameters=parameters, name=name, dataset=dataset, derived=derived
        )
        failed = {uid: f"{type(e).__name__}: {e}" for uid, e in report.failed.items()}
        if as_json:
            told = {"done": report.done, "skipped": report.skipped, "failed": failed}
            say_json({**told, "store": into.uri})
        else:
            say(f"{report} in {into.uri}")
        for uid, error in failed.items():
            name_failed(f"run {uid}", error)


def _function(text: str) -> Callable[..., Any]:
    """Return the function of ``module:function``, from the working directory or installed."""
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return attrgetter(name)(import_module(module))
    # A TypeError is of a path, such as ./store, where the function should be.
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{text!r} is not a module:function that can be imported: {error}"
        ) from None


def _cluster(address: str | None) -> AbstractContextManager[Any]:
    if address is None:
        return nullcontext()
    from distributed import Client

    return Client(address)
