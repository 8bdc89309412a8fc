"""Arguments that batch functions share: runs in several forms, and the broker to write to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..broker import DataBroker
from ..core.arguments import instance
from ..core.errors import BadArgument, ConfigError
from ..header import Header
from ..results import Results

RUNS = "a broker, search results, a Header, or an iterable of Headers"
_HEADER = instance("a Header", Header)


def runs_of(
    given: DataBroker | Results | Header | Iterable[Header], name: str = "runs"
) -> Iterable[Header]:
    """Return the runs of an argument: a broker (all its runs), search results, or headers.

    Raises
    ------
    BadArgument
        If it is anything else. The headers of an iterator are checked as they come.
    """
    if isinstance(given, Header):
        return [given]
    if isinstance(given, DataBroker):
        return given()
    if isinstance(given, Results):
        return given
    # Text and mappings are iterable, too, but do not hold runs.
    if isinstance(given, (str, bytes, os.PathLike, Mapping)) or not isinstance(given, Iterable):
        opened = "; daskbroker.connect(place) opens a broker, and db[uid] is a Header"
        hint = opened if isinstance(given, (str, os.PathLike)) else ""
        raise BadArgument(f"{name} takes {RUNS}, not {given!r:.100}{hint}")
    # A sequence is checked before any work begins, an iterator only as it is read.
    if isinstance(given, Sequence):
        for one in given:
            _HEADER.check(f"each of {name}", one)
        return given
    return (_checked(one, f"each of {name}") for one in given)


def _checked(one: Any, name: str) -> Header:
    _HEADER.check(name, one)
    return one


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
