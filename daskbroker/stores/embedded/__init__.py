"""The default store: one folder with an SQLite file and plain Parquet files.

``EmbeddedHeaderSource`` and ``EmbeddedEventSource`` share a ``Database``.
"""

from .database import Database
from .events import EmbeddedEventSource
from .headers import EmbeddedHeaderSource

__all__ = ["Database", "EmbeddedEventSource", "EmbeddedHeaderSource"]
