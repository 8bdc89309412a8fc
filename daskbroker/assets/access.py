"""How a broker reaches detector files: its handlers, and where files are and may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any

import dask

from ..core.errors import ConfigError
from .filling import Filling
from .readable import ReadableRoots
from .references import References
from .registry import Factory, HandlerRegistry, HandlerType
from .resolving import normal_spec

__all__ = ["FileAccess"]

SHAPE_MISMATCH = ("raise", "keep")

Handlers = HandlerRegistry | Mapping[str, HandlerType] | None
"""What ``handler_registry`` may be: by spec, for one call, before what is registered."""


class FileAccess:
    """Handlers and roots, shared by a broker and its event sources.

    Parameters
    ----------
    handlers
        To register from the start, by spec.
    root_map
        From roots in documents to folders here.
    readable_roots
        Folders below which files may be opened; None: anywhere.
    """

    def __init__(
        self,
        handlers: Mapping[str, HandlerType] | None = None,
        root_map: Mapping[str, str | PathLike[str]] | None = None,
        readable_roots: Iterable[str | PathLike[str]] | None = None,
    ) -> None:
        self.registry = HandlerRegistry(handlers)
        self.root_map: dict[str, str] = {k: fspath(v) for k, v in (root_map or {}).items()}
        self.readable_roots = (
            None if readable_roots is None else [fspath(root) for root in readable_roots]
        )

    def filling(
        self,
        references: Iterable[References],
        handler_registry: Handlers = None,
        handler_overrides: Mapping[str, HandlerType] | None = None,
    ) -> Filling:
        """What tasks that fill carry, as things are now.

        Parameters
        ----------
        references
            Of each run.
        handler_registry
            By spec, for this call.
        handler_overrides
            By data key.

        Raises
        ------
        ConfigError
            If ``daskbroker.shape-mismatch`` is neither ``raise`` nor ``keep``.
        """
        by_run = {found.run: found for found in references}
        factories = self.registry.registered(handler_registry)
        if factories:
            used = {normal_spec(spec) for found in by_run.values() for spec in found.specs()}
            factories = {spec: factory for spec, factory in factories.items() if spec in used}
        return Filling(
            references=by_run,
            factories=factories,
            overrides={
                key: Factory.of(f"of key {key}", handler)
                for key, handler in (handler_overrides or {}).items()
            },
            root_map=dict(self.root_map),
            readable=ReadableRoots.of(self.readable_roots),
            keep_shapes=_keep_shapes(),
        )


def _keep_shapes() -> bool:
    chosen: Any = dask.config.get("daskbroker.shape-mismatch", "raise")
    if chosen not in SHAPE_MISMATCH:
        raise ConfigError(
            f"daskbroker.shape-mismatch must be one of {', '.join(SHAPE_MISMATCH)}, not {chosen!r}"
        )
    return bool(chosen == "keep")
