"""What ``import databroker.core`` finds after :func:`daskbroker.compat.install`."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Any

from .bluesky_run import BlueskyRun
from .event_stream import BlueskyEventStream

__all__ = ["BlueskyEventStream", "BlueskyRun", "discover_handlers"]

logger = logging.getLogger(__name__)


def discover_handlers(entrypoint_group_name: str = "databroker.handlers") -> dict[str, Any]:
    """Handler classes of installed packages by spec, as ``event_model.Filler`` takes them.

    One that cannot be imported is left out, and logged.
    """
    found: dict[str, Any] = {}
    for point in entry_points(group=entrypoint_group_name):
        try:
            found[point.name] = point.load()
        except Exception as error:  # of whatever the package imports
            logger.warning("the handler of %s, %s, is left out: %s", point.name, point.value, error)
    return found
