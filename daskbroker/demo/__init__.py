"""Runs to try daskbroker with, and a demonstration of what it does with them.

:func:`run_demo` makes the runs and shows them step by step; ``daskbroker demo`` calls it.
"""

from .steps import run_demo

__all__ = ["run_demo"]
