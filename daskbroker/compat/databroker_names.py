"""The module ``databroker`` after :func:`daskbroker.compat.install`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..broker import DataBroker
from ..configuration import list_configurations, search_folders
from ..connect import temp as _temp
from ..core.documents import ALL
from .v1 import Broker
from .v1_runs import Header, Results
from .v2 import Catalog

__all__ = [
    "ALL",
    "Broker",
    "Header",
    "Results",
    "catalog",
    "catalog_search_path",
    "list_configs",
    "temp",
]

__version__ = "1.2.5"
"""The version of databroker whose interface this is; clients look at it."""

__path__: list[str] = []
"""Marks the module as a package, as ``import databroker.v1`` needs it.

Its modules are already in ``sys.modules``.
"""


class _Catalogs(Mapping[str, Catalog]):
    """``databroker.catalog``: a mapping from the names of configurations to catalogs."""

    def __getitem__(self, name: str) -> Catalog:
        if name not in self:
            raise KeyError(name)
        return DataBroker.named(name).v2

    def __getattr__(self, name: str) -> Catalog:
        if not name.startswith("_") and name in self:
            return self[name]
        raise AttributeError(f"there is no configuration {name!r}")

    def __contains__(self, name: object) -> bool:
        return name in list_configs()

    def __iter__(self) -> Iterator[str]:
        return iter(list_configs())

    def __len__(self) -> int:
        return len(list_configs())

    def force_reload(self) -> None:
        """Do nothing: the files of configurations are read whenever a name is looked up."""


catalog = _Catalogs()
"""Catalogs by the names of their configurations."""


def list_configs() -> list[str]:
    """Return the sorted names of all configurations."""
    return sorted({one.name for one in list_configurations()})


def catalog_search_path() -> tuple[str, ...]:
    """Return the folders that configurations are looked for in; a new one belongs in the first."""
    return tuple(map(str, search_folders()))


def temp() -> Broker:
    """Return a broker whose runs are deleted when the process ends."""
    return _temp().v1
