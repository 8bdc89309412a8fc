"""The module ``databroker.core`` after :func:`daskbroker.compat.install`."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Any

from .bluesky_run import BlueskyRun
from .event_stream import BlueskyEventStream

__all__ = ["BlueskyEventStream", "BlueskyRun", "discover_handlers"]

logger = logging.getLogger(__name__)


def discover_handlers(entrypoint_group_name: str = "databroker.handlers") -> dict[str, Any]:
    """Return the handler classes of installed packages by spec, as ``event_model.Filler`` needs.

    A handler that cannot be imported is left out, and a warning is logged.
    """
    found: dict[str, Any] = {}
    for point in entry_points(group=entrypoint_group_name):
        try:
            found[point.name] = point.load()
        except Exception as error:  # importing a package may raise anything
            logger.warning("the handler of %s, %s, is left out: %s", point.name, point.value, error)
    return found
