"""A cursor of MongoDB that only the process that began it uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...core.errors import StoreError
from ...core.forking import Origin


class OwnCursor(Iterator[dict[str, Any]]):
    """A cursor that is used and closed only by the process that began it.

    The server has one position for a cursor, so a forked child would take documents away from its
    parent. There StoreError is raised.
    """

    def __init__(self, cursor: Any, label: str) -> None:
        self._cursor = cursor
        self._label = label
        self._origin = Origin()

    def __next__(self) -> dict[str, Any]:
        if not self._origin.is_here():
            raise StoreError(
                f"{self._label}: this query was started by the process that forked this one; "
                "start it again in this process"
            )
        return next(self._cursor)

    def __enter__(self) -> OwnCursor:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._origin.is_here():
            self._cursor.close()
