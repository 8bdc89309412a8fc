"""The command that makes new runs of runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from operator import attrgetter
from typing import Annotated, Any

import typer

from ..connect import connect
from ..core.errors import ConfigError
from ..work.reprocess import reprocess as reprocess_runs
from .app import (
    Full,
    Limit,
    Since,
    Terms,
    Until,
    app,
    every_run,
    making_store,
    name_failed,
    pair_of,
    say,
    search,
    value_of,
)

__all__ = ["reprocess"]


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
        list[str] | None, typer.Option(help="key=value for the function; JSON, else text.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the job, in place of its source.")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="STREAM", help="Give the function this Dataset.")
    ] = None,
    derived: Annotated[
        bool, typer.Option("--derived", help="Take also runs that were made of others.")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a dask cluster to work on.")
    ] = None,
) -> None:
    """Make new runs of runs with a function of yours; again makes nothing twice."""
    func = _function(function)
    parameters = {key: value_of(value) for key, value in map(pair_of, param or ())}
    with (
        every_run(),
        connect(source, create=False) as db,
        making_store(target) as into,
        _cluster(scheduler),
    ):
        found = search(db, terms, full, since, until)
        runs = found if limit is None else found[:limit]
        report = reprocess_runs(
            runs,
            func,
            into,
            parameters=parameters,
            name=name,
            dataset=dataset,
            derived=derived,
        )
        say(f"{report} in {into.uri}")
        for uid, error in report.failed.items():
            name_failed(f"run {uid}", f"{type(error).__name__}: {error}")


def _function(text: str) -> Callable[..., Any]:
    """What a user means by ``module:function``, in the working directory or installed."""
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return attrgetter(name)(import_module(module))  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{text!r} is no module:function that can be imported: {error}") from None


def _cluster(address: str | None) -> AbstractContextManager[Any]:
    if address is None:
        return nullcontext()
    from distributed import Client

    return Client(address)
