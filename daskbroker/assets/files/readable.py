"""Limit which files may be read to those below ``readable_roots``, after resolving links."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from ...core.errors import FillError
from ...core.name_lists import listed
from ...core.regular_files import open_regular


@dataclass(frozen=True)
class ReadableRoots:
    """The folders below which files may be opened.

    Attributes
    ----------
    roots
        Absolute paths; no limit if None.
    """

    roots: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None
    ) -> ReadableRoots:
        """Build from one or several paths; relative ones start at the working directory.

        None means no limit.
        """
        if roots is None:
            return ANYWHERE
        if isinstance(roots, (str, os.PathLike)):
            roots = [roots]
        return cls(tuple(os.path.abspath(os.fspath(root)) for root in roots))

    def check(self, path: str) -> str:
        """Return the path to open instead of ``path``: its real path if roots are set, else itself.

        Call it for every file, in the process that opens it, as links are resolved there.

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
        """Open a regular file for reading, if :meth:`check` allows it.

        If roots are set, the opened file is checked once more, as a link may have been put into
        its path in between.

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
        """Return whether there is such a file.

        Raises
        ------
        FillError
            If the file is outside the roots.
        """
        return os.path.exists(self.check(path))


def _path_of(number: int) -> str | None:
    """Return the path of an open file descriptor; None if the system does not tell."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return None


ANYWHERE = ReadableRoots()
"""Roots without a limit: any file may be read."""
