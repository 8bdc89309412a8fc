"""Access of a broker to detector files: its handlers, root map and readable roots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any

from ..core.chunks import ChunkPlan
from ..core.run_plan import resources_of
from ..core.settings import setting
from .files.readable import ReadableRoots
from .files.resolving import ResolvedResource, normal_spec, resolve
from .filling.filling import Filling
from .handlers.registry import Factory, HandlerRegistry, HandlerType
from .peek.memory import Memory
from .references.by_run import ReferencesByRun

SPECS = ("spec", "mimetype")
"""Keys under which a resource or stream_resource names its format."""

Overrides = Mapping[str, HandlerType] | None
"""Type of ``handler_overrides``: handlers by data key for one call, with precedence over all
others."""

Handlers = HandlerRegistry | Mapping[str, HandlerType] | None
"""Type of ``handler_registry``: handlers by spec for one call, with precedence over registered
ones."""


class FileAccess:
    """Handlers and roots, shared by a broker and its event sources.

    :attr:`memory` remembers what is found in files, see :meth:`remembering`.

    Parameters
    ----------
    handlers
        Handlers to register from the start, by spec.
    root_map
        Maps roots in documents to folders of this machine.
    readable_roots
        Folders below which files may be opened; anywhere if None.
    """

    def __init__(
        self,
        handlers: Mapping[str, HandlerType] | None = None,
        root_map: Mapping[str | PathLike[str], str | PathLike[str]] | None = None,
        readable_roots: Iterable[str | PathLike[str]] | None = None,
    ) -> None:
        self.registry = HandlerRegistry(handlers)
        self.root_map: dict[str, str] = {
            fspath(root): fspath(folder) for root, folder in (root_map or {}).items()
        }
        self.readable_roots = (
            None if readable_roots is None else [fspath(root) for root in readable_roots]
        )
        self.memory: Memory | None = None

    def remembering(self, memory: Memory) -> FileAccess:
        """Return an access that shares handlers and roots, and remembers what it finds in files."""
        found = FileAccess.__new__(FileAccess)
        found.__dict__ |= self.__dict__ | {"memory": memory}
        return found

    @property
    def readable(self) -> ReadableRoots:
        """Limit on which files may be opened."""
        return ReadableRoots.of(self.readable_roots)

    def resolve(
        self, resource: Mapping[str, Any], *, stream: bool | None = None, where: str = ""
    ) -> ResolvedResource:
        """Determine where a resource's file is here; see :func:`~.files.resolving.resolve`."""
        return resolve(
            resource, root_map=self.root_map, readable=self.readable, stream=stream, where=where
        )

    def filling(
        self,
        references: Mapping[str, ChunkPlan],
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
    ) -> Filling:
        """Return what tasks that fill carry, from the present handlers, roots and settings.

        Parameters
        ----------
        references
            Chunk plans of the references of some runs, as in a RunPlan.
        handler_registry
            Handlers by spec for this call.
        handler_overrides
            Handlers by data key for this call.

        Raises
        ------
        ConfigError
            If ``daskbroker.shape-mismatch`` is neither ``warn``, ``raise`` nor ``keep``.
        """
        by_run = ReferencesByRun(references)
        factories = self.registry.registered(handler_registry)
        if factories:  # tasks carry only the handlers of specs that these runs have
            docs = [doc for _, doc in resources_of(references)]
            used = {normal_spec(str(d[name])) for d in docs for name in SPECS if name in d}
            factories = {spec: factory for spec, factory in factories.items() if spec in used}
        return Filling(
            references=by_run,
            factories=factories,
            overrides={
                key: Factory.of(f"of key {key}", handler)
                for key, handler in (handler_overrides or {}).items()
            },
            root_map=dict(self.root_map),
            readable=self.readable,
            mismatch=setting("shape-mismatch"),
        )
