"""A spool: events wait in a local file until a store has them."""

from .sending import flush_all
from .store import SpooledEventStore

__all__ = ["SpooledEventStore", "flush_all"]
