"""Make ``import databroker`` work where databroker is not installed."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from ..core.errors import ConfigError

NAME = "databroker"
MODULES = {
    "databroker": "databroker_names",
    "databroker._drivers": "databroker_drivers",
    "databroker._drivers.mongo_normalized": "databroker_drivers",
    "databroker._drivers.msgpack": "databroker_drivers",
    "databroker.assets": "databroker_handlers",
    "databroker.assets.handlers": "databroker_handlers",
    "databroker.assets.handlers_base": "databroker_handlers",
    "databroker.core": "databroker_core",
    "databroker.queries": "queries",
    "databroker.v1": "v1",
    "databroker.v2": "v2",
}
"""Modules of this package by the names that they get in databroker."""


def install() -> None:
    """Make ``import databroker`` find daskbroker's interfaces of databroker in this process.

    The modules are ``databroker``, ``databroker.v1``, ``.v2``, ``.queries``, ``.core`` and
    ``.assets.handlers``. A second call has no effect.

    Raises
    ------
    ConfigError
        If databroker itself is installed, or was imported.
    """
    package = import_module(f"{__package__}.{MODULES[NAME]}")
    if sys.modules.get(NAME) is package:
        return
    if NAME in sys.modules or find_spec(NAME) is not None:
        raise ConfigError(
            "databroker itself is installed here, so `import databroker` finds that; uninstall it "
            "(pip uninstall databroker), or use db.v1 and db.v2 of daskbroker.connect"
        )
    for name, ours in MODULES.items():
        module = import_module(f"{__package__}.{ours}")
        sys.modules[name] = module
        owner, _, last = name.rpartition(".")
        if owner:
            setattr(sys.modules[owner], last, module)
