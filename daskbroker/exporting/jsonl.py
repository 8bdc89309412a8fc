"""Export of a run's documents as JSON lines, which ``daskbroker ingest`` reads back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assets.transfer import FileTransfer
from ..core.documents import plain, to_json
from ..core.durable_files import replacing
from .export_options import Destination, ExportOptions, storing
from .verifying import CheckedText

if TYPE_CHECKING:
    from ..header import Header


def write_jsonl(header: Header, destination: Destination, options: ExportOptions) -> Iterator[Path]:
    """Write the documents of a run, one line ``["name", document]`` each, and yield the path."""
    target = destination.of_run(header, options)
    documents: Iterable[tuple[str, Any]] = header.documents(fill=options.fill)
    if options.files is not None:
        documents = FileTransfer(Path(options.files), header.db.files).carry(documents)
    with storing(target), replacing(target) as temporary:
        with temporary.open("w", encoding="utf8") as file:
            text = CheckedText(file)
            for name, doc in documents:
                text.write(to_json([name, plain(doc)]) + "\n")
        if options.verify:
            text.check(temporary, target)
    yield target
