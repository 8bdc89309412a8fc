"""The default store: one folder with an SQLite file and plain Parquet files.

``EmbeddedHeaderStore`` and ``EmbeddedEventStore`` share a ``Database``.
"""

from .database import Database
from .events import EmbeddedEventStore
from .headers import EmbeddedHeaderStore

__all__ = ["Database", "EmbeddedEventStore", "EmbeddedHeaderStore"]
