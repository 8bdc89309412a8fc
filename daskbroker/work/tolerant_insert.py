"""Insertion of documents that does not stop for errors: each error is reported."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..broker import DataBroker
from ..core.bounded_dict import BoundedDict
from ..core.documents import plain
from ..core.errors import BadDocument, DaskbrokerError, StoreDamaged, StoreError, UnknownReference
from ..core.json_text import to_json

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""First and longest seconds before a document is inserted again while the store accepts none."""
REMIND = 40
"""Number of tries between two warnings that the store accepts no inserts; about ten minutes."""
SETTLE_SECONDS = 1.0
"""Seconds from a stop until events are counted: another process may be inserting the same run."""
MOST_NAMED = 10_000
"""Maximum number of reported problems, and of runs of refused documents, to remember.

The oldest ones are forgotten then, so that a listener that runs for months continues to report.
"""

Doc = Mapping[str, Any]


class TolerantInserter:
    """A writer that inserts documents into a broker and does not stop for errors.

    While the store accepts no inserts, a document is tried again and again. A document that the
    store refuses is appended to a file that ``daskbroker ingest`` reads, and a warning is given.
    There is one warning per run if a document that others refer to is missing, and one if a run
    has fewer events than its stop counts.

    Parameters
    ----------
    broker
        Broker that the documents are inserted into.
    refused
        Path of the file for refused documents. It is created with the first of them.
    warn
        Function that is called with each line of text about a problem.
    wait
        Function that is called with the seconds to wait. It returns whether to try again.

    Attributes
    ----------
    open_runs
        Start documents, by uid, of the runs whose start was inserted and whose stop was not.
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
        self._named: BoundedDict[tuple[Any, ...], None] = BoundedDict(MOST_NAMED)
        self._runs: BoundedDict[Any, Any] = BoundedDict(MOST_NAMED)
        self._uncounted: list[tuple[float, Doc]] = []

    def insert(self, name: str, doc: Doc) -> bool:
        """Insert a document, or set it aside if it is refused.

        Returns
        -------
        bool
            Whether the document is stored.

        Raises
        ------
        StoreError
            If the store accepts no inserts and ``wait`` has returned False.
        """
        try:
            self._insert(name, doc)
        except StoreDamaged as error:  # concerns one run; the others go on
            self._set_aside(name, doc, error)
            return False
        except StoreError:
            raise
        except Exception as error:  # a strange document must not stop the ones that follow
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
                # Not at each try, which would fill the log.
                if tries % REMIND == 0:
                    self._warn(
                        f"the store accepts no inserts, and documents wait until it does: {error}"
                    )
                tries += 1
                # The caller ends, and the document stays where it waits.
                if not self._wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_WAIT)
            else:
                if tries:
                    self._warn("the store accepts inserts again")
                return

    def _insert_now(self, name: str, doc: Doc) -> None:
        try:
            self._broker.insert(name, doc)
        except BadDocument as error:
            # With a spool the error may be about an earlier event, and this one was not tried.
            # Then the error has notes.
            notes = getattr(error, "__notes__", None)
            # The error is about this document.
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
        # All documents of a run without start are refused: this is reported once. Other reasons
        # are reported for each document.
        if not self._is_new("refused", run, lacks or (name, doc.get("uid"))):
            return
        why = (
            " It was published before this listener was connected, or was lost on its way. Other "
            "documents that refer to it are refused, too." if lacks else ""
        )  # fmt: skip
        where = "" if run is None else f"run {run}: "
        self._warn(f"{where}the {name} document is not stored: {text}.{why} {kept}")

    def _keep(self, name: str, doc: Doc) -> str:
        """Append a document to the file of refused ones and return a sentence about that."""
        try:
            line = to_json([name, plain(doc)]).encode() + b"\n"
            self._refused.parent.mkdir(parents=True, exist_ok=True)
            with open(self._refused, "ab", buffering=0, opener=_private) as file:
                end = file.tell()
                # The next line would be unreadable behind a part of this one.
                if (written := file.write(line)) < len(line):
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, f"only {written:,} bytes could be written")
        except Exception as error:  # the document may hold anything, or the disk may be full
            return f"It cannot be written to {self._refused} either, and is lost: {error}."
        return f"It is kept in {self._refused}; insert it by daskbroker ingest."

    def _run_of(self, name: str, doc: Doc) -> Any:
        """Return the run of a refused document, or the best description of it for messages.

        A document that names only a parent (descriptor, resource) is looked up among the refused
        documents, and among the stored descriptors.
        """
        run = doc.get("uid") if name == "start" else doc.get("run_start")
        # Rows and descriptors name their run only by way of another document.
        if run is None:
            parents = (doc.get(key) for key in ("descriptor", "resource", "stream_resource"))
            parent = next((found for found in parents if found is not None), None)
            run = self._runs.get(_key(parent))
            if run is None and parent is not None:
                descriptor = self._descriptor(parent)
                run = descriptor or f"with descriptor or resource {parent}"
        else:
            self._runs.put_last(_key(doc.get("uid")), run)
        return _key(run) if run is not None else None

    def _descriptor(self, uid: Any) -> Any:
        try:
            for source in self._broker.event_sources.values():
                found = source.store.find_descriptor(uid)
                if found is not None:
                    return found["run_start"]
        except Exception:  # the result only improves a message
            return None
        return None

    def _is_new(self, *what: Any) -> bool:
        key = tuple(map(_key, what))
        new = key not in self._named
        self._named.put_last(key, None)
        return new

    # -- what was not received ---------------------------------------------------------------

    def count_events(self, *, at_once: bool = False) -> None:
        """Warn of runs that have stopped and lack events.

        Parameters
        ----------
        at_once
            Whether to count also runs that stopped less than :data:`SETTLE_SECONDS` ago.
        """
        now = time.monotonic()
        due = [doc for when, doc in self._uncounted if at_once or when <= now]
        # Runs that have just stopped are counted later.
        self._uncounted = [] if at_once else [pair for pair in self._uncounted if pair[0] > now]
        for stop in due:
            try:
                self._count(stop)
            except DaskbrokerError as error:
                self._warn(f"the events of run {stop['run_start']} cannot be counted: {error}")

    def _count(self, stop: Doc) -> None:
        taken = stop.get("num_events")
        # Old or foreign stops do not say how many events there were.
        if not isinstance(taken, Mapping):
            return
        stored = self._broker.event_sources.count_rows(stop["run_start"])
        short = [
            f"{stored.get(stream, 0):,} of {number:,} events of {stream}"
            for stream, number in taken.items()
            if isinstance(number, int) and stored.get(stream, 0) < number
        ]
        # A stop that is sent again would warn again.
        if short and self._is_new("short", stop["run_start"]):
            self._warn(
                f"run {stop['run_start']} is incomplete: {', '.join(short)} are stored. The others "
                "were published while this listener was not connected, lost on their way, or "
                "refused."
            )


def _key(value: object) -> Any:
    """Return a hashable key for a value of any type."""
    return value if isinstance(value, (str, int, bool, tuple)) else json.dumps(repr(value))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
