"""The interfaces of databroker 1, on top of daskbroker's views.

``db.v1`` is its ``Broker``, ``db.v2`` its catalog of ``BlueskyRun``; both are made on first use.
:func:`install` makes ``import databroker`` find them. docs/from-databroker.md lists which parts of
databroker work.
"""

from .installing import install

__all__ = ["install"]
