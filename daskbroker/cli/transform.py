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

from ..core.errors import ConfigError
from .app import (
    app,
    every_run,
    making_store,
    name_failed,
    note_empty,
    pair_of,
    say,
    say_json,
    search,
    value_of,
)
from .options import AsJson, FailEmpty, Full, Limit, Since, Terms, Until

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
    as_json: AsJson = False,
    fail_empty: FailEmpty = False,
) -> None:
    """Make new runs of runs with a function of yours; again makes nothing twice."""
    from ..connect import connect
    from ..work.reprocess import reprocess as reprocess_runs

    func = _function(function)
    parameters = {key: value_of(value) for key, value in map(pair_of, param or ())}
    with (
        every_run(),
        connect(source, create=False) as db,
        making_store(target, err=as_json) as into,
        _cluster(scheduler),
    ):
        found = search(db, terms, full, since, until)
        runs = found if limit is None else found[:limit]
        note_empty(len(runs), fail_empty)
        report = reprocess_runs(
            runs,
            func,
            into,
            parameters=parameters,
            name=name,
            dataset=dataset,
            derived=derived,
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
    """What a user means by ``module:function``, in the working directory or installed."""
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return attrgetter(name)(import_module(module))  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{text!r} is not a module:function that can be imported: {error}"
        ) from None


def _cluster(address: str | None) -> AbstractContextManager[Any]:
    if address is None:
        return nullcontext()
    from distributed import Client

    return Client(address)
