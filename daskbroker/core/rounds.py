"""Guard of loops that repeat until the work is done, and must not repeat forever."""

from __future__ import annotations

from .errors import StoreError


class Rounds:
    """Guard that ends a loop without progress.

    Parameters
    ----------
    what
        Work and place for the error's message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._before: object = None

    def check(self, state: object) -> None:
        """Check in each round that the state has changed.

        Parameters
        ----------
        state
            Value that changes with progress, including that of another process.

        Raises
        ------
        StoreError
            If the state equals that of the previous round.
        """
        if state == self._before:
            raise StoreError(
                f"{self._what} makes no progress: the contents of the store are inconsistent "
                f"(twice at {state!r}). Nothing was lost by that; please report it"
            )
        self._before = state
