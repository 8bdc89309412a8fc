"""Number of commands that a MongoDB server receives for views of many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pymongo
import pymongo.monitoring

import daskbroker
from benchmarks.harness import Against, Case
from daskbroker import DataBroker

__all__ = ["command_cases", "counted"]

AT_MOST = 20.0
RUNS_A_COMMAND = 5_000
COLLECTIONS = 6
UNCOUNTED = ("hello", "ping", "endSessions", "isMaster")


class Commands(pymongo.monitoring.CommandListener):
    """Count the commands that are sent, including those for further batches of an answer."""

    def __init__(self) -> None:
        self.count = 0

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        self.count += event.command_name not in UNCOUNTED

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        pass


@contextmanager
def counted(uri: str) -> Iterator[tuple[DataBroker, Commands]]:
    """Open a broker with a client of its own, and count its commands."""
    commands = Commands()
    client = partial(pymongo.MongoClient, event_listeners=[commands])
    with (
        mock.patch.object(pymongo, "MongoClient", client),
        daskbroker.connect(f"{uri}?appname=counted") as broker,
    ):
        len(broker)  # connects
        yield broker, commands


def command_cases(uri: str, runs: int) -> list[Case]:
    """Return cases that count the commands to open a table and a dataset of all runs."""

    def sent(view: Callable[[DataBroker], Any]) -> int:
        with counted(uri) as (broker, commands):
            before = commands.count
            view(broker)
            return commands.count - before

    goal = AT_MOST + COLLECTIONS * ((runs - 1) // RUNS_A_COMMAND)
    return [
        Case(
            f"commands for a {what} of {runs:,} runs",
            partial(sent, view),
            None,
            (Against(at_most=goal),),
            unit="commands",
        )
        for what, view in {
            "table": lambda broker: broker().table(),
            "dataset": lambda broker: broker().dataset(),
        }.items()
    ]
