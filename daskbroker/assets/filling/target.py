"""Targets of filling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.documents import stream_of


@dataclass(frozen=True)
class Target:
    """Target of filling: one data key of one descriptor.

    Attributes
    ----------
    run, stream, descriptor
        Uid of the run, name of the stream, uid of the descriptor.
    key
        Data key.
    claim
        Entry of the data key in the descriptor's ``data_keys``.
    """

    run: str
    stream: str
    descriptor: str
    key: str
    claim: Mapping[str, Any]

    @classmethod
    def of(cls, descriptor: Mapping[str, Any], key: str) -> Target:
        """Build from a descriptor, which may lack the key; the claim is then empty."""
        run, stream = descriptor["run_start"], stream_of(descriptor)
        claim = descriptor["data_keys"].get(key, {})
        return cls(run, stream, original_uid(descriptor), key, claim)

    @property
    def external(self) -> bool:
        """Whether the descriptor says that values are outside the store."""
        return bool(self.claim.get("external"))

    @property
    def where(self) -> str:
        """Run, stream and key, as the beginning of error messages."""
        return f"run {self.run!r}, stream {self.stream!r}, key {self.key!r}"


def original_uid(descriptor: Mapping[str, Any]) -> str:
    """Return the uid of a descriptor, or of that from which it was made by selecting fields.

    Stream_datums and peeks name the original.
    """
    uid = descriptor.get("derived_from")
    return uid if isinstance(uid, str) else str(descriptor["uid"])
