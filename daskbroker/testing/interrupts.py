"""Interrupts (Ctrl-C) at random moments, as a user in an interactive session makes them."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

from .runs import Documents, RunBuilder

__all__ = ["insert_interrupted", "interrupted_calls", "journalled_run"]


def interrupted_calls(
    calls: Sequence[Callable[[], Any]], seed: int, *, microseconds: int
) -> tuple[list[int], list[int]]:
    """Make calls one after the other, in the main thread, with signals in between.

    Parameters
    ----------
    calls
        Functions to call, each once.
    seed
        Seed of the times of the signals.
    microseconds
        Maximum microseconds from the begin of a call to its signal.

    Returns
    -------
    done, interrupted
        Indices of the calls that returned, and of those that ended in KeyboardInterrupt.
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
            except BaseException as error:
                if not _is_interrupt(error):
                    raise
                interrupted.append(number)
            else:
                done.append(number)
            finally:
                armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return done, interrupted


def _is_interrupt(error: BaseException | None) -> bool:
    """Return whether an error is an interrupt, or was raised while one was handled.

    Python's conditions make a RuntimeError of an interrupt that comes before they are locked, and
    C code of pymongo a SystemError.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemError):
        error = error.__context__
    return error is not None


def journalled_run() -> Documents:
    """Return a run of single events and of pages that stay in the journal."""
    made = RunBuilder()
    descriptor = made.descriptor({"x": 0.5})
    for number in range(6):
        made.event(descriptor, {"x": number * 0.5})
    for _ in range(2):
        made.event_page(descriptor, [{"x": number * 0.5} for number in range(55)])
    made.event(descriptor, {"x": 0.0})
    return made.stop()


def insert_interrupted(db: Any, documents: Documents, seed: int, *, microseconds: int = 300) -> int:
    """Insert documents with interrupts, repeating each insert until it returns.

    Parameters
    ----------
    db, documents
        Broker, and documents to insert.
    seed
        Seed of the times of the signals.
    microseconds
        Maximum microseconds before the signal of the first attempt; each further attempt has this
        much more.

    Returns
    -------
    int
        Number of interrupted attempts.
    """
    interrupts = 0
    for place, pair in enumerate(documents):
        for attempt in range(1000):
            number = seed * 10**6 + place * 1000 + attempt
            insert = [lambda pair=pair: db.insert(*pair)]
            most = microseconds * (attempt + 1)
            if interrupted_calls(insert, number, microseconds=most)[0]:
                break
            interrupts += 1
    return interrupts
