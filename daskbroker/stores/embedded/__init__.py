"""The embedded store, which is the default: a folder with an SQLite file and Parquet files.

:class:`EmbeddedHeaderStore` and :class:`EmbeddedEventStore` share a :class:`Database`.
"""

from .database import Database
from .events import EmbeddedEventStore
from .headers import EmbeddedHeaderStore

__all__ = ["Database", "EmbeddedEventStore", "EmbeddedHeaderStore"]
