"""Which files may be read: below ``readable_roots``, once links and ``..`` are resolved."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from ...core.errors import FillError
from ...core.listing import listed
from ...core.regular import open_regular

__all__ = ["ANYWHERE", "ReadableRoots"]


@dataclass(frozen=True)
class ReadableRoots:
    """The folders below which files may be opened.

    Attributes
    ----------
    roots
        Absolute paths; None: no limit.
    """

    roots: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None
    ) -> ReadableRoots:
        """From what a user gives: one path or some, relative to here; None for no limit."""
        if roots is None:
            return ANYWHERE
        if isinstance(roots, (str, os.PathLike)):
            roots = [roots]
        return cls(tuple(os.path.abspath(os.fspath(root)) for root in roots))

    def check(self, path: str) -> str:
        """The path to open in place of ``path``: the same, or its real path where roots are set.

        Call it in the process that opens the file, for every file: links are resolved there.

        Raises
        ------
        FillError
            If the file is outside the roots.
        """
        if self.roots is None:
            return path
        real = os.path.realpath(path)
        if self._holds(real):
            return real
        raise self._outside(path, real)

    def open(self, path: str) -> BinaryIO:
        """Open a file to read, as :meth:`check` allows; only regular files.

        Where roots are set, what was opened is checked once more: a link may have come into
        the way in between.

        Raises
        ------
        FillError
            If the file is outside the roots.
        OSError
            If it cannot be opened, or is a folder, pipe, socket or device.
        """
        real = self.check(path)
        file = open_regular(real)
        if self.roots is not None:
            opened = _path_of(file.fileno())
            if opened not in (None, real) and not self._holds(opened):
                file.close()
                raise self._outside(path, opened)
        return file

    def _holds(self, real: str) -> bool:
        bases = [os.path.realpath(root) for root in self.roots or ()]
        return any(real == b or real.startswith(b.rstrip(os.sep) + os.sep) for b in bases)

    def _outside(self, path: str, real: str) -> FillError:
        return FillError(
            f"{path!r} is {real!r}, outside the readable roots "
            f"{listed(map(repr, self.roots or ()), path)}; add its folder to readable_roots if it "
            "may be read"
        )

    def exists(self, path: str) -> bool:
        """Whether there is such a file, and it may be opened."""
        return os.path.exists(self.check(path))


def _path_of(number: int) -> str | None:
    """Where an open file is, as the system tells; None where it does not."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return None


ANYWHERE = ReadableRoots()
"""No limit."""
