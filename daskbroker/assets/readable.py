"""Which files may be read: below ``readable_roots``, once links and ``..`` are resolved."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import FillError

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
        for root in self.roots:
            base = os.path.realpath(root)
            if real == base or real.startswith(base.rstrip(os.sep) + os.sep):
                return real
        raise FillError(
            f"{path!r} is {real!r}, outside the readable roots {', '.join(map(repr, self.roots))}; "
            "add its folder to readable_roots if it may be read"
        )

    def exists(self, path: str) -> bool:
        """Whether there is such a file, and it may be opened."""
        return os.path.exists(self.check(path))


ANYWHERE = ReadableRoots()
"""No limit."""
