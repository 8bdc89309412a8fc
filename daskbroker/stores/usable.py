"""Errors of what can be used no more, or not for writing: stores, and files of records."""

from __future__ import annotations

from ..core.errors import StoreError, StoreReadOnly

__all__ = ["closed_error", "read_only_error"]


def closed_error(what: str) -> StoreError:
    """Return the error for something that has been closed, such as ``"the store at /data"``."""
    return StoreError(f"{what} has been closed")


def read_only_error(what: str) -> StoreReadOnly:
    """Return the error for something that was opened to read only."""
    return StoreReadOnly(f"{what} was opened to read only")
