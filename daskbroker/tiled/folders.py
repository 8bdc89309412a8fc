"""What the nodes of Tiled's tree have in common that hold others."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from anyio.to_thread import run_sync
from fastapi import HTTPException
from starlette.status import HTTP_422_UNPROCESSABLE_CONTENT, HTTP_503_SERVICE_UNAVAILABLE
from tiled.adapters.core import Adapter
from tiled.server.core import NoEntry
from tiled.structures.container import ContainerStructure
from tiled.structures.core import Spec, StructureFamily

from ..core.documents import plain
from ..core.errors import DaskbrokerError, StoreUnavailable
from ..core.json_text import json_form

__all__ = ["Folder", "in_thread", "metadata_form", "refuse"]

LARGEST = 2**63
"""Whole numbers beyond have no form in MessagePack."""


def metadata_form(value: Any) -> Any:
    """A document as metadata: plain, and of what JSON and MessagePack have."""
    if isinstance(value, Mapping):
        return {str(key): metadata_form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [metadata_form(item) for item in value]
    if isinstance(value, (bytes, uuid.UUID)):
        return json_form(value)
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        return float(value)
    return plain(value)


def refuse(error: DaskbrokerError) -> NoReturn:
    """Answer a request with what is wrong, as it would be said to who reads by himself.

    Tiled's clients try again after a status of 500 or more, which helps only if a store is away.
    """
    away = isinstance(error, StoreUnavailable)
    status = HTTP_503_SERVICE_UNAVAILABLE if away else HTTP_422_UNPROCESSABLE_CONTENT
    raise HTTPException(status_code=status, detail=str(error)) from error


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives that reads a store."""
    try:
        return await run_sync(call, *args)
    except DaskbrokerError as error:
        refuse(error)


class Folder(Adapter[ContainerStructure]):
    """A node that holds others, by name.

    The server calls what is ``async`` from its loop, so whatever reads runs in a thread.
    """

    structure_family = StructureFamily.container

    def __init__(self, metadata: dict[str, Any], specs: list[Spec]) -> None:
        super().__init__(ContainerStructure(keys=[]), metadata=metadata, specs=specs)

    @abstractmethod
    def names(self) -> list[str]:
        """Of all that it holds, in order."""

    @abstractmethod
    def child(self, name: str) -> Any:
        """The node of a name, None if there is none."""

    # -- as a mapping ------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Any:
        found = self.child(name)
        if found is None:
            raise KeyError(name)
        return found

    def keys(self) -> list[str]:
        """As of a mapping."""
        return self.names()

    def items(self) -> list[tuple[str, Any]]:
        """As of a mapping."""
        return [(name, self[name]) for name in self.names()]

    def read(self, fields: list[str] | None = None) -> Folder:
        """What is exported."""
        for name in fields or ():
            self[name]
        return self if fields is None else Chosen(self, fields)

    # -- for the server ----------------------------------------------------------------------

    async def lookup_adapter(self, segments: list[str]) -> Any:
        """The node at the end of a path below this one."""
        first, *rest = segments
        found = await in_thread(self.child, first)
        if found is None:
            raise NoEntry(segments)
        return await found.lookup_adapter(rest) if rest else found

    async def exact_len(self) -> int:
        """How many it holds."""
        return await in_thread(self.__len__)  # type: ignore[no-any-return]

    async def keys_range(self, offset: int = 0, limit: int | None = None) -> list[str]:
        """The names from one place on."""
        names: list[str] = await in_thread(self.names)
        return names[offset : None if limit is None else offset + limit]

    async def items_range(self, offset: int = 0, limit: int | None = None) -> list[tuple[str, Any]]:
        """Names and nodes from one place on."""
        names = await self.keys_range(offset, limit)
        return [(name, await self.lookup_adapter([name])) for name in names]

    async def keys_page(self, cursor: int | None, limit: int) -> tuple[list[str], int | None]:
        """A page of names, and where the next one begins."""
        names = await self.keys_range(cursor or 0, limit + 1)
        return names[:limit], _next(cursor, limit, names)

    async def items_page(
        self, cursor: int | None, limit: int
    ) -> tuple[list[tuple[str, Any]], int | None]:
        """A page of names and nodes, and where the next one begins."""
        items = await self.items_range(cursor or 0, limit + 1)
        return items[:limit], _next(cursor, limit, items)

    async def cursor_for_offset(self, offset: int) -> int | None:
        """A place is its own cursor."""
        return offset


class Chosen(Folder):
    """Some of what a folder holds, for an export."""

    def __init__(self, folder: Folder, chosen: list[str]) -> None:
        super().__init__(folder.metadata(), folder.specs)
        self._folder, self._chosen = folder, chosen

    def names(self) -> list[str]:
        return self._chosen

    def child(self, name: str) -> Any:
        return self._folder.child(name) if name in self._chosen else None


def _next(cursor: int | None, limit: int, found: list[Any]) -> int | None:
    return (cursor or 0) + limit if len(found) > limit else None
