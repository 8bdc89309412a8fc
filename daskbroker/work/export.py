"""Runs as plain files: JSON lines of documents, Parquet of tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..assets.transfer import FileTransfer
from ..core.bad_runs import BadRun, warn_of_bad
from ..core.documents import is_unicode, plain, to_json
from ..core.durable_files import replacing
from ..core.errors import BadQuery, DaskbrokerError, StoreDamaged, file_error, naming
from ..core.file_names import file_name
from ..header import Header

__all__ = ["FORMATS", "export", "export_jsonl", "export_parquet"]

FORMATS = ("jsonl", "parquet")


def export(
    headers: Iterable[Header],
    folder: str | os.PathLike[str],
    format: str = "jsonl",
    *,
    fill: bool = False,
    files: str | os.PathLike[str] | None = None,
) -> Iterator[Path]:
    """Write runs into a folder, one after the other. Lazy: iterate to make it happen.

    Parameters
    ----------
    headers
        The runs.
    folder
        Made if need be.
    format
        ``"jsonl"`` (one file of documents a run) or ``"parquet"`` (one file a stream).
    fill
        Put external data in place of references.
    files
        A folder: detector files are copied below it, and the documents refer to these; for
        ``"jsonl"``. See :mod:`daskbroker.assets.transfer`.

    Yields
    ------
    Path
        Each file, complete, and synced with its name: it survives a loss of power. Runs that
        cannot be read are left out, each with a :class:`daskbroker.BadRunWarning`; of such a run
        some files may be there.

    Raises
    ------
    BadQuery
        For an unknown format, or ``files`` with another than ``"jsonl"``.
    StoreFull, StoreReadOnly, StoreError
        If a file cannot be written; then it is not there, or is the one that was there before.
    """
    if format not in FORMATS:
        raise BadQuery(f"the format must be one of {', '.join(FORMATS)}, not {format!r}")
    if files is not None and format != "jsonl":
        raise BadQuery(f"detector files travel with documents (jsonl), not with {format}")
    for header in headers:
        try:
            if format == "jsonl":
                yield export_jsonl(header, folder, fill=fill, files=files)
            else:
                yield from export_parquet(header, folder, fill=fill)
        except StoreDamaged as error:
            warn_of_bad(BadRun(header.uid, str(error)))


def export_jsonl(
    header: Header,
    folder: str | os.PathLike[str],
    *,
    fill: bool = False,
    files: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the documents of a run to ``<uid>.jsonl``, a line ``["name", document]`` each.

    ``daskbroker ingest`` reads it back.
    """
    header = header.as_now()
    target = Path(folder, f"{file_name(header.uid)}.jsonl")
    with (
        _storing(target),
        replacing(target) as temporary,
        temporary.open("w", encoding="utf8") as file,
    ):
        documents: Iterable[tuple[str, Any]] = header.documents(fill=fill)
        if files is not None:
            documents = FileTransfer(Path(files), header.db.files).carry(documents)
        for name, doc in documents:
            file.write(to_json([name, plain(doc)]) + "\n")
    return target


def export_parquet(
    header: Header, folder: str | os.PathLike[str], *, fill: bool = False
) -> Iterator[Path]:
    """Write each stream of a run to ``<uid>/<stream>.parquet``, partition by partition.

    The columns are those of ``header.table(stream)``. Cells without a type in common are JSON
    text. The schema's metadata names run and stream, and holds start and stop.
    """
    header = header.as_now()
    for stream in header.streams:
        target = Path(folder, file_name(header.uid), f"{file_name(stream)}.parquet")
        with _storing(target), replacing(target) as temporary:
            _write_parquet(header, stream, temporary, fill)
        yield target


def _write_parquet(header: Header, stream: str, target: Path, fill: bool) -> None:
    table = header.table(stream, fill=fill)
    frames = (table.get_partition(n).compute() for n in range(table.npartitions))
    objects = [n for n in table.columns if table.dtypes[n].kind == "O"]
    types = _cell_types(table, objects)
    facts = {"run": header.uid, "stream": stream}
    documents = {"start": header.start, "stop": header.stop}
    metadata = {"daskbroker": json.dumps(facts), **{k: to_json(v) for k, v in documents.items()}}
    writer: pq.ParquetWriter | None = None
    try:
        for frame in frames:
            part = _arrow(frame, types)
            if writer is None:
                schema = part.schema.with_metadata({**(part.schema.metadata or {}), **metadata})
                writer = pq.ParquetWriter(target, schema, compression="zstd")
            writer.write_table(part.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _cell_types(table: Any, names: Sequence[str]) -> dict[str, pa.DataType | None]:
    """Arrow type of each object column; None where only JSON text holds all cells."""
    types: dict[str, pa.DataType | None] = {}
    for number in range(table.npartitions) if names else ():
        frame = table[list(names)].get_partition(number).compute()
        for name in names:
            for cell in frame[name]:
                kind = None if cell is None else _cell_type(cell)
                if cell is not None:
                    types[name] = kind if types.setdefault(name, kind) == kind else None
    return {name: types.get(name) for name in names}


def _cell_type(cell: Any) -> pa.DataType | None:
    """Lists of one scalar type, text, or nothing that Arrow should try."""
    if isinstance(cell, str) and is_unicode(cell):
        return pa.string()
    if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "biuf":
        return None
    kind = pa.from_numpy_dtype(cell.dtype)
    for _ in range(cell.ndim):
        kind = pa.list_(kind)
    return kind


def _arrow(frame: pd.DataFrame, types: dict[str, pa.DataType | None]) -> pa.Table:
    columns: dict[str, Any] = {"seq_num": pa.array(frame.index)}
    for name in frame.columns:
        if name not in types:
            columns[name] = pa.array(frame[name], from_pandas=True)
        elif types[name] is None:
            cells = [None if cell is None else to_json(plain(cell)) for cell in frame[name]]
            columns[name] = pa.array(cells, pa.string())
        else:
            cells = [plain(cell) if np.ndim(cell) > 1 else cell for cell in frame[name]]
            columns[name] = pa.array(cells, types[name])
    return pa.table(columns)


@contextmanager
def _storing(target: Path) -> Iterator[None]:
    """Errors of the file system that a file meets are StoreErrors that name it."""
    try:
        with naming(target):
            yield
    except OSError as error:
        if isinstance(error, DaskbrokerError):
            raise
        raise file_error(error, f"the export {target}") from error
