"""The module ``databroker._drivers`` after :func:`daskbroker.compat.install`.

Clients use it to find out whether a catalog is iterated from the newest run on, as ours is.
"""

from __future__ import annotations

from .v2 import Catalog as BlueskyMongoCatalog

__all__ = ["BlueskyMongoCatalog"]

__path__: list[str] = []
"""Marks the module as a package; its modules are already in ``sys.modules``."""
