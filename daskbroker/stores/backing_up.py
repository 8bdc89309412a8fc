"""Backups: what a store does that can copy itself while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.damage import Damage

__all__ = ["BackupReport", "BackupSource"]


@dataclass
class BackupReport:
    """What a backup has.

    Attributes
    ----------
    folder
        Where it is.
    files, bytes
        Of the backup.
    damages
        What could not be copied, as it is missing or cannot be read.
    """

    folder: Path
    files: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.files:,} files ({self.bytes:,} bytes) in {self.folder}"
        return text + (f", {len(self.damages):,} could not be copied" if self.damages else "")


class BackupSource(Protocol):
    """A store that can copy itself; equal to another one if both are of the same store."""

    def back_up(self, folder: Path) -> BackupReport:
        """Make a copy that opens by itself, and holds what was committed at one instant.

        When it has returned, the copy survives a loss of power.

        Raises
        ------
        StoreExists
            If there is something at ``folder``; it is left alone.
        StoreFull, StoreReadOnly, StoreError
        """
