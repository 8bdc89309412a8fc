"""The documents of a run as a JSON text sequence, the format that Tiled's clients request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any

from anyio.to_thread import run_sync
from event_model import pack_datum_page

from ..core.batches import batched
from ..core.documents import Document, plain
from ..core.json_text import to_json
from .runs import Run

MEDIA_TYPE = "application/json-seq"
RECORD = "\x1e"
TOGETHER = 500
"""Number of documents that are read and sent together."""


async def export_documents(
    media_type: str,
    node: Any,
    metadata: dict[str, Any],
    filter_for_access: Callable[[Any], Awaitable[Any]],
) -> AsyncIterator[str]:
    """Yield every document of a run as it was inserted, with references in place of external data.

    For ``media_types: {BlueskyRun: {application/json-seq: …}}`` in the configuration of a server.
    Runs of other trees of the same server are passed to the exporter of bluesky-tiled-plugins.
    Datums are sent in pages, because the clients do not know single datums.
    """
    if not isinstance(node, Run):
        from bluesky_tiled_plugins.exporters import json_seq_exporter

        async for text in json_seq_exporter(media_type, node, metadata, filter_for_access):
            yield text
        return
    records = _records(node.header.documents(fill=False))
    while some := await run_sync(lambda: list(islice(records, TOGETHER))):
        yield "".join(some)


def _records(documents: Iterable[tuple[str, Document]]) -> Iterator[str]:
    for name, together in groupby(documents, key=lambda pair: pair[0]):
        if name == "datum":
            yield from _datum_pages(doc for _, doc in together)
        else:
            for _, doc in together:
                yield _record(name, doc)


def _datum_pages(datums: Iterable[Document]) -> Iterator[str]:
    for _, own in groupby(datums, key=lambda doc: (doc["resource"], tuple(doc["datum_kwargs"]))):
        for some in batched(own, TOGETHER):
            yield _record("datum_page", pack_datum_page(*some))


def _record(name: str, doc: object) -> str:
    return f"{RECORD}{to_json({'name': name, 'doc': plain(doc)})}\n"
