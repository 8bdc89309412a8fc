"""Changes that a selection of fields makes to descriptors and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.derived_descriptors import derive_descriptor
from ...core.documents import Document, frozen_document
from ...core.fields import Field, select, select_there
from ...core.filled import FilledDocument, unfilled_form
from ...core.frozen import FrozenDict, freeze
from ...core.run_plan import stream_of


@dataclass(frozen=True)
class Change:
    """The change that a selection of fields makes to the events of one descriptor.

    Attributes
    ----------
    descriptor
        Derived descriptor.
    kept
        Data keys that stay.
    data, timestamps
        Values that are added to each event, such as projected metadata.
    """

    descriptor: Document
    kept: frozenset[str]
    data: FrozenDict
    timestamps: FrozenDict

    @classmethod
    def of(
        cls,
        parent: Document,
        chosen: Sequence[Field],
        start: Mapping[str, Any],
        stop: Mapping[str, Any] | None,
    ) -> Change | None:
        """Return the change for some chosen fields, or None if nothing changes."""
        descriptor, data, timestamps = derive_descriptor(parent, chosen, start, stop)
        # The selection has everything that the descriptor has.
        if descriptor["uid"] == parent["uid"]:
            return None
        kept = frozenset(field.key for field in chosen if field.role == "data")
        return cls(descriptor, kept, freeze(data), freeze(timestamps))

    def apply(self, event: Document) -> Document:
        """Return the changed event; the unfilled form of a filled one is changed, too."""
        changed = self._applied(event)
        if not isinstance(event, FilledDocument):
            return frozen_document(changed)
        return FilledDocument.of(changed, frozen_document(self._applied(unfilled_form(event))))

    def _applied(self, event: Mapping[str, Any]) -> dict[str, Any]:
        changed = {
            **event,
            "descriptor": self.descriptor["uid"],
            "data": self._kept(event["data"], self.data),
            "timestamps": self._kept(event["timestamps"], self.timestamps),
        }
        if isinstance(event.get("filled"), dict):
            changed["filled"] = self._kept(event["filled"], {})
        return changed

    def _kept(self, values: Mapping[str, Any], more: dict[str, Any]) -> FrozenDict:
        kept = {k: v for k, v in values.items() if k in self.kept}
        return FrozenDict(kept | more if more else kept)


def changes_of(
    descriptors: Sequence[Document],
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    fields: object,
) -> dict[int, Change | None]:
    """Return the changes by a selection of fields, by position of the descriptor.

    Descriptors of streams that have none of the fields are left out; None means no change.
    """
    # All fields: no descriptor changes.
    if fields is None:
        return dict.fromkeys(range(len(descriptors)))
    streams: dict[str, list[int]] = {}
    for index, descriptor in enumerate(descriptors):
        streams.setdefault(stream_of(descriptor), []).append(index)
    changes: dict[int, Change | None] = {}
    for indices in streams.values():
        same_stream = [descriptors[index] for index in indices]
        there = select_there(fields, same_stream)
        # A stream without any of the fields is left out.
        if there is not None:
            chosen = select(there, same_stream)
            changes |= {
                index: Change.of(descriptors[index], chosen, start, stop) for index in indices
            }
    return changes
