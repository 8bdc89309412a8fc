"""Export of streams to Parquet or CSV, written partition by partition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.documents import plain, to_json
from ..core.durable_files import replacing
from ..core.errors import BadQuery, StoreError
from ..views.table.arrow_cells import CellTypes, arrow_cells, claimed_type
from ..views.table.plain_cells import holds_arrays
from ..views.table.writing import known_arrays
from .export_options import Destination, ExportOptions, storing
from .verifying import CheckedText, WrittenParts, arrow_digest

if TYPE_CHECKING:
    from ..header import Header

MOST_VALUES = 2**26
"""Maximum number of array values of a column in a row group: Arrow's lists count up to 2**31."""

UNKNOWN_TEXT = "backslashreplace"
"""Error handler for text that UTF-8 cannot encode."""

FACTS, FILLED = b"daskbroker", b"daskbroker.fill"
"""Keys in a schema's metadata: run and stream, and whether external data was filled."""


def write_parquet(
    header: Header, destination: Destination, options: ExportOptions
) -> Iterator[Path]:
    """Write a Parquet file for each stream and yield the paths.

    A file has the columns of ``header.table(stream)``. The metadata of its schema names the run
    and the stream, and holds the start and stop documents. In a folder that is partitioned by run,
    existing files of runs that had ended are left as they are and are not yielded.
    """
    for stream, target in destination.of_streams(header, options).items():
        if options.partition and _is_complete(target, options):
            continue
        with storing(target), replacing(target) as temporary:
            written = _write_parquet(header, stream, temporary, options)
            if options.verify:
                written.check(_row_groups(temporary), "row group", target)
        yield target


def _is_complete(target: Path, options: ExportOptions) -> bool:
    """Return whether a file is of a run that had ended, and was written with the same ``fill``."""
    if not target.is_file():
        return False
    try:
        metadata = pq.read_schema(target).metadata or {}
        ended = json.loads(metadata.get(b"stop", b"null")) is not None
    except MemoryError:  # Arrow's is one of its exceptions, too
        raise
    except (pa.ArrowException, ValueError, OSError):  # truncated, or not Parquet: write it again
        return False
    return ended and metadata.get(FILLED) == json.dumps(options.fill).encode()


def _row_groups(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the digest of each row group that has rows."""
    with pq.ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            if file.metadata.row_group(number).num_rows:
                yield number, arrow_digest(file.read_row_group(number))


def _write_parquet(
    header: Header, stream: str, target: Path, options: ExportOptions
) -> WrittenParts:
    table = header.table(stream, fill=options.fill)
    objects = _object_columns(table)
    types = CellTypes(objects)
    claims = _claims(header, stream)
    frames = _frames(table)
    first = next(frames)  # a table without rows has one empty partition
    types.look(first)
    metadata = _metadata(header, stream, options)
    writer = _ParquetFile(header, target, types.settled(claims), metadata, options)
    try:
        with writer:
            for frame in chain([first], frames):
                writer.write(frame)
    except _OtherCells:
        # Later rows have cells of another type than the first partition. Find the types by a look
        # at all partitions, then write again.
        types = CellTypes(objects)
        for frame in _frames(table[objects]):
            types.look(frame)
        with _ParquetFile(header, target, types.settled(claims), metadata, options) as writer:
            for frame in _frames(table):
                writer.write(frame)
    found = pq.read_metadata(target).num_rows
    if found != writer.rows:
        raise StoreError(f"{target} has {found:,} rows, and {writer.rows:,} were written")
    return writer.parts


def _metadata(header: Header, stream: str, options: ExportOptions) -> dict[bytes, bytes]:
    facts = {"run": header.uid, "stream": stream}
    found = {FACTS: json.dumps(facts), FILLED: json.dumps(options.fill)}
    found |= {b"start": to_json(header.start), b"stop": to_json(header.known_stop)}
    return {key: text.encode() for key, text in found.items()}


def _object_columns(table: Any) -> list[str]:
    return [name for name in table.columns if table.dtypes[name].kind == "O"]


def _frames(table: Any) -> Iterator[pd.DataFrame]:
    return (table.get_partition(n).compute() for n in range(table.npartitions))


def _claims(header: Header, stream: str) -> dict[str, pa.DataType]:
    """Return the Arrow types of arrays by their descriptors, for columns without any cell."""
    descriptors = header.descriptors[stream]
    types = {key: claimed_type(claim) for d in descriptors for key, claim in d["data_keys"].items()}
    return {key: found for key, found in types.items() if found is not None}


class _OtherCells(Exception):
    """Raised if a cell is not of the type that was found for its column."""


class _ParquetFile:
    """A Parquet file that is written from the partitions of one table."""

    def __init__(
        self,
        header: Header,
        target: Path,
        types: dict[str, pa.DataType | None],
        metadata: dict[bytes, bytes],
        options: ExportOptions,
    ) -> None:
        self._target = target
        self._types = types
        self._metadata = metadata
        self._run = header.uid if options.partition else None
        self._writer: pq.ParquetWriter | None = None
        self._verify = options.verify
        self.rows = 0
        self.parts = WrittenParts()

    def __enter__(self) -> _ParquetFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, frame: pd.DataFrame) -> None:
        """Write the rows of a partition, in several row groups if arrays have very many values.

        Raises
        ------
        _OtherCells
            If a cell is not of the type of its column.
        """
        cells = (cell for name in self._types for cell in frame[name])
        sizes = (cell.size for cell in cells if isinstance(cell, np.ndarray))
        step = max(1, MOST_VALUES // max(1, max(sizes, default=1)))
        for first in range(0, max(1, len(frame)), step):
            self._write(frame.iloc[first : first + step])

    def _write(self, frame: pd.DataFrame) -> None:
        part = self._arrow(frame)
        if self._writer is None:
            schema = part.schema.with_metadata({**(part.schema.metadata or {}), **self._metadata})
            self._writer = pq.ParquetWriter(self._target, schema, compression="zstd")
        part = part.cast(self._writer.schema)
        self._writer.write_table(part, row_group_size=max(1, len(frame)))
        if self._verify and len(frame):
            self.parts.note(len(self.parts.parts), arrow_digest(part))
        self.rows += len(frame)

    def _arrow(self, frame: pd.DataFrame) -> pa.Table:
        columns: dict[str, Any] = {}
        if self._run is not None:
            columns["run"] = pa.array([self._run] * len(frame), pa.string())
        columns["seq_num"] = pa.array(frame.index)
        for name in frame.columns:
            if name not in self._types:
                columns[name] = pa.array(frame[name], from_pandas=True)
            else:
                columns[name] = _cells(frame[name], self._types[name])
        return pa.table(columns)


def _cells(cells: pd.Series, arrow_type: pa.DataType | None) -> pa.Array:
    if arrow_type is None:
        texts = [None if cell is None else to_json(plain(cell)) for cell in cells]
        return pa.array(texts, pa.string())
    try:
        return arrow_cells(cells, arrow_type)
    except MemoryError:  # Arrow's is one of its exceptions, too
        raise
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _OtherCells from error


# -- CSV -------------------------------------------------------------------------------------


def write_csv(header: Header, destination: Destination, options: ExportOptions) -> Iterator[Path]:
    """Write a CSV file for each stream and yield the paths.

    Text and numbers are written as they are, times in ISO 8601; missing cells are empty.

    Raises
    ------
    BadQuery
        If a column holds arrays or mappings, unless ``arrays`` is ``"drop"``.
    """
    for stream, target in destination.of_streams(header, options).items():
        table = header.table(stream, fill=False)
        found = set(known_arrays(table))
        unknown = [name for name in _object_columns(table) if name not in found]
        found |= holds_arrays(_frames(table[unknown])) if unknown else set()
        if found and options.arrays == "raise":
            raise BadQuery(
                f"csv holds no arrays, and run {header.uid!r}, stream {stream!r} has some in "
                f"{', '.join(map(repr, sorted(found)))}: leave them out by arrays='drop' "
                "(--arrays drop), or export to parquet, netcdf or zarr"
            )
        kept = table[[name for name in table.columns if name not in found]]
        with storing(target), replacing(target) as temporary:
            with temporary.open("w", encoding="utf8", errors=UNKNOWN_TEXT, newline="") as file:
                text = CheckedText(file, UNKNOWN_TEXT)
                for number, frame in enumerate(_frames(kept)):
                    frame.to_csv(text, header=number == 0)
            if options.verify:
                text.check(temporary, target)
        yield target
