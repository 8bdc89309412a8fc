"""Fields of databroker 1: regular expressions that match whole data keys, or metadata.

A field is looked up among data keys, then in the configuration of the descriptor (by its own key,
for any device), then in start, then in stop. Metadata become constant values of each event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.clock import seconds_of

Doc = Mapping[str, Any]


def names_of(fields: Iterable[str] | None) -> set[str] | None:
    """Return fields as a set, of which a text is one; None for all."""
    return None if fields is None else {fields} if isinstance(fields, str) else set(fields)


@dataclass(frozen=True)
class Selection:
    """Data keys to leave out of the events of one descriptor, and metadata to add to them.

    Attributes
    ----------
    dropped
        Data keys that are left out.
    data, timestamps
        Metadata that are added to the data of each event, and their timestamps, by key.
    """

    dropped: frozenset[str]
    data: dict[str, Any]
    timestamps: dict[str, float]

    @classmethod
    def of(
        cls, fields: Iterable[str] | None, descriptor: Doc, start: Doc, stop: Doc | None
    ) -> Selection:
        """Make the selection of given fields; all data keys and no metadata if None."""
        if fields is None:
            return cls(frozenset(), {}, {})
        pattern = re.compile("|".join(rf"(?:{one})\Z" for one in sorted(fields)) or ".*")
        keys = descriptor["data_keys"]
        found = {key for key in keys if pattern.match(key)}
        data: dict[str, Any] = {}
        timestamps: dict[str, float] = {}
        for values, times in _metadata(descriptor, start, stop or {}):
            for key in values:
                if pattern.match(key) and key not in found:
                    found.add(key)
                    data[key] = values[key]
                    timestamps[key] = times.get(key, seconds_of(start))
        return cls(frozenset(set(keys) - found), data, timestamps)

    def kept(self, descriptor: Doc) -> list[str]:
        """Return the data keys that are kept, in the order of the descriptor."""
        return [key for key in descriptor["data_keys"] if key not in self.dropped]

    def described(self, descriptor: Doc) -> Doc:
        """Return the descriptor without the dropped data keys; it keeps its uid."""
        if not self.dropped:
            return descriptor
        keys = descriptor["data_keys"]
        return {**descriptor, "data_keys": {key: keys[key] for key in self.kept(descriptor)}}

    def applied(self, event: Doc) -> Doc:
        """Return an event with the selected data and timestamps."""
        if not self.dropped and not self.data:
            return event
        return {
            **event,
            "data": self._chosen(event["data"], self.data),
            "timestamps": self._chosen(event["timestamps"], self.timestamps),
        }

    def _chosen(self, values: Doc, more: Doc) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key not in self.dropped} | dict(more)


def _metadata(descriptor: Doc, start: Doc, stop: Doc) -> Iterable[tuple[Doc, Doc]]:
    """Yield pairs of values and timestamps, in the order in which a field is looked up."""
    devices = list((descriptor.get("configuration") or {}).values())
    data = {k: v for device in devices for k, v in (device.get("data") or {}).items()}
    times = {k: v for device in devices for k, v in (device.get("timestamps") or {}).items()}
    yield data, times
    yield start, dict.fromkeys(start, seconds_of(start))
    yield stop, dict.fromkeys(stop, seconds_of(stop))
