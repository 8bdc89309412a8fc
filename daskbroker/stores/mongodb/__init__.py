"""The store on a MongoDB server, in the layout of databroker, with additional sealed chunks.

``MongoHeaderStore`` and ``MongoEventStore`` share a ``Database``. :func:`open_store` makes them
from settings.
"""

from .database import Database
from .events import MongoEventStore
from .headers import MongoHeaderStore
from .opening import open_store

__all__ = ["Database", "MongoEventStore", "MongoHeaderStore", "open_store"]
