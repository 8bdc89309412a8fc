"""Guards of what can be used no more, or not for writing: stores, and files of records."""

from __future__ import annotations

from ..core.errors import StoreError, StoreReadOnly

__all__ = ["check_not_closed", "check_writable"]


def check_not_closed(what: str, *, closed: bool) -> None:
    """Raise StoreError if it has been closed.

    Parameters
    ----------
    what
        Name for the message, for example ``"the store at /data"``.
    closed
        Whether it has been closed.
    """
    if closed:
        raise StoreError(f"{what} has been closed")


def check_writable(what: str, *, read_only: bool) -> None:
    """Raise StoreReadOnly if it was opened to read only; see :func:`check_not_closed`."""
    if read_only:
        raise StoreReadOnly(f"{what} was opened to read only")
