"""Tiled: serve a broker by a Tiled server, and take over runs from one.

Needs the extra ``daskbroker[tiled]``. In the configuration of a server::

    trees:
      - path: /
        tree: daskbroker.tiled:tree
        args: {place: /data/store}
    media_types:
      BlueskyRun:
        application/json-seq: daskbroker.tiled:export_documents
      DaskbrokerTable:
        application/json-seq: daskbroker.tiled:export_rows

The server decides who may read. ``daskbroker serve`` starts a server for a single user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import BrokerCatalog, tree
    from .documents import export_documents
    from .serving import Server
    from .tables import export_rows
    from .taking import TakingReport, open_tiled, take_runs

__all__ = [
    "BrokerCatalog",
    "Server",
    "TakingReport",
    "export_documents",
    "export_rows",
    "open_tiled",
    "take_runs",
    "tree",
]

SCHEME = "tiled+"
"""Prefix of ``http://`` and ``https://`` that marks the URL of a Tiled server."""

_MODULES = {
    "BrokerCatalog": "catalog",
    "Server": "serving",
    "TakingReport": "taking",
    "export_documents": "documents",
    "export_rows": "tables",
    "open_tiled": "taking",
    "take_runs": "taking",
    "tree": "catalog",
}
"""Module of each name. Imported on demand: a client of Tiled needs no server, and vice versa."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
