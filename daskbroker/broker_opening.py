"""Open brokers by the name of a configuration, or by its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from .core import open_brokers
from .core.arguments import MAPPING, NAME, accepts
from .core.errors import ConfigError


class BrokerOpening:
    """Ways to open a :class:`daskbroker.DataBroker`, as databroker's ``Broker`` has them."""

    @classmethod
    @accepts(name=NAME, mode=NAME.or_none(), timezone=NAME.or_none())
    def named(cls, name: str, *, mode: str | None = None, timezone: str | None = None) -> Self:
        """Open the broker of a named configuration, like ``Broker.named`` of databroker.

        Parameters
        ----------
        name
            Name that ``daskbroker config`` lists; ``"temp"`` is :func:`daskbroker.temp`.
        mode, timezone
            As for :func:`daskbroker.connect`.

        Raises
        ------
        ConfigError
            If there is no such configuration; the message lists the existing ones.
        """
        return open_brokers.opened(_request(named=name, mode=mode, timezone=timezone))

    @classmethod
    @accepts(config=MAPPING, mode=NAME.or_none(), timezone=NAME.or_none())
    def from_config(
        cls, config: Mapping[str, Any], *, mode: str | None = None, timezone: str | None = None
    ) -> Self:
        """Open the broker described by a configuration, given as the content of its YAML file.

        Parameters
        ----------
        config
            Mapping in daskbroker's own form (``uri`` …) or databroker's (``metadatastore`` …), or
            a catalog of one source.
        mode, timezone
            As for :func:`daskbroker.connect`.

        Raises
        ------
        ConfigError
            If the configuration is not valid.
        """
        return open_brokers.opened(_request(configuration=config, mode=mode, timezone=timezone))


def _request(**wanted: Any) -> str:
    """Return a request for :func:`daskbroker.core.open_brokers.opened` as JSON text."""
    try:
        return json.dumps(wanted, sort_keys=True)
    except (TypeError, ValueError):
        raise ConfigError(
            "a configuration must consist of text, numbers, lists and mappings"
        ) from None
