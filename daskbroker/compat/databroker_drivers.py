"""What ``import databroker._drivers`` finds after :func:`daskbroker.compat.install`.

Clients ask by it whether a catalog is iterated from the newest run on, as ours is.
"""

from __future__ import annotations

from .v2 import Catalog as BlueskyMongoCatalog

__all__ = ["BlueskyMongoCatalog"]

__path__: list[str] = []
"""Of a package; its modules are found already."""
