"""Runs to try daskbroker with, and what it does with them, step by step.

:func:`run_demo` makes them and shows them; ``daskbroker demo`` calls it.
"""

from .steps import run_demo

__all__ = ["run_demo"]
