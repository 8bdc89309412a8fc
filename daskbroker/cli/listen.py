"""The command that inserts the documents that a 0MQ proxy forwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app, making_store, say, say_of_run
from .options import Store

if TYPE_CHECKING:
    from ..work.listening import Listener


class _Serializer(StrEnum):
    """Serializers of publishers; see :data:`daskbroker.work.messages.SERIALIZERS`."""

    PICKLE = "pickle"
    MSGPACK = "msgpack"
    JSON = "json"


@app.command()
def listen(
    address: Annotated[
        str, typer.Argument(help="Address of the proxy for subscribers: zmq://localhost:5568.")
    ],
    db: Store = None,
    prefix: Annotated[
        str, typer.Option(help="Prefix of the messages to receive; all messages by default.")
    ] = "",
    serializer: Annotated[
        _Serializer, typer.Option(help="Serializer of the publisher; pickle is bluesky's default.")
    ] = _Serializer.PICKLE,
    spool: Annotated[
        Path | None,
        typer.Option(
            help="Local folder in which documents wait for the store.", show_default=False
        ),
    ] = None,
) -> None:
    """Insert the runs that RunEngines publish by bluesky's 0MQ proxy, until ctrl-C or SIGTERM.

    Received documents wait in a local file until they are stored. If some still wait when the
    command ends, its status is 1, and the next call inserts them.
    """
    import platformdirs

    from ..work.listening import Listener, endpoint_of

    endpoint_of(address)  # checked before a store is created, so that a wrong address creates none
    folder = spool or platformdirs.user_state_path("daskbroker", appauthor=False) / "listen"
    with making_store(db, err=True) as broker:
        lines = _Lines(broker.timezone)
        listener = Listener(
            broker, address, folder, prefix=prefix.encode(), serializer=serializer.value,
            taken=lines.show, tell=_tell, warn=_warn,
        )  # fmt: skip
        _tell(f"listening for {broker.uri}; documents that wait are in {folder}")
        with _ending(listener):
            done = listener.run()
    if not done:
        raise typer.Exit(1)


def _tell(text: str, *, err: bool = False) -> None:
    # Documents are stored even if nobody reads the output, or the disk of its file is full.
    with suppress(OSError):
        say(text, err=err)


def _warn(text: str) -> None:
    from ..core.redaction import redacted

    _tell(redacted(f"daskbroker: warning: {' '.join(text.split())}"), err=True)


@contextmanager
def _ending(listener: Listener) -> Iterator[None]:
    """Stop the listener at the first ctrl-C or SIGTERM; the second one ends the process at once."""

    def end(number: int, frame: Any) -> None:
        listener.stop()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lines:
    """Print a line for the start and the stop of each run.

    Parameters
    ----------
    zone
        Time zone in which times are shown.
    """

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._starts: dict[str, Mapping[str, Any]] = {}

    def show(self, name: str, doc: Mapping[str, Any]) -> None:
        """Print a line for a document that was stored."""
        from .tail import run_line, stop_line

        with suppress(OSError):  # as in _tell
            if name == "start":
                self._starts[doc["uid"]] = doc
                say_of_run(doc["uid"], run_line(doc, self._zone))
            elif name == "stop":
                start = self._starts.pop(doc["run_start"], {})
                say_of_run(doc["run_start"], stop_line(start, doc, self._zone))
