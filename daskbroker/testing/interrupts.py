"""Interrupts (Ctrl-C) at random moments, as a user in an interactive session makes them."""

from __future__ import annotations

import gc
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .runs import Documents, RunBuilder

AGAIN_SECONDS = 5.0
"""Seconds after which a user whose Ctrl-C had no effect presses it again.

An interrupt while a lock of pymongo's pool is held makes pymongo wait for that lock as it unwinds.
"""


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
        Maximum microseconds from the begin of a call to its signal. If the call goes on for
        seconds, it gets another one.

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
                first = choose.uniform(1e-6, microseconds * 1e-6)
                signal.setitimer(signal.ITIMER_REAL, first, AGAIN_SECONDS)
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


@contextmanager
def finalizers_unheard() -> Iterator[None]:
    """Return a context for interrupted calls, in which errors of finalizers are dropped.

    An interrupt that meets a finalizer is only printed by Python, and what an interrupted call
    leaves behind, such as a generator over a closed database, may fail as it is collected. All of
    it is collected at the end of the context, so that no later test hears of it.
    """
    before = sys.unraisablehook
    sys.unraisablehook = _drop
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = before


def _drop(_: object) -> None:
    pass


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
    for index, pair in enumerate(documents):
        for attempt in range(1000):
            number = seed * 10**6 + index * 1000 + attempt
            insert = [lambda pair=pair: db.insert(*pair)]
            most = microseconds * (attempt + 1)
            if interrupted_calls(insert, number, microseconds=most)[0]:
                break
            interrupts += 1
    return interrupts
