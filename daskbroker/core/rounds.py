"""Loops that go round until the work is done, and must not go round for ever."""

from __future__ import annotations

from .errors import StoreError

__all__ = ["Rounds"]


class Rounds:
    """Ends a loop that makes no progress.

    Parameters
    ----------
    what
        Is done, for the error's message: work and place.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._before: object = None

    def check(self, state: object) -> None:
        """Call it in each round with what progress changes, be it another process's.

        Raises
        ------
        StoreError
            If the state is that of the round before.
        """
        if state == self._before:
            raise StoreError(
                f"{self._what} makes no progress: what the store has does not fit together "
                f"(twice at {state!r}). Nothing was lost by that; please report it"
            )
        self._before = state
