"""Unfilling: the form in which an event with external data in place of references is stored.

An event that a broker has filled, and that was not changed, is stored in its unfilled form if
the references are stored too; thus a run that is inserted as it is streamed gives an equal run.
Any other event is stored as it is given, so values that somebody has edited are never replaced by
those of the file.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.bounded_dict import BoundedDict
from ..core.documents import Document
from ..core.errors import FilledValuesWarning
from ..core.external import is_stream_key
from ..core.filled import FilledDocument, unfilled_form
from ..core.layouts import DATUM, STREAM_DATUM, STREAM_RESOURCE
from ..core.run_plan import resources_of, stream_of
from ..core.validate import prepare

if TYPE_CHECKING:
    from .event_store import EventStore

REWRITTEN = (STREAM_RESOURCE, DATUM, STREAM_DATUM)
MAX_RUNS = 4
"""Maximum number of runs whose references are kept in memory; runs are inserted one by one."""
LOOK_AGAIN_SECONDS = 1.0
"""Seconds until the references are read again if one was not found.

Another process may have stored it since."""


def prepared(name: str, doc: Any, store_of: Callable[[str], EventStore]) -> Mapping[str, Any]:
    """Return a validated private copy of a document to be inserted, unfilled if possible.

    Parameters
    ----------
    name, doc
        Name and content of the document, as given to ``insert``.
    store_of
        Function that returns the store of events for the uid of a descriptor.

    Raises
    ------
    BadDocument
        If the document is not valid.
    """
    # Filled here, so its references are known and may replace the values.
    if isinstance(doc, FilledDocument):
        doc = store_of(doc["descriptor"]).unfilling.stored_form(doc)
    plain = prepare(name, doc)
    # A Document that is not a FilledDocument was read from a store, which has the values itself.
    if plain.get("filled") and name in ("event", "event_page") and not isinstance(doc, Document):
        store_of(plain["descriptor"]).unfilling.check_values(plain)
    return plain


class Unfilling:
    """Converter of filled events into the form in which one store keeps them.

    Parameters
    ----------
    store
        Store of the events and of their references.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._known: BoundedDict[str, _References] = BoundedDict(MAX_RUNS)
        self._warned: BoundedDict[str, bool] = BoundedDict()

    def note(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Note that a reference of a run was stored."""
        # Only runs whose references are in memory need to be told.
        known = self._known.get(run)
        if known is not None:
            known.add(name, doc)

    def stored_form(self, doc: FilledDocument) -> Mapping[str, Any]:
        """Return the document to store in place of a filled event or event_page.

        Data keys whose references are not all stored keep their values, with a
        :class:`daskbroker.FilledValuesWarning`.
        """
        descriptor = self._store.find_descriptor(doc["descriptor"])
        if descriptor is None:  # the insert that follows raises UnknownReference
            return doc
        # The values are stored rather than references to nothing.
        given = [key for key in _filled_keys(doc) if not self._are_there(doc, descriptor, key)]
        if given:
            self._warn(descriptor, sorted(given), "their references are not in this store")
        return _with_values(doc, given)

    def check_values(self, doc: Mapping[str, Any]) -> None:
        """Warn if an event or event_page to be stored as given has values for references."""
        keys = [key for key, state in doc["filled"].items() if _replaces(doc["data"], key, state)]
        # Without a descriptor the insert is refused anyway.
        if keys and (descriptor := self._store.find_descriptor(doc["descriptor"])) is not None:
            self._warn(descriptor, keys, "the event is a plain dict, or was changed")

    def _are_there(self, doc: FilledDocument, descriptor: Mapping[str, Any], key: str) -> bool:
        """Return whether all references that the values of a key replaced are stored."""
        run = descriptor["run_start"]
        wanted = list(_replaced(doc, descriptor, key))
        known = self._known.get(run)
        if known is not None and known.have(wanted):
            return True
        # Read a moment ago: each event of a run would else read all references again.
        if known is not None and time.monotonic() - known.read < LOOK_AGAIN_SECONDS:
            return False
        self._known[run] = known = _References.of(self._store, run)
        return known.have(wanted)

    def _warn(self, descriptor: Mapping[str, Any], keys: Sequence[str], why: str) -> None:
        run = descriptor["run_start"]
        # One warning per run: its events all have the same cause.
        if self._warned.get(run):
            return
        self._warned[run] = True
        warnings.warn(
            f"run {run!r}, stream {stream_of(descriptor)!r}: the values of "
            f"{', '.join(map(repr, keys))} are stored in the events, although `filled` names the "
            f"references that they were read from: {why}. To store references instead, insert "
            "events of documents(fill=False), after their resources and datums",
            FilledValuesWarning,
            stacklevel=2,
        )


Wanted = tuple[Any, ...]
"""A reference: ``(datum_id,)``, or ``(descriptor, data key, seq_num)`` for a frame."""


class _References:
    """The stored references of a run."""

    def __init__(self) -> None:
        self.read = time.monotonic()
        self._datums: set[str] = set()
        self._keys: dict[str, str] = {}
        self._frames: dict[tuple[str, str], list[range]] = {}

    @classmethod
    def of(cls, store: EventStore, run: str) -> _References:
        """Read the references of a run from a store."""
        found = cls()
        plans = store.plan_references(REWRITTEN, [run])
        for name, doc in resources_of(plans):
            found.add(name, doc)
        for table in plans[DATUM.kind].read_all([DATUM.uid]):
            found._datums.update(table.column(DATUM.uid).to_pylist())
        columns = [STREAM_DATUM.owner, "descriptor", "seq_nums:start", "seq_nums:stop"]
        for table in plans[STREAM_DATUM.kind].read_all(columns):
            for row in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
                found._add_frames(*row)
        return found

    def add(self, name: str, doc: Mapping[str, Any]) -> None:
        """Add the references of a document that has been stored."""
        if name == "datum":
            self._datums.add(doc["datum_id"])
        elif name == "datum_page":
            self._datums.update(doc["datum_id"])
        elif name == "datum_rows":
            self._datums.update(row["datum_id"] for row in doc["rows"])
        elif name == "stream_resource":
            self._keys[doc["uid"]] = doc["data_key"]
        elif name == "stream_datum":
            span = doc["seq_nums"]
            uids = doc["stream_resource"], doc["descriptor"]
            self._add_frames(*uids, span["start"], span["stop"])

    def _add_frames(self, resource: str, descriptor: str, start: int, stop: int) -> None:
        spans = self._frames.setdefault((descriptor, self._keys.get(resource, "")), [])
        # Consecutive frames become one range, as a run has millions.
        if spans and spans[-1].stop == start:
            spans[-1] = range(spans[-1].start, stop)
        else:
            spans.append(range(start, stop))

    def have(self, wanted: Sequence[Wanted]) -> bool:
        """Return whether all of some references are stored."""
        return all(map(self._has, wanted))

    def _has(self, wanted: Wanted) -> bool:
        # A datum is found by its id, a frame by its number.
        if len(wanted) == 1:
            return wanted[0] in self._datums
        descriptor, key, seq_num = wanted
        # Events come in order, so the span is most likely among the last.
        return any(seq_num in span for span in reversed(self._frames.get((descriptor, key), [])))


def _replaces(data: Mapping[str, Any], key: str, state: object) -> bool:
    """Return whether ``filled``, of an event or a page, names a reference that data replaces."""
    if isinstance(state, str):
        return key in data and not (isinstance(data[key], str) and data[key] == state)
    return (
        isinstance(state, list)
        and key in data
        and any(_replaces({key: cell}, key, one) for cell, one in zip(data[key], state))
    )


def _filled_keys(doc: FilledDocument) -> list[str]:
    before = unfilled_form(doc).get("filled") or {}
    return [key for key, state in doc["filled"].items() if before.get(key) != state]


def _replaced(doc: FilledDocument, descriptor: Mapping[str, Any], key: str) -> Iterator[Wanted]:
    """Yield the references that the values of a key replaced."""
    of_stream = is_stream_key(descriptor["data_keys"].get(key, {}))
    states, seq_nums = doc["filled"][key], doc["seq_num"]
    rows = [(states, seq_nums)] if isinstance(seq_nums, int) else zip(states, seq_nums, strict=True)
    for state, seq_num in rows:
        if isinstance(state, str):
            yield (state,)
        elif state is True and of_stream:
            yield descriptor["uid"], key, seq_num


def _with_values(doc: FilledDocument, keys: Sequence[str]) -> Mapping[str, Any]:
    """Return the unfilled form of a document, except for some keys, which stay filled."""
    before = unfilled_form(doc)
    # The usual case: every reference is stored.
    if not keys:
        return before
    parts = {}
    for part in ("data", "filled"):
        parts[part] = {**(before.get(part) or {}), **{key: doc[part][key] for key in keys}}
    return {**before, **parts}
