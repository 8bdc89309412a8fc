"""Warnings about searches that may mean something else, each given once.

The search itself is always carried out as it is written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from .core import advice
from .core.asked_types import asked_values, in_other_type, type_name, types_of
from .core.bad_runs import BadRun
from .core.errors import SearchWarning
from .core.name_lists import MAX_NAME_LENGTH, listed, misspelled, nearest
from .core.operators import OPERATORS, is_operators
from .core.search import LEAST_PREFIX, WORDS, HasDataKey, Search
from .core.user_warnings import is_quiet, warn_caller
from .stores.contract import EventStore, HeaderPair, HeaderStore

NEWEST = 1000
"""Number of newest runs from which the known keys are collected."""
MOST_KEYS = 20_000
"""Maximum number of known keys; with more there are no warnings about keys."""
MOST_TEXTS = 2000
"""Number of known texts of a key after which no more are collected, and none are compared."""
KNOWN_SECONDS = 60.0
"""Seconds after which the keys are collected again, although the newest run is the same."""
DATA_KEY = "data key"
OFTEN = ("plan_name", "scan_id", "uid")
"""Keys of start documents that are searched for most."""
EQUALITY = frozenset({"$eq", "$in", "$all"})
"""Operators whose operands are values that some run should have."""


class SearchHints:
    """Warnings about the searches of one broker, each given once.

    Parameters
    ----------
    headers, events
        Header store and event stores that are searched.
    """

    def __init__(self, headers: HeaderStore, events: Sequence[EventStore]) -> None:
        self._known = _KnownKeys(headers, events)
        self._told: set[tuple[str, str]] = set()

    def on_words(self, search: Search) -> None:
        """Warn about reserved words of a search that are also keys of start documents."""
        for word in search.reserved:
            # Once per word and broker; only a key that exists can have been meant.
            if ("word", word) not in self._told and word in self._known.of("start"):
                self._tell(
                    ("word", word),
                    f"start documents have a key {word!r}, but {word}= is a reserved word of "
                    "searches and does not look at that key. To search for the key, write "
                    f"{advice.words(start={word: advice.ANY})}",
                )

    def on_nothing(self, search: Search) -> None:
        """Warn about a search that found nothing, if its keys or values may be why.

        That is if no run has the key, if the runs have values of other types there, or a text
        that differs in spelling only, if the value is a list, if a uid is not a whole one, if a
        full text has the form of a condition, or if until is before since.
        """
        since, until = search.since, search.until
        backwards = since is not None and until is not None and until < since
        if backwards and ("time", "until") not in self._told:
            self._tell(("time", "until"), "no run was found: until= is a time before since=")
        for text in search.texts:
            key, sign, value = text.full.partition("=")
            # Words of a full text are looked for without their signs.
            if sign and value and key.isidentifier() and ("full", key) not in self._told:
                self._tell(
                    ("full", key),
                    f"no run was found: {text.full!r:.200} is looked for as words. To search for a "
                    f"key, write {advice.words(**{key: advice.ANY})}",
                )
        for kind, key, values in _asked(search):
            # Each hint is given once, so it is not prepared again.
            if (kind, key) in self._told:
                continue
            # As in MongoDB a list matches only as a whole, which is rarely what is meant.
            if any(isinstance(value, list) for value in values):
                self._tell(
                    (kind, key),
                    f"no run was found: a list as the value of {key!r} is compared as a whole. To "
                    f"match any of several values, write "
                    f"{advice.condition(key, {'$in': [advice.ANY]}, kind)}",
                )
            # Likewise a mapping.
            elif whole := next((v for v in values if v and _is_mapping(v)), None):
                first = next(iter(whole))
                # An operator without its sign, which is more likely than a key of such a name.
                is_sign = f"${first}" in OPERATORS and f"{key}.{first}" not in self._known.of(kind)
                part = (
                    advice.condition(key, {f"${first}": advice.ANY}, kind)
                    if is_sign
                    else advice.condition(f"{key}.{first}", advice.ANY, kind)
                )
                self._tell(
                    (kind, key),
                    f"no run was found: a mapping as the value of {key!r} is compared as a whole, "
                    f"with all its keys. To match one, write {part}",
                )
            # A search for missing keys is right to name a key that no run has.
            elif not any(isinstance(value, dict) and "$exists" in value for value in values):
                self._look_for(kind, key, values)

    def _look_for(self, document: str, key: str, values: Sequence[Any]) -> None:
        known = self._known.of(document)
        path = key if document == DATA_KEY else ".".join(_names(key.split(".")))
        # Nothing is known to compare with; or the path is a position in a list.
        if not known or len(known) > MOST_KEYS or not path:
            return
        # Its keys are daskbroker's own, which no run has as long as no run is derived.
        if document == "start" and path.partition(".")[0] == "derived_from":
            return
        if path in known:
            asked = [one for value in values for one in asked_values(value)]
            text = (
                self._on_uid(document, path, asked)
                or self._on_types(document, key, asked, known[path].types)
                or _on_spelling(document, key, values, known[path].texts)
            )
            if text:
                self._tell((document, key), f"no run was found: {text}")
            return
        what = DATA_KEY if document == DATA_KEY else f"key of {document} documents"
        text = f"no run was found: {key!r} is not a {what} of the newest {NEWEST:,} runs"
        self._tell((document, key), f"{text}. {self._meant(document, path)}")

    def _on_uid(self, document: str, path: str, asked: Sequence[Any]) -> str | None:
        """Return what to write if a uid is only the beginning of one."""
        # Only the uid has a short form.
        if (document, path) != ("start", "uid"):
            return None
        for value in asked:
            if isinstance(value, str) and value and self._known.begins_uid(value):
                # Shorter beginnings are not accepted by db[...].
                if len(value) >= LEAST_PREFIX:
                    return (
                        f"uid= is compared as a whole. To find a run by the beginning of its uid, "
                        f"use {advice.run_by(value)}"
                    )
                pattern = {"$regex": f"^{re.escape(value)}"}
                return (
                    f"uid= is compared as a whole. To find runs by the beginning of their uid, use "
                    f"{advice.words(uid=pattern)}"
                )
        return None

    def _on_types(
        self, document: str, key: str, asked: Sequence[Any], there: AbstractSet[str]
    ) -> str | None:
        """Return what to write if runs have no values of the types that were requested."""
        wanted = dict.fromkeys(map(type_name, asked))
        # Some runs have the requested type, so its values are what was not found.
        if not there or not wanted or "None" in wanted or not there.isdisjoint(wanted):
            return None
        found = " or ".join(sorted(there))
        text = (
            f"{key!r} is {found} in the {document} documents of the newest {NEWEST:,} runs, not "
            f"{' or '.join(wanted)}"
        )
        # Times are numbers in documents, which is often forgotten.
        if (document, key) == ("start", "time"):
            return f"{text}. To search by dates and times as text, use since= and until="
        other = in_other_type(asked, there)
        if other is not None:
            return f"{text}. Write {advice.condition(key, other, document)}"
        below = sorted(p for p in self._known.of(document) if p.startswith(f"{key}."))
        return f"{text}. Search for one of its keys: {listed(below)}" if below else text

    def _meant(self, document: str, path: str) -> str:
        """Return a text that says what may have been meant by a key."""
        # The most frequent cause: a key of another document.
        if document == "start" and path in self._known.of("stop"):
            return f"Stop documents have it: write {advice.words(stop={path: advice.ANY})}"
        if document == "start" and path in self._known.of(DATA_KEY):
            return f"It is a data key: write {advice.words(data_key=path)}"
        if path == "limit":
            return f"To limit the number of runs, use {advice.newest()}"
        known = self._known.of(document)
        names = list(known)
        if document == "start":
            # Among equally similar names, those that are searched for most come first.
            words = [word for word in WORDS if word not in ("start", "stop")]
            names = [*filter(known.__contains__, OFTEN), *known, *words]
        near = nearest(names, path)
        if near is None:
            by_depth = sorted(known, key=lambda key: key.count("."))
            return f"The known keys are: {listed(by_depth)}"
        if near not in known:
            return f"The nearest word of searches is {near}="
        return f"The nearest known key is {near!r}"

    def _tell(self, what: tuple[str, str], text: str) -> None:
        # A quiet search must not use up the hint.
        if not is_quiet():
            self._told.add(what)
            warn_caller(text, SearchWarning)


@dataclass(slots=True)
class _Values:
    """Types of the values of a key, and the short texts among them."""

    types: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)


class _KnownKeys:
    """Dotted keys in the documents of the newest runs, and their data keys.

    They are read when they are first needed. They are read again when another run is the newest,
    and after a minute, because runs with an earlier time may have been inserted.
    """

    def __init__(self, headers: HeaderStore, events: Sequence[EventStore]) -> None:
        self._headers = headers
        self._events = events
        self._state: Any = None
        self._keys: dict[str, dict[str, _Values]] = {}

    def begins_uid(self, text: str) -> bool:
        """Return whether the uid of some run begins with a text."""
        return bool(self._headers.find_prefix(text, 1))

    def of(self, document: str) -> dict[str, _Values]:
        """Return the keys of ``start``, ``stop`` or ``descriptor`` documents, or the data keys.

        Each comes with what is known of its values; data keys have none.
        """
        newest = [(start["uid"], stop is None) for start, stop in self._runs(1)]
        state = newest, time.monotonic() // KNOWN_SECONDS
        # A new run, or a minute later: the keys may have changed.
        if state != self._state:
            self._state, self._keys = state, {}
        if document not in self._keys:
            if document == DATA_KEY:
                keys = (key for doc in self._descriptors() for key in doc.get("data_keys", ()))
                self._keys[document] = {key: _Values() for key in keys}
            else:
                self._keys[document] = _paths(self._newest(document))
        return self._keys[document]

    def _runs(self, number: int) -> list[HeaderPair]:
        found = self._headers.find(Search(), 0, number)
        return [one for one in found if not isinstance(one, BadRun)]

    def _newest(self, document: str) -> Sequence[Mapping[str, Any]]:
        """Return the ``start``, ``stop`` or ``descriptor`` documents of the newest runs."""
        if document == "start":
            return [start for start, _ in self._runs(NEWEST)]
        if document == "stop":
            return [stop for _, stop in self._runs(NEWEST) if stop is not None]
        return self._descriptors()

    def _descriptors(self) -> list[Mapping[str, Any]]:
        runs = [start["uid"] for start, _ in self._runs(NEWEST)]
        found = (one for store in self._events for one in store.list_descriptors(runs))
        return [one for one in found if not isinstance(one, BadRun)]


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and not is_operators(value)


def _asked(search: Search) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield each condition of a search: kind of document, key, and values requested."""
    parts = {"start": search.queries, "stop": search.stop, "descriptor": search.descriptors}
    for kind, queries in parts.items():
        for query in queries:
            if isinstance(query, HasDataKey):
                yield DATA_KEY, query.name, [query.name]
            else:
                for key, values in query.asked.items():
                    yield kind, key, values


def _on_spelling(
    document: str, key: str, values: Sequence[Any], texts: AbstractSet[str]
) -> str | None:
    """Return what to write if a text is the value of no run, but one of similar spelling is."""
    # There may be more of them, among them what was requested.
    if len(texts) > MOST_TEXTS:
        return None
    # A pattern, or the end of a range, need not be the value of any run.
    equal = [one for one in values if not is_operators(one) or EQUALITY.issuperset(one)]
    for value in (value for one in equal for value in asked_values(one)):
        # Of longer values it is not known whether a run has them.
        if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH or value in texts:
            continue
        meant = misspelled(texts, value)
        if meant is not None:
            return (
                f"{key!r} is never {value!r:.200} in the {document} documents of the newest "
                f"{NEWEST:,} runs. The nearest value is {meant!r}"
            )
    return None


def _paths(documents: Iterable[Mapping[str, Any]]) -> dict[str, _Values]:
    """Return the dotted keys that a query can reach, without positions in arrays, and their values.

    Stops soon after `MOST_KEYS` keys, so that the result is incomplete then.
    """
    found: dict[str, _Values] = {}
    for document in documents:
        _add_paths(document, (), found)
        # More keys would take long to compare, and are not compared at all.
        if len(found) > MOST_KEYS:
            break
    return found


def _add_paths(value: object, steps: tuple[str, ...], keys: dict[str, _Values]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if "." not in key:  # a dot in a query always leads into a mapping
                below = (*steps, *_names([key]))
                values = keys.setdefault(".".join(below), _Values())
                values.types.update(types_of(item))
                if len(values.texts) <= MOST_TEXTS:
                    values.texts.update(_texts(item))
                _add_paths(item, below, keys)
    elif isinstance(value, list):
        for item in value:
            _add_paths(item, steps, keys)


def _texts(value: object) -> Iterator[str]:
    """Yield the texts that a query compares with a value: of lists those of the items."""
    if isinstance(value, str) and len(value) <= MAX_NAME_LENGTH:
        yield value
    elif isinstance(value, list):
        yield from (one for one in value if isinstance(one, str) and len(one) <= MAX_NAME_LENGTH)


def _names(steps: Sequence[str]) -> list[str]:
    """Return the steps of a dotted key that are not positions in arrays."""
    return [step for step in steps if not step.isdigit()]
