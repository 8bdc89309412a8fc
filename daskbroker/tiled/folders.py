"""Base class of the nodes of Tiled's tree that hold other nodes."""

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

INTEGER_LIMIT = 2**63
"""Limit of whole numbers that MessagePack can represent; larger ones become floats."""


def metadata_form(value: Any) -> Any:
    """Return a document as metadata: plain values that JSON and MessagePack can represent."""
    if isinstance(value, Mapping):
        return {str(key): metadata_form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [metadata_form(item) for item in value]
    if isinstance(value, (bytes, uuid.UUID)):
        return json_form(value)
    # MessagePack has no larger integers.
    if isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        return float(value)
    return plain(value)


def refuse(error: DaskbrokerError) -> NoReturn:
    """Answer a request with an error of daskbroker and its message.

    The status is 503 if the store is unavailable, otherwise 422: Tiled's clients try again after a
    status of 500 or more, which helps only if the store is unavailable.

    Raises
    ------
    HTTPException
        Always.
    """
    away = isinstance(error, StoreUnavailable)
    status = HTTP_503_SERVICE_UNAVAILABLE if away else HTTP_422_UNPROCESSABLE_CONTENT
    raise HTTPException(status_code=status, detail=str(error)) from error


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call that reads a store, run in a thread."""
    try:
        return await run_sync(call, *args)
    except DaskbrokerError as error:
        refuse(error)


class Folder(Adapter[ContainerStructure]):
    """A node that holds other nodes by name.

    The server calls ``async`` methods in its event loop, so everything that reads runs in a thread.
    """

    structure_family = StructureFamily.container

    def __init__(self, metadata: dict[str, Any], specs: list[Spec]) -> None:
        super().__init__(ContainerStructure(keys=[]), metadata=metadata, specs=specs)

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all nodes, in order."""

    @abstractmethod
    def child(self, name: str) -> Any:
        """Return the node of a name; None if there is none."""

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
        """Return the names of all nodes, in order."""
        return self.names()

    def items(self) -> list[tuple[str, Any]]:
        """Return pairs of name and node, in order."""
        return [(name, self[name]) for name in self.names()]

    def read(self, fields: list[str] | None = None) -> Folder:
        """Return the folder to export, with only the chosen nodes if ``fields`` is given.

        Raises
        ------
        KeyError
            If there is no node of a name.
        """
        for name in fields or ():
            self[name]
        return self if fields is None else Chosen(self, fields)

    # -- for the server ----------------------------------------------------------------------

    async def lookup_adapter(self, segments: list[str]) -> Any:
        """Return the node at the end of a path below this one.

        Raises
        ------
        NoEntry
            If there is none.
        """
        first, *rest = segments
        found = await in_thread(self.child, first)
        if found is None:
            raise NoEntry(segments)
        return await found.lookup_adapter(rest) if rest else found

    async def exact_len(self) -> int:
        """Return the number of nodes."""
        return await in_thread(self.__len__)

    async def keys_range(self, offset: int = 0, limit: int | None = None) -> list[str]:
        """Return ``limit`` names from a position on; all that follow if None."""
        names: list[str] = await in_thread(self.names)
        return names[offset : None if limit is None else offset + limit]

    async def items_range(self, offset: int = 0, limit: int | None = None) -> list[tuple[str, Any]]:
        """Return pairs of name and node from a position on."""
        names = await self.keys_range(offset, limit)
        return [(name, await self.lookup_adapter([name])) for name in names]

    async def keys_page(self, cursor: int | None, limit: int) -> tuple[list[str], int | None]:
        """Return a page of names, and the cursor of the next one (None after the last)."""
        names = await self.keys_range(cursor or 0, limit + 1)
        return names[:limit], _next(cursor, limit, names)

    async def items_page(
        self, cursor: int | None, limit: int
    ) -> tuple[list[tuple[str, Any]], int | None]:
        """Return a page of pairs of name and node, and the cursor of the next one (or None)."""
        items = await self.items_range(cursor or 0, limit + 1)
        return items[:limit], _next(cursor, limit, items)

    async def cursor_for_offset(self, offset: int) -> int | None:
        """Return the cursor of a position, which is the position itself."""
        return offset


class Chosen(Folder):
    """Some of the nodes of a folder, for an export."""

    def __init__(self, folder: Folder, chosen: list[str]) -> None:
        super().__init__(folder.metadata(), folder.specs)
        self._folder, self._chosen = folder, chosen

    def names(self) -> list[str]:
        return self._chosen

    def child(self, name: str) -> Any:
        return self._folder.child(name) if name in self._chosen else None


def _next(cursor: int | None, limit: int, items: list[Any]) -> int | None:
    return (cursor or 0) + limit if len(items) > limit else None
