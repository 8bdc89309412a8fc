"""Look into files that this process cannot access, by a task on a worker that may."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import FillError
from ...workers import current_client
from .looks import Look, Looked, look_at_any

SECONDS = 5.0
"""Maximum seconds to wait for a worker, which may be busy or have no access either."""
FIRST = 100
"""Priority of the task, which is small and has a user waiting for it."""


def look_on_workers(looks: Sequence[Sequence[Look]]) -> list[list[Looked | None]]:
    """Return what a worker finds for each of some groups, an empty list if it finds nothing.

    All lists are empty if there is no Client with workers or they do not answer in time.
    """
    client = current_client()
    if not looks or client is None or not client.nthreads():
        return [[] for _ in looks]
    asked = client.submit(_look_at_all, [list(some) for some in looks], priority=FIRST, pure=False)
    try:
        return asked.result(timeout=SECONDS)
    except Exception:  # neither a late answer nor an error of the cluster prevents opening a run
        asked.cancel()
    return [[] for _ in looks]


def _look_at_all(looks: list[list[Look]]) -> list[list[Looked | None]]:
    return [_look_at(some) for some in looks]


def _look_at(looks: list[Look]) -> list[Looked | None]:
    try:
        return look_at_any(looks)
    except FillError:
        return []
