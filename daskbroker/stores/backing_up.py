"""Backups: the interface of a store that can copy itself while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.damage import Damage
from ..core.printable import counted


@dataclass
class BackupReport:
    """Report of what a backup contains.

    Attributes
    ----------
    folder
        Folder of the backup.
    files, bytes
        Number of files in the backup, and the sum of their sizes.
    damages
        Damage for each file that could not be copied, as it is missing or cannot be read.
    """

    folder: Path
    files: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{counted(self.files, 'file')} ({self.bytes:,} bytes) in {self.folder}"
        return text + (f", {len(self.damages):,} could not be copied" if self.damages else "")


class BackupSource(Protocol):
    """A store that can copy itself; two sources are equal if they are of the same store."""

    def back_up(self, folder: Path) -> BackupReport:
        """Make a copy that can be opened as a store, with what was committed at one instant.

        When this has returned, the copy survives a loss of power.

        Parameters
        ----------
        folder
            Folder to make; nothing may be there.

        Raises
        ------
        StoreExists
            If there is something at ``folder``; it is left alone.
        StoreFull, StoreReadOnly, StoreError
            If there is no room at the target, it cannot be written, or the system fails.
        """
