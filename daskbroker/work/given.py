"""What a batch is given: runs in several forms, and a broker that takes what is made of them."""

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
    """All runs of a broker, those that a search found, one, or several."""
    if isinstance(given, Header):
        return [given]
    return given() if isinstance(given, DataBroker) else given


def oldest_first(runs: Iterable[Header], into: DataBroker) -> Iterator[Header]:
    """The runs of a search oldest first, so that what is made of them has their order."""
    if not isinstance(runs, Results):
        return iter(runs)
    # New runs in the same store are its newest: read lazily, they would be met at the end.
    return reversed(list(runs) if runs.db is into else runs)


def check_broker(into: Any) -> None:
    """Refuse what is no broker.

    Raises
    ------
    ConfigError
        Of a path and a name it says how they are opened.
    """
    if hasattr(into, "batch"):
        return
    place = isinstance(into, (str, os.PathLike))
    opened = f"; daskbroker.connect({os.fspath(into)!r}) opens it" if place else ""
    raise ConfigError(f"into= has to be a broker, not a {type(into).__name__}{opened}")
