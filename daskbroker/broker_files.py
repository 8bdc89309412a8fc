"""The detector files of a broker: who reads them, where they are, and which may be read."""

from __future__ import annotations

from .assets.access import FileAccess
from .assets.handlers.registry import HandlerRegistry, HandlerType
from .core.arguments import FLAG, NAME, accepts


class BrokerFiles:
    """Handlers and roots of a :class:`daskbroker.DataBroker`.

    Attributes
    ----------
    files
        Access to the detector files, shared by all event sources.
    """

    files: FileAccess

    @property
    def handler_registry(self) -> HandlerRegistry:
        """Handlers of detector files by spec: registered here, built in or installed."""
        return self.files.registry

    @accepts(spec=NAME, overwrite=FLAG)
    def register_handler(self, spec: str, handler: HandlerType, overwrite: bool = False) -> None:
        """Register the handler that reads files of a spec or mimetype.

        Parameters
        ----------
        spec
            Spec or mimetype in the resource documents.
        handler
            Subclass of :class:`~daskbroker.assets.handlers.BlockHandler`, a classic handler
            class, or ``"module:Class"``.
        overwrite
            Whether to replace another handler of the same spec.

        Raises
        ------
        HandlerExists
            If another handler is registered and ``overwrite`` is False.
        """
        self.files.registry.register(spec, handler, overwrite=overwrite)

    @accepts(spec=NAME)
    def deregister_handler(self, spec: str) -> None:
        """Remove the registered handler of a spec.

        Raises
        ------
        HandlerNotFound
            If no handler was registered for it.
        """
        self.files.registry.unregister(spec)

    @property
    def root_map(self) -> dict[str, str]:
        """``{root in the documents: root where the files are now}``; may be changed in place."""
        return self.files.root_map

    @property
    def readable_roots(self) -> list[str] | None:
        """Folders outside which no detector file is opened; no limit if None."""
        return self.files.readable_roots
