"""Repetition of an insert on a full disk, after the store has made room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import StoreFull


def repeat_if_full(make_room: Callable[[], bool], insert: Callable[..., None], *what: Any) -> None:
    """Insert, and once more if the store was full and could make room.

    Parameters
    ----------
    make_room
        Function that makes room in the store, and returns whether there may be some now.
    insert
        Function that stores ``what`` wholly or not at all.
    *what
        Its arguments.

    Raises
    ------
    StoreFull
        If there is no room.
    """
    try:
        insert(*what)
    except StoreFull:
        if not make_room():
            raise
        insert(*what)
