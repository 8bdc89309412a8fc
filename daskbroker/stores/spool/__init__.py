"""A spool: a local file in which events wait until a store has them."""

from .sender import flush_all
from .store import SpooledEventStore

__all__ = ["SpooledEventStore", "flush_all"]
