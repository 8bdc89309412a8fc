"""Arguments that batch functions share: runs in several forms, and the broker to write to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ..broker import DataBroker
from ..core.errors import ConfigError
from ..header import Header
from ..results import Results

__all__ = ["check_broker", "oldest_first", "runs_of"]


def runs_of(given: DataBroker | Results | Header | Iterable[Header]) -> Iterable[Header]:
    """Return the runs of an argument: a broker (all its runs), search results, or headers."""
    if isinstance(given, Header):
        return [given]
    return given() if isinstance(given, DataBroker) else given


def oldest_first(runs: Iterable[Header], into: DataBroker) -> Iterator[Header]:
    """Iterate over the runs of a search oldest first, so that new runs are in the same order.

    Other iterables keep their own order.
    """
    if not isinstance(runs, Results):
        return iter(runs)
    # New runs in the same store are its newest: read lazily, they would be met at the end.
    return reversed(list(runs) if runs.db is into else runs)


def check_broker(into: Any) -> None:
    """Check that an argument is a broker.

    Raises
    ------
    ConfigError
        If it is not. For a path or the name of a catalog the message says how to open it.
    """
    if hasattr(into, "batch"):
        return
    place = isinstance(into, (str, os.PathLike))
    opened = f"; daskbroker.connect({os.fspath(into)!r}) opens it" if place else ""
    raise ConfigError(f"into must be a broker, not a {type(into).__name__}{opened}")
