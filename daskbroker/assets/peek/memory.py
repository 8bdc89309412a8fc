"""Where what was found in files is kept, and what of it still holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ...core.peeks import FileState, Peek
from ...core.regular import identity

__all__ = ["Memory", "file_state", "is_unchanged"]


class Memory(Protocol):
    """What remembers: a store, see :class:`daskbroker.stores.contract.EventStore`."""

    def find_peeks(self, sorts: Sequence[str]) -> Iterable[Peek]:
        """One of each sort."""

    def put_peeks(self, peeks: Sequence[Peek]) -> None:
        """Remember some."""


def file_state(path: str) -> FileState | None:
    """Path, size and time of a file or folder; None where there is none to be seen."""
    found = identity(path)
    return None if found is None else (path, found[2], found[3])


def is_unchanged(peek: Peek) -> bool:
    """Whether the files are as they were; those that this process does not see are taken to be."""
    return all(file_state(state[0]) in (state, None) for state in peek.files)
