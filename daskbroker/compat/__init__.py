"""The interfaces of databroker 1, on top of daskbroker's views.

``db.v1`` is its ``Broker``, ``db.v2`` its catalog of ``BlueskyRun``; both are made when they are
asked for. :func:`install` lets ``import databroker`` find them. docs/from-databroker.md tells what
of databroker works.
"""

from .installing import install

__all__ = ["install"]
