"""The interface of stores: the methods a store implements, and those built on them.

A :class:`HeaderStore` keeps the start and stop documents of runs. An :class:`EventStore` keeps
everything else of them: descriptors, events, and references to detector files. A store knows
nothing of Dask, of tables and Datasets, or of how detector files are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .already_stored import is_repeated, new_rows, unknown_run
from .event_store import EventStore
from .header_store import FARTHEST, FoundHeader, HeaderPair, HeaderStore

__all__ = [
    "FARTHEST",
    "EventStore",
    "FoundHeader",
    "HeaderPair",
    "HeaderStore",
    "Opened",
    "is_repeated",
    "new_rows",
    "unknown_run",
]


class Opened(NamedTuple):
    """Result of opening a place; see :mod:`daskbroker.stores.openers`.

    Attributes
    ----------
    headers
        Store of start and stop documents.
    events
        Stores of events by name; most places have one.
    """

    headers: HeaderStore
    events: Mapping[str, EventStore]
