"""Warnings that point at the user's line that called daskbroker."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]

PACKAGE = __name__.partition(".")[0]


def warn_caller(text: str, category: type[Warning]) -> None:
    """Issue a warning at the user's line that called daskbroker, however deep the call is."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE and not module.startswith(f"{PACKAGE}.testing")
