"""The store on a MongoDB server, in the layout of databroker, with sealed chunks beside it.

``MongoHeaderSource`` and ``MongoEventSource`` share a ``Database``; :func:`open_sources` makes
them from settings.
"""

from .database import Database
from .events import MongoEventSource
from .headers import MongoHeaderSource
from .opening import open_sources

__all__ = ["Database", "MongoEventSource", "MongoHeaderSource", "open_sources"]
