"""A run as JSON lines of its documents, which ``daskbroker ingest`` reads back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assets.transfer import FileTransfer
from ..core.documents import plain, to_json
from ..core.durable_files import replacing
from .options import ExportOptions, Place, storing

if TYPE_CHECKING:
    from ..header import Header

__all__ = ["write_jsonl"]


def write_jsonl(header: Header, place: Place, options: ExportOptions) -> Iterator[Path]:
    """A line ``["name", document]`` each."""
    target = place.of_run(header, options)
    with (
        storing(target),
        replacing(target) as temporary,
        temporary.open("w", encoding="utf8") as file,
    ):
        documents: Iterable[tuple[str, Any]] = header.documents(fill=options.fill)
        if options.files is not None:
            documents = FileTransfer(Path(options.files), header.db.files).carry(documents)
        for name, doc in documents:
            file.write(to_json([name, plain(doc)]) + "\n")
    yield target
