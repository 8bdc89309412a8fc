"""A list of headers that is shown as a table of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.printable import counted
from .listing import Listing
from .plots import Y, plot_runs

if TYPE_CHECKING:
    from ..header import Header


class HeaderList(list["Header"]):
    """The list of headers that ``db[-5:]`` and ``db[[...]]`` return, shown as a table."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return HeaderList(found) if isinstance(key, slice) else found

    def plot(self, stream: str | None = None, y: Y = None, *, ax: Any = None) -> Any:
        """Plot all these runs in the same axes; see :meth:`daskbroker.Results.plot`."""
        return plot_runs(self, stream, y, ax)

    @property
    def _listing(self) -> Listing:
        return Listing.of(counted(len(self), "run"), self, len(self))

    def __repr__(self) -> str:
        return self._listing.text() if self else "[]"

    def _repr_html_(self) -> str:
        return self._listing.markup()
