"""Output of the demo: numbered steps, the calls that a user would type, and their results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any


@dataclass(frozen=True)
class Rate:
    """An amount of things done in a number of seconds, shown as a rate."""

    what: str
    seconds: float
    amount: float
    unit: str

    def __str__(self) -> str:
        two_digits = round(float(f"{self.amount / self.seconds:.1e}"))
        rate = f"{two_digits:,} {self.unit}/s"
        return f"{self.what:<30}{self.seconds:>7.2f} s {rate:>16}"


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; return its result and the seconds that it took."""
    began = time.perf_counter()
    result = function()
    return result, time.perf_counter() - began


class Shown:
    """Writer of the demo's output.

    Parameters
    ----------
    say
        Function that shows a text, which may have several lines.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._numbers = count(1)

    def step(self, title: str) -> None:
        """Show the number and the title of the next step."""
        self.say(f"\n{next(self._numbers)}. {title}\n")

    def call(self, *lines: str) -> None:
        """Show lines that a user would type; an indented one continues the line before it."""
        self.say("\n".join(f"{'...' if line[0] == ' ' else '>>>'} {line}" for line in lines))

    def result(self, value: object) -> None:
        """Show the result of a call."""
        self.say("\n".join(line.rstrip() for line in str(value).split("\n")))

    def beside(self, ours: Rate, loop: Rate, *, equal: bool) -> None:
        """Show the rates of two ways to read the same data, and whether their results are equal."""
        self.result(f"{ours}\n{loop}   {loop.seconds / ours.seconds:,.1f} times as long")
        self.result(f"both give the same: {equal}")
