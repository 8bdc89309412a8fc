"""Lookup of ``db[...]``: a run by uid, prefix, scan_id or offset, or several runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .core.arguments import is_whole
from .core.documents import start_of
from .core.errors import OffsetOutOfRange, RunNotFound
from .core.printable import shown
from .display.header_list import HeaderList
from .header import Header
from .header_source import UID_LENGTH
from .results import Results

if TYPE_CHECKING:
    from .broker import DataBroker

SEVERAL = (list, tuple, set)
"""Types of keys that mean several runs."""
MOST_ONE_BY_ONE = 8
"""Maximum number of uids in a list that are looked up one by one."""


def find(db: DataBroker, key: Any) -> Any:
    """Return the run or runs of ``db[key]``; see :meth:`daskbroker.DataBroker.__getitem__`."""
    if isinstance(key, str):
        return Header(db, *db.header_source[key])
    if isinstance(key, slice):
        return _slice(db, key)
    # Arrays of NumPy and pandas, such as `table["run"].unique()`.
    if getattr(key, "ndim", 0) == 1 and hasattr(key, "tolist"):
        key = key.tolist()
    if isinstance(key, SEVERAL):
        return HeaderList(_several(db, [_one(item, "a list of runs") for item in key]))
    if is_whole(key) and key < 0:
        return at_offset(db(), int(key))
    return Header(db, *db.header_source[key])


def _several(db: DataBroker, keys: list[Any]) -> Iterator[Header]:
    """Yield the run of each key. Whole uids are looked up together, as there may be thousands."""
    uids = [key for key in keys if isinstance(key, str) and len(key) >= UID_LENGTH]
    known = db.header_source.by_uids(uids) if len(uids) > MOST_ONE_BY_ONE else {}
    for key in keys:
        pair = known.get(key) if isinstance(key, str) else None
        # Else it is no uid, or there is no such run, or it cannot be read: that is an error.
        yield find(db, key) if pair is None else Header(db, *pair)


def is_found(db: DataBroker, key: object) -> bool:
    """Whether a key finds a run; a Header or a start document is looked up by its uid.

    Raises
    ------
    TypeError
        If the key means several runs.
    AmbiguousUID
        If several uids begin with the prefix.
    """
    start = start_of(key)
    try:
        if isinstance(start, Mapping) and "uid" in start:
            find(db, start["uid"])
        else:
            find(db, _one(key, "`in`"))
    except (RunNotFound, OffsetOutOfRange):
        return False
    return True


def _one(key: Any, what: str) -> Any:
    if isinstance(key, (slice, *SEVERAL)) or getattr(key, "ndim", 0) > 0:
        raise TypeError(f"{what} needs the uid, scan_id or offset of a run, not {shown(key)}")
    return key


def at_offset(results: Results, offset: int) -> Header:
    """Return the run at a negative offset: -1 is the newest.

    Raises
    ------
    OffsetOutOfRange
        If there are fewer runs.
    """
    for header in results[-offset - 1 : -offset]:
        return header
    raise results.out_of_range(f"{offset} is too far back")


def _slice(db: DataBroker, key: slice) -> HeaderList:
    """Return the newest runs, newest first: ``db[-5:]`` has the newest five, or all if fewer.

    Raises
    ------
    IndexError
        If an end of the slice is not a negative whole number.
    """
    ends = (key.start, key.stop)
    if any(end is not None and (not is_whole(end) or end >= 0) for end in ends):
        raise IndexError("slices of a broker must count from the newest run: db[-5:], db[-10:-5]")
    newest = 0 if key.stop is None else -int(key.stop)
    oldest = None if key.start is None else -int(key.start)
    chosen = db()[newest:oldest] if oldest is None or oldest > newest else []
    return HeaderList(chosen)[:: 1 if key.step is None else int(key.step)]
