"""Runs as the methods of event sources take them: Headers, start documents, pairs, uids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .core import advice
from .core.documents import start_of
from .core.errors import RunNotFound
from .stores.contract import HeaderPair

if TYPE_CHECKING:
    from .header import Header

AnyRun: TypeAlias = "Header | Mapping[str, Any] | tuple[Any, ...] | str"
"""A run, given as a Header, start document, pair of start and stop, or uid."""

FindRun: TypeAlias = Callable[[str], HeaderPair]
"""Lookup of start and stop by uid; raises RunNotFound for a text that is no uid."""


def run_of(header: AnyRun) -> str:
    """Return the uid of a run, given as a Header, start document, pair of documents, or uid.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    # A uid is taken as it is, without a look into the store.
    if isinstance(header, str):
        return header
    # A pair of start and stop, as databroker's searches gave.
    if isinstance(header, tuple):
        header = header[0]
    start = start_of(header)
    if isinstance(start, Mapping) and isinstance(start.get("uid"), str):
        return str(start["uid"])
    raise TypeError(f"a header, a start document or a uid is needed, not {type(header).__name__}")


def start_and_stop(
    header: AnyRun, find_run: FindRun | None
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """Return the start and stop of a run as of now; must be called before anything is planned.

    Otherwise the stop could be later than the events of the plan.
    """
    if isinstance(header, tuple):
        return header[0], header[1]
    if isinstance(header, str):
        return looked_up(header, find_run) or ({"uid": header, "time": 0.0}, None)
    if isinstance(header, Mapping):
        found = looked_up(run_of(header), find_run)
        return header, found and found[1]
    if hasattr(header, "as_now"):
        header = header.as_now()
        return header.start, header.known_stop
    return start_of(header), getattr(header, "stop", None)


def looked_up(uid: str, find_run: FindRun | None) -> HeaderPair | None:
    """Return start and stop of a uid; None without a lookup.

    Raises
    ------
    RunNotFound
        If it is the uid of no run.
    """
    if find_run is None:
        return None
    start, stop = find_run(uid)
    if start["uid"] != uid:
        raise RunNotFound(
            f"{uid!r} is only the beginning of a uid; event sources take the whole one, "
            f"{start['uid']!r}, or a Header: {advice.run_by(uid)}"
        )
    return start, stop
