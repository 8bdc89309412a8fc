"""Export of runs to plain files: the public functions of :mod:`daskbroker.exporting`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..exporting.export_options import FORMATS
from ..exporting.runs import export

if TYPE_CHECKING:
    from ..header import Header

__all__ = ["FORMATS", "export", "export_jsonl", "export_parquet"]


def export_jsonl(
    header: Header,
    folder: str | os.PathLike[str],
    *,
    fill: bool = False,
    files: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the documents of a run to ``<uid>.jsonl`` and return the path of the file.

    See :meth:`daskbroker.Header.export` for the parameters.
    """
    (path,) = header.export(Path(folder), "jsonl", fill=fill, files=files)
    return path


def export_parquet(
    header: Header, folder: str | os.PathLike[str], *, fill: bool = False
) -> Iterator[Path]:
    """Write the streams of a run to ``<uid>/<stream>.parquet`` and yield the paths of the files.

    Nothing is written before iteration begins. See :meth:`daskbroker.Header.export` for the
    parameters.
    """
    yield from header.export(Path(folder), "parquet", fill=fill)
