"""Interrupts (Ctrl-C) at random moments, as a user of a session makes them."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["interrupted_calls"]


def interrupted_calls(
    calls: Sequence[Callable[[], Any]], seed: int, *, microseconds: int
) -> tuple[list[int], list[int]]:
    """Make calls one after the other, in the main thread, with signals in between.

    Parameters
    ----------
    calls
        Each is made once.
    seed
        Of the times of the signals.
    microseconds
        The most that passes from one signal to the next.

    Returns
    -------
    done, interrupted
        Numbers of the calls that returned, and of those that ended in KeyboardInterrupt.
    """
    choose = random.Random(seed)
    armed = False

    def interrupt(*_: object) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    done: list[int] = []
    interrupted: list[int] = []
    try:
        for number, call in enumerate(calls):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-6, microseconds * 1e-6))
                call()
                armed = False
            except KeyboardInterrupt:
                interrupted.append(number)
            else:
                done.append(number)
            finally:
                armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return done, interrupted
