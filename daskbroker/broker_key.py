"""Keys that identify brokers within a process and in their pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core import open_brokers
from .core.errors import ConfigError

if TYPE_CHECKING:
    from .broker import DataBroker


class BrokerKey:
    """Key of a broker: given by :func:`daskbroker.connect`, or made from the broker's options.

    Parameters
    ----------
    given
        Key that :func:`daskbroker.connect` has given; None for a broker that was constructed.
    place
        URI of the broker's store; None if it has none.
    """

    def __init__(self, given: str | None, place: str | None) -> None:
        self.given = given
        self._place = place
        self._made: tuple[str, str] | None = None

    def of(self, broker: DataBroker) -> str:
        """See :attr:`daskbroker.DataBroker.key`."""
        if self.given is not None:
            return self.given
        if self._place is None or broker.has_route or len(broker.event_sources) > 1:
            why = "with a route or several event sources" if self._place else "without a uri"
            raise ConfigError(
                f"this broker cannot be pickled: it was constructed {why}, so no other process "
                "can open it; header.portable() pickles without a broker"
            )
        registered = broker.handler_registry.registered()
        handlers = {spec: factory.reference for spec, factory in registered.items()}
        configuration = {**broker.options, "handlers": handlers}  # as a file has it
        made_of = repr(configuration)  # handlers and roots may have changed since
        if self._made is None or self._made[0] != made_of:
            self._made = made_of, open_brokers.key_of(self._place, **configuration)
        open_brokers.remember(self._made[1], broker)
        return self._made[1]
