"""The modules ``databroker.assets`` and those below it, after :func:`daskbroker.compat.install`.

They have what classes of handlers are derived from, and the handlers of the package
area-detector-handlers if that is installed: those of databroker have the same names there.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__path__: list[str] = []
"""Marks the module as a package; its modules are already in ``sys.modules``."""
SUCCESSOR = "area_detector_handlers.handlers"


class HandlerBase:
    """Base class of handlers, which are context managers that call ``close`` in the end."""

    specs: frozenset[str] = frozenset()
    """Specs that a handler is for; a derived class adds its own by ``|``."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what the handler has open; nothing, unless a derived class says otherwise."""


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        try:
            return getattr(import_module(SUCCESSOR), name)
        except ImportError as error:
            raise AttributeError(
                f"databroker.assets.handlers has no {name!r} without the package "
                f"area-detector-handlers: {error}"
            ) from error
    raise AttributeError(f"databroker.assets has no {name!r}")
