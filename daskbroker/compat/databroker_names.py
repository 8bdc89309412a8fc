"""What ``import databroker`` finds after :func:`daskbroker.compat.install`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..broker import DataBroker
from ..configuration import list_configurations
from ..connect import temp as _temp
from ..core.documents import ALL
from .runs import Header, Results
from .v1 import Broker
from .v2 import Catalog

__all__ = ["ALL", "Broker", "Header", "Results", "catalog", "list_configs", "temp"]

__path__: list[str] = []
"""Of a package, as ``import databroker.v1`` needs it; its modules are found already."""


class _Catalogs(Mapping[str, Catalog]):
    """``databroker.catalog``: a catalog by the name of its configuration."""

    def __getitem__(self, name: str) -> Catalog:
        if name not in self:
            raise KeyError(name)
        return DataBroker.named(name).v2  # type: ignore[no-any-return]

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


catalog = _Catalogs()
"""Catalogs by the names of their configurations."""


def list_configs() -> list[str]:
    """Names of the configurations there are."""
    return sorted({one.name for one in list_configurations()})


def temp() -> Broker:
    """A broker whose runs are gone when the process ends."""
    return _temp().v1  # type: ignore[no-any-return]
