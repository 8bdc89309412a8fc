"""The module ``databroker.core`` after :func:`daskbroker.compat.install`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from .bluesky_run import BlueskyRun
from .event_stream import BlueskyEventStream

__all__ = ["BlueskyEventStream", "BlueskyRun", "discover_handlers", "parse_handler_registry"]

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
            logger.warning(
                "the handler %s of the spec %r cannot be imported and is left out: %s",
                point.value, point.name, error,
            )  # fmt: skip
    return found


def parse_handler_registry(handler_registry: Mapping[str, Any]) -> dict[str, Any]:
    """Return handler classes by spec, importing those that are given as ``"module.Class"``."""
    found: dict[str, Any] = {}
    for spec, handler in handler_registry.items():
        if isinstance(handler, str):
            module, _, name = handler.rpartition(".")
            handler = getattr(import_module(module), name)
        found[spec] = handler
    return found
