"""Other processes for tests: forked from a server that has imported daskbroker once.

A program of its own would take two seconds of a core to import what a store needs, most tests of
several processes take less for all the rest.
"""

from __future__ import annotations

import multiprocessing

__all__ = ["PROCESSES"]

PROCESSES = multiprocessing.get_context("forkserver")
"""Context whose processes have nothing of this one but its ``sys.path`` and folder.

They know of no broker, connection, thread or setting of it. The environment is the one in which
the first of them was started.
"""
PROCESSES.set_forkserver_preload(
    [
        "daskbroker.broker",
        "daskbroker.stores.embedded.opening",
        "daskbroker.stores.mongodb.opening",
        "daskbroker.testing.base",
    ]
)
