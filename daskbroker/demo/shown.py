"""How the demo shows itself: numbered steps, the calls that a user would type, what came out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

__all__ = ["Rate", "Shown", "timed"]


@dataclass(frozen=True)
class Rate:
    """So many things in so many seconds."""

    what: str
    seconds: float
    amount: float
    unit: str

    def __str__(self) -> str:
        rate = f"{_rounded(self.amount / self.seconds):,} {self.unit}/s"
        return f"{self.what:<30}{self.seconds:>7.2f} s {rate:>16}"


def _rounded(value: float) -> int:
    """Two digits that count."""
    return round(float(f"{value:.1e}"))


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its seconds."""
    began = time.perf_counter()
    result = function()
    return result, time.perf_counter() - began


class Shown:
    """Lines of the demo, in the order in which they are called for.

    Parameters
    ----------
    say
        Shows a text that may have several lines.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._numbers = count(1)

    def step(self, title: str) -> None:
        """Begin a step."""
        self.say(f"\n{next(self._numbers)}. {title}\n")

    def call(self, *lines: str) -> None:
        """What a user would type; what is indented goes on with the line before it."""
        self.say("\n".join(f"{'...' if line[0] == ' ' else '>>>'} {line}" for line in lines))

    def result(self, value: object) -> None:
        """What came out."""
        self.say("\n".join(line.rstrip() for line in str(value).split("\n")))

    def beside(self, ours: Rate, loop: Rate, equal: bool) -> None:
        """Two ways to read the same, how they compare, and whether they gave the same."""
        self.result(f"{ours}\n{loop}   {loop.seconds / ours.seconds:,.1f} times as long")
        self.result(f"both give the same: {equal}")
