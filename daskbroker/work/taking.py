"""Inserting what comes from elsewhere: nobody waits for an error, so each is told and outlived."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..broker import DataBroker
from ..core.documents import plain
from ..core.errors import BadDocument, DaskbrokerError, StoreDamaged, StoreError, UnknownReference
from ..core.json_text import to_json
from ..display.streams import counted_rows

__all__ = ["Taker"]

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds before a document is tried again, while the store takes none."""
REMIND = 40
"""It is told again after so many tries, ten minutes."""
SETTLE_SECONDS = 1.0
"""After the stop, before events are counted: another process may be inserting the same run."""
MOST_NAMED = 10_000
"""So many runs and descriptors are remembered as told of."""

Doc = Mapping[str, Any]


class Taker:
    """Inserts documents into a broker, whatever comes.

    While the store takes nothing, the document is tried again and again. One that the store
    refuses is appended to a file that ``daskbroker ingest`` reads, and named, once a run. A run
    that has fewer events than its stop counts is named, as those were not received.

    Parameters
    ----------
    broker
        Takes the documents.
    refused
        The file for documents that are refused; made when there is one.
    warn
        Called with each line about something that is not as it should be.
    wait
        Called with seconds, to wait for so long; whether to go on trying.

    Attributes
    ----------
    open_runs
        The start documents of runs whose start was taken, and no stop.
    """

    def __init__(
        self,
        broker: DataBroker,
        refused: Path,
        warn: Callable[[str], None],
        wait: Callable[[float], bool],
    ) -> None:
        self._broker, self._refused = broker, refused
        self._warn, self._wait = warn, wait
        self.open_runs: dict[str, Doc] = {}
        self._named: dict[tuple[Any, ...], None] = {}
        self._runs: dict[Any, Any] = {}
        self._uncounted: list[tuple[float, Doc]] = []

    def take(self, name: str, doc: Doc) -> bool:
        """Insert a document, or set it aside; whether it is stored.

        Raises
        ------
        StoreError
            If the store takes nothing, and ``wait`` says that it is not to be tried again.
        """
        try:
            self._insert(name, doc)
        except StoreDamaged as error:  # of one run; the others go on
            self._set_aside(name, doc, error)
            return False
        except StoreError:
            raise
        except Exception as error:  # whatever a document makes of the code, the next one is taken
            self._set_aside(name, doc, error)
            return False
        if name == "start":
            self.open_runs[doc["uid"]] = doc
        elif name == "stop":
            self.open_runs.pop(doc["run_start"], None)
            self._uncounted.append((time.monotonic() + SETTLE_SECONDS, doc))
        return True

    def _insert(self, name: str, doc: Doc) -> None:
        pause, tries = FIRST_WAIT, 0
        while True:
            try:
                self._insert_now(name, doc)
            except StoreDamaged:
                raise
            except StoreError as error:
                if tries % REMIND == 0:
                    self._warn(f"the store takes nothing, documents wait: {error}")
                tries += 1
                if not self._wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_WAIT)
            else:
                if tries:
                    self._warn("the store takes documents again")
                return

    def _insert_now(self, name: str, doc: Doc) -> None:
        try:
            self._broker.insert(name, doc)
        except BadDocument as error:
            # Before a spool it may be an earlier event that was refused, and this one not tried.
            notes = getattr(error, "__notes__", None)
            if not notes:
                raise
            self._broker.insert(name, doc)
            self._warn(f"{error}. {' '.join(notes)}")

    # -- what is refused ---------------------------------------------------------------------

    def _set_aside(self, name: str, doc: Doc, error: Exception) -> None:
        text = (
            str(error) if isinstance(error, DaskbrokerError) else f"{type(error).__name__}: {error}"
        )
        kept = self._keep(name, doc)
        run = self._run_of(name, doc)
        lacks = isinstance(error, UnknownReference)
        # Of a run without start all is refused, which is told once; other reasons one by one.
        if not self._is_new("refused", run, lacks or (name, doc.get("uid"))):
            return
        why = (
            " It was published while this was not listening, or lost on its way; what needs it is "
            "refused, too." if lacks else ""
        )  # fmt: skip
        of = "" if run is None else f" of run {run}"
        self._warn(f"a {name}{of} is not stored: {text}.{why} {kept}")

    def _keep(self, name: str, doc: Doc) -> str:
        """Append a document to the file of refused ones; a sentence about it."""
        try:
            line = to_json([name, plain(doc)])
            self._refused.parent.mkdir(parents=True, exist_ok=True)
            with open(self._refused, "a", encoding="utf8", opener=_private) as file:
                file.write(line + "\n")
        except Exception as error:  # the document may hold anything, the disk be full
            return f"It cannot be kept in {self._refused} either: {error}."
        return f"It is kept in {self._refused}, for daskbroker ingest."

    def _run_of(self, name: str, doc: Doc) -> Any:
        """The run of a document that was refused, as far as what was refused before tells it."""
        run = doc.get("uid") if name == "start" else doc.get("run_start")
        if run is None:
            parents = (doc.get(key) for key in ("descriptor", "resource", "stream_resource"))
            parent = next((found for found in parents if found is not None), None)
            run = self._runs.get(_key(parent))
            if run is None and parent is not None:
                descriptor = self._descriptor(parent)
                run = descriptor or f"with descriptor or resource {parent}"
        elif len(self._runs) < MOST_NAMED:
            self._runs[_key(doc.get("uid"))] = run
        return _key(run) if run is not None else None

    def _descriptor(self, uid: Any) -> Any:
        try:
            for source in self._broker.event_sources.values():
                found = source.store.find_descriptor(uid)
                if found is not None:
                    return found["run_start"]
        except Exception:  # it only makes the message better
            return None
        return None

    def _is_new(self, *what: Any) -> bool:
        key = tuple(map(_key, what))
        if key in self._named or len(self._named) >= MOST_NAMED:
            return False
        self._named[key] = None
        return True

    # -- what was not received ---------------------------------------------------------------

    def count_events(self, *, at_once: bool = False) -> None:
        """Name runs that have stopped, and lack events."""
        now = time.monotonic()
        due = [doc for when, doc in self._uncounted if at_once or when <= now]
        self._uncounted = [] if at_once else [pair for pair in self._uncounted if pair[0] > now]
        for stop in due:
            try:
                self._count(stop)
            except DaskbrokerError as error:
                self._warn(f"the events of run {stop['run_start']} cannot be counted: {error}")

    def _count(self, stop: Doc) -> None:
        taken = stop.get("num_events")
        if not isinstance(taken, Mapping):
            return
        stored = counted_rows(self._broker[stop["run_start"]])
        short = [
            f"{stored.get(stream, 0):,} of {number:,} events of {stream}"
            for stream, number in taken.items()
            if isinstance(number, int) and stored.get(stream, 0) < number
        ]
        if short and self._is_new("short", stop["run_start"]):
            self._warn(
                f"run {stop['run_start']} is incomplete: it has {', '.join(short)}. The others "
                "were published while this was not listening, lost on their way, or refused."
            )


def _key(value: Any) -> Any:
    """A value as it can be remembered, whatever it is."""
    return value if isinstance(value, (str, int, bool, tuple)) else json.dumps(repr(value))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
