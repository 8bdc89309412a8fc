"""The documents of every new run: start, descriptor, pages and stop, with their uids."""

from __future__ import annotations

import time as clock
import uuid as uuids
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core.documents import Document, start_of
from ...core.errors import BadDocument, MissingTimeWarning
from ...core.fields import shown_names
from ...core.schema import datetime_to_posix
from ...core.user_warnings import warn_caller

NOT_DATA = ("time", "uid", "descriptor", "run", "seq_num")
"""Columns that do not become data keys."""

DTYPES = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}
"""Name in event-model of each kind of NumPy dtype; all others are ``"string"``."""

Pairs = Iterator[tuple[str, Document]]
"""Pairs ``(name, document)``."""


@dataclass
class NewRun:
    """A run in the making, which makes its documents and their uids.

    Attributes
    ----------
    start
        Start document.
    stream
        Name of the stream.
    known
        Data keys of the origin's stream, by name.
    names
        Data key of each column name under which a table shows it.
    single
        Whether the origin is at most one run, so that its ``seq_num`` can be kept.
    of_one_run
        Whether the attributes name one run as the origin.
    descriptor
        Descriptor, once it is declared.
    count
        Number of events so far.
    last_time
        Time of the last event so far, in POSIX seconds.
    part
        Prefix that distinguishes the uids of one stream from those of others in the run.
    time_is_missing
        Whether some event so far had no time.
    """

    start: Document
    stream: str
    known: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    single: bool
    of_one_run: bool = False
    descriptor: Document | None = None
    count: int = 0
    last_time: float = field(default=0.0)
    part: str = ""
    time_is_missing: bool = False

    @classmethod
    def of(
        cls,
        attrs: Mapping[str, Any],
        header: Any,
        stream: str | None,
        uid: str | None,
        time: float | None,
        more: Mapping[str, Any] | None,
    ) -> NewRun:
        """Begin a run that is derived from another one.

        Parameters
        ----------
        attrs
            Attributes of the table or Dataset, which name its runs, stream and descriptors.
        header
            Header or start document of the origin, or None.
        stream, uid, time
            Name of the stream, uid of the run and time of its start; None for the defaults.
        more
            More keys for ``derived_from``.

        Raises
        ------
        BadDocument
            If `header` is neither a Header nor a start document with a uid.
        """
        origin = _start_of(header)
        name = stream or attrs.get("stream") or "primary"
        kept = {k: v for k, v in origin.items() if k not in ("uid", "time", "scan_id")}
        listed = attrs.get("runs", [attrs["run"]] if "run" in attrs else [])
        # A table of several runs has all of them as origin, whichever gives the start document.
        runs = list(listed) if not origin or origin["uid"] in listed else [origin["uid"]]
        provenance = {"runs": runs, "stream": attrs.get("stream", name)}
        if "descriptors" in attrs:
            provenance["descriptors"] = list(attrs["descriptors"])
        start = {
            **kept,
            "uid": uid or str(uuids.uuid4()),
            "time": clock.time() if time is None else float(time),
            "derived_from": {**provenance, **(more or {})},
        }
        known: dict[str, Mapping[str, Any]] = {}
        descriptors = {} if isinstance(header, Mapping) else getattr(header, "descriptors", {})
        for descriptor in descriptors.get(name, descriptors.get(attrs.get("stream"), [])):
            known.update(descriptor["data_keys"])
        names = {shown: key for key, shown in shown_names(known).items()}
        single, of_one = len(listed) <= 1, len(listed) == 1
        return cls(Document(start), name, known, names, single, of_one)

    def uid_of(self, what: str) -> str:
        """Return the uid of the document that `what` names, such as ``"event 5"``."""
        return derived_uid(self.start["uid"], self.part + what)

    def key_of(self, name: str) -> str:
        """Return the data key of a column."""
        return self.names.get(name, name.removeprefix("data:"))

    def declare(self, data_keys: Mapping[str, Any], **more: Any) -> Document:
        """Make and return the descriptor; `more` replaces or adds keys."""
        self.descriptor = Document(
            {
                "uid": self.uid_of("descriptor"),
                "run_start": self.start["uid"],
                "time": self.start["time"],
                "name": self.stream,
                "data_keys": data_keys,
                "object_keys": {},
                "configuration": {},
                "hints": {},
                **more,
            }
        )
        return self.descriptor

    def seconds(self, times: np.ndarray) -> list[float]:
        """Convert the ``datetime64`` times of events to POSIX seconds.

        NaT becomes the time of the start, with a :class:`daskbroker.MissingTimeWarning`.
        """
        seconds = datetime_to_posix(times)
        missing = np.isnan(seconds)
        if missing.any():
            self._warn_of_missing_times(int(missing.argmax()))
            seconds = np.where(missing, float(self.start["time"]), seconds)
        return seconds.tolist()

    def _warn_of_missing_times(self, first: int) -> None:
        if not self.time_is_missing:
            self.time_is_missing = True
            warn_caller(
                f"stream {self.stream!r}: event {self.count + first + 1} of the new run, and maybe "
                "later ones, have no time (NaT). They are given the time of the start; to give "
                "them another, fill the column or coordinate 'time' first",
                MissingTimeWarning,
            )

    def warn_of_other_time(self, dtype: object) -> None:
        """Warn, once, that the column ``time`` of a table holds no times."""
        if not self.time_is_missing:
            self.time_is_missing = True
            warn_caller(
                f"stream {self.stream!r}: the column or index 'time' of the table has the dtype "
                f"{dtype}, so it is stored as a data key, and each event has the time of the "
                "start. To give events their times, convert it first: pd.to_datetime(table['time'],"
                " unit='s', utc=True) takes POSIX seconds. If it is something else, rename it",
                MissingTimeWarning,
            )

    def page(
        self, seq_num: Any, times: Any, data: Mapping[str, Any], stamps: Mapping[str, Any]
    ) -> tuple[str, Document]:
        """Return an event_page of columns, and count its events.

        Parameters
        ----------
        seq_num
            Numbers of the events; counted on from the last page if None.
        times
            POSIX seconds of the events.
        data, stamps
            Cells and timestamps by data key. Keys without timestamps have those of the events.
        """
        assert self.descriptor is not None
        first, self.count = self.count + 1, self.count + len(times)
        if len(times):
            self.last_time = float(times[-1])
        page = {
            "descriptor": self.descriptor["uid"],
            "uid": [self.uid_of(f"event {n}") for n in range(first, self.count + 1)],
            "seq_num": list(range(first, self.count + 1)) if seq_num is None else seq_num,
            "time": times,
            "data": data,
            "timestamps": {key: stamps.get(key, times) for key in data},
            "filled": {},
        }
        return "event_page", Document(page)

    def stop(self, num_events: Mapping[str, int] | None = None) -> Document:
        """Return the stop document.

        Parameters
        ----------
        num_events
            Number of events by stream. If None, those of the pages that were made.
        """
        return Document(
            {
                "uid": self.uid_of("stop"),
                "run_start": self.start["uid"],
                "time": max(self.start["time"], self.last_time),
                "exit_status": "success",
                "reason": "",
                "num_events": {self.stream: self.count} if num_events is None else dict(num_events),
            }
        )


def _start_of(header: object) -> Mapping[str, Any]:
    start = {} if header is None else start_of(header)
    if not isinstance(start, Mapping) or (start and "uid" not in start):
        raise BadDocument(
            f"header: a {type(header).__name__} is neither a Header nor a start document with a "
            "uid. Of a table made of several runs give one of them, and the uids of all in "
            "provenance={'runs': [...]}"
        )
    return start


def derived_uid(run: str, what: str) -> str:
    """Return a uid that is always the same for the same run and the same `what`."""
    return str(uuids.uuid5(uuids.NAMESPACE_URL, f"daskbroker:{run}:{what}"))
