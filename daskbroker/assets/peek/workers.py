"""Looking into files that this process does not see, as tasks on workers that may."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any

from ...core.errors import FillError
from ...workers import current_client
from .looks import Look, Looked, look

__all__ = ["look_on_workers"]

SECONDS = 5.0
"""So long workers may take: they may be busy, or as blind as we are."""
FIRST = 100
"""Priority of the task: it is small, and somebody waits."""


def look_on_workers(looks: Sequence[Sequence[Look]]) -> list[list[Looked]]:
    """What a worker sees of some groups, an empty list where that is nothing.

    It is nothing of all where there is no Client with workers, or they do not answer in time.
    """
    client = current_client()
    if not looks or client is None or not client.nthreads():
        return [[] for _ in looks]
    asked = client.submit(_look_at_all, [list(some) for some in looks], priority=FIRST, pure=False)
    try:
        return asked.result(timeout=SECONDS)  # type: ignore[no-any-return]
    except (NoAnswer, TimeoutError):
        asked.cancel()
    except Exception:  # the cluster's own troubles do not keep anybody from opening a run
        asked.cancel()
    return [[] for _ in looks]


def _look_at_all(looks: list[list[Look]]) -> list[list[Looked]]:
    return [_look_at(some) for some in looks]


def _look_at(looks: list[Look]) -> list[Any]:
    try:
        return [look(one) for one in looks]
    except FillError:
        return []
