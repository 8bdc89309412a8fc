"""The module ``databroker._drivers`` after :func:`daskbroker.compat.install`.

Clients compare types with these classes, to find out whether a catalog is one of runs, and whether
it is iterated from the newest run on, as ours is.
"""

from __future__ import annotations

from .v2 import Catalog as BlueskyMongoCatalog

BlueskyMsgpackCatalog = BlueskyMongoCatalog
"""The class of ``databroker.temp().v2``."""

__all__ = ["BlueskyMongoCatalog", "BlueskyMsgpackCatalog"]

__path__: list[str] = []
"""Marks the module as a package; its modules are already in ``sys.modules``."""
