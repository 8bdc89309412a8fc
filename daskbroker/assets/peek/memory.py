"""Where findings in files are remembered, and whether they are still valid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ...core.file_identity import identity
from ...core.peeks import FileState, Peek


class Memory(Protocol):
    """Protocol of a store of peeks: see :class:`daskbroker.stores.contract.EventStore`."""

    def find_peeks(self, sorts: Sequence[str]) -> Iterable[Peek]:
        """Return one peek of each sort."""

    def put_peeks(self, peeks: Sequence[Peek]) -> None:
        """Remember some peeks."""


def file_state(path: str) -> FileState | None:
    """Return the path, size and time of a file or folder; None if it cannot be accessed."""
    found = identity(path)
    return None if found is None else (path, found[2], found[3])


def is_unchanged(peek: Peek) -> bool:
    """Return whether the files are unchanged; inaccessible ones are assumed to be."""
    return all(file_state(state[0]) in (state, None) for state in peek.files)
