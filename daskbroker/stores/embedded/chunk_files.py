"""Parquet files of chunks, with checksums of all their bytes that are verified when read.

::

    PAR1 | columns | checksums | footer | length of the footer | PAR1

Parquet's own checksums cover only the content of pages; a flipped bit in the header of a page, or
in the footer, would still give wrong numbers. So there is one CRC-32 of each column (its pages
with their headers, and its dictionary), and one of the bytes from the footer to the end of the
file. They stand between the last column and the footer, where no reader of Parquet looks, as all
go by the footer's offsets.

Earlier versions wrote checksums of pages only. In such a file, Arrow checks the pages, and the
footer is checked for consistency, as it states nearly everything twice (:mod:`.old_footers`).
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...core.chunks import rows_alone
from ...core.errors import StoreDamaged
from ...core.forking import in_children
from ...core.settings import setting
from .old_footers import check_old_footer, check_old_table
from .open_files import State, file_in_use, state_of

MAGIC = b"dkbcrc01"
PARQUET = b"PAR1"
END = 8
"""Number of bytes after the footer: its length, and Parquet's magic number."""

FOOTERS = 256
"""Maximum number of footers kept in memory; reading one takes as long as reading a column."""

FILES = 10_000
"""Maximum number of files of which the verified columns are remembered."""

DECODING = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError)
"""Errors that the decoding of damaged bytes may raise."""


@dataclass(frozen=True)
class _Footer:
    """The footer of a file.

    Attributes
    ----------
    metadata, schema
        Metadata and schema that Arrow has read.
    checksums
        ``((begin, end), checksum)`` of each column, with the offsets of its bytes; None if the
        file has no checksums of columns.
    """

    metadata: pq.FileMetaData
    schema: pa.Schema
    checksums: tuple[tuple[tuple[int, int], int], ...] | None

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Index in the schema of each column, by name."""
        return {name: number for number, name in enumerate(self.schema.names)}

    @cached_property
    def dotted(self) -> tuple[str, ...]:
        """Sorted names of columns that have a dot."""
        return tuple(sorted(name for name in self.numbers if "." in name))

    def column_indices(self, names: Sequence[str]) -> set[int]:
        """Return the indices in the schema of all columns that Arrow reads for some names.

        If asked for ``a``, Arrow also reads a column ``a.b``, which it takes for a part of it.
        """
        wanted = {self.numbers[name] for name in names}
        if self.dotted and len(wanted) < len(self.numbers):
            for name in names:  # in the order of characters "/" follows the dot
                begin, end = (bisect_left(self.dotted, f"{name}{mark}") for mark in "./")
                wanted.update(self.numbers[below] for below in self.dotted[begin:end])
        return wanted


# -- writing ---------------------------------------------------------------------------------


def encoded_file(table: pa.Table, dictionaries: Sequence[str]) -> list[memoryview | bytes]:
    """Encode a chunk as the bytes of its file, in pieces to be written one after the other.

    Parameters
    ----------
    table
        The chunk.
    dictionaries
        Names of columns with few different values, which are dictionary-encoded.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="lz4", use_dictionary=list(dictionaries), write_page_checksum=True
    )
    body = memoryview(sink.getvalue())
    end = _footer_start(body)
    metadata = pq.read_metadata(pa.BufferReader(pa.py_buffer(body)))
    checksums = [zlib.crc32(body[low:high]) for low, high in _ranges(metadata)]
    checksums += [zlib.crc32(body[end:]), len(checksums)]
    block = struct.pack(f"<{len(checksums)}I", *checksums)
    return [body[:end], block, struct.pack("<I", zlib.crc32(block)), MAGIC, body[end:]]


# -- reading ---------------------------------------------------------------------------------


def read_file(path: Path, columns: Sequence[str] | None, rows: int | None = None) -> pa.Table:
    """Read columns of a chunk's file, verified as the setting ``daskbroker.verify`` says.

    Parameters
    ----------
    path
        Path of the file.
    columns
        Names of columns, in the order wanted; those that the file lacks are left out. All
        columns if None.
    rows
        Number of rows that the file should have, if known.

    Raises
    ------
    OSError
        If the file cannot be opened.
    StoreDamaged
        If the file is damaged; the message names it.
    ConfigError
        If the setting is not valid.
    """
    mode = setting("verify")
    data, state = _mapped(path)
    try:
        return _read(data, path, state, columns, rows, mode)
    except StoreDamaged as error:
        raise StoreDamaged(f"{path} is damaged: {error}") from error.__cause__
    except MemoryError:
        raise
    except DECODING as error:
        raise StoreDamaged(f"{path} is damaged: {error}") from error


def _mapped(path: Path) -> tuple[memoryview, State]:
    """Map a file into memory; return its bytes, and the state of this very file.

    The file is mapped by Arrow, not by Python: Arrow's threads may hold the bytes a moment longer
    than a read lasts, and releasing a Python object while Python ends aborts the process.
    """
    while True:
        state = state_of(os.stat(path))
        if not state[2]:  # an empty file cannot be mapped
            return memoryview(pa.py_buffer(b"")), state
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
        if state_of(os.stat(path)) == state:  # the file was not replaced in between
            return memoryview(data).cast("B"), state


def _read(
    data: memoryview,
    path: Path,
    state: State,
    columns: Sequence[str] | None,
    rows: int | None,
    mode: str,
) -> pa.Table:
    footer = None if mode == "always" else _known_footers(str(path), state).get(0)
    if footer is None:
        footer = _read_footer(data)
        _known_footers(str(path), state)[0] = footer
    count = footer.metadata.num_rows
    if rows is not None and rows != count:
        raise StoreDamaged(f"it has {count:,} rows, not {rows:,}")
    there = footer.numbers
    names = list(there) if columns is None else [name for name in columns if name in there]
    if not names:
        return rows_alone(count)
    wanted_columns = footer.column_indices(names)
    checked = _checked_columns(str(path), state)
    wanted = {"first": wanted_columns - checked, "always": wanted_columns, "never": set()}[mode]
    if footer.checksums is not None and wanted:
        _check(data, footer, wanted)
    asked = None if columns is None else names
    if footer.checksums is not None and mode != "always":
        with file_in_use(path, state) as mine:
            mine.file = mine.file or _parquet(data, footer)
            table = mine.file.read(columns=asked, use_threads=len(wanted_columns) > 1)
    else:
        old = footer.checksums is None
        with _parquet(data, footer, page_checksum_verification=bool(wanted) and old) as file:
            table = file.read(columns=asked)
        if old:
            check_old_table(table, count)
    checked |= wanted
    return table if columns is None else table.select(names)


def _parquet(data: memoryview, footer: _Footer, **options: Any) -> pq.ParquetFile:
    reader = pa.BufferReader(data.obj)
    return pq.ParquetFile(reader, metadata=footer.metadata, **options)


def _check(data: memoryview, footer: _Footer, indices: set[int]) -> None:
    """Compare columns, by their indices, with their checksums."""
    for index in sorted(indices):
        # Checksums are in order of row groups.
        for (low, high), checksum in (footer.checksums or ())[index :: len(footer.numbers)]:
            if zlib.crc32(data[low:high]) != checksum:
                name = footer.schema.names[index]
                raise StoreDamaged(f"the checksum of column {name!r} is wrong")


@lru_cache(maxsize=FOOTERS)
def _known_footers(path: str, state: State) -> dict[int, _Footer]:
    """Return the cached holder of a file's footer, which is empty at first; its key is 0."""
    return {}


@lru_cache(maxsize=FILES)
def _checked_columns(path: str, state: State) -> set[int]:
    """Return the cached set of indices of a file's verified columns, which is empty at first."""
    return set()


def _read_footer(data: memoryview) -> _Footer:
    """Read and verify the footer of a file; its checksum, before Arrow parses it, if any."""
    begin = _footer_start(data)
    checksums = _checksums(data, begin)
    if checksums is not None and zlib.crc32(data[begin:]) != checksums[-1]:
        raise StoreDamaged("the checksum of its footer is wrong")
    with pq.ParquetFile(pa.BufferReader(data.obj)) as file:
        metadata, schema = file.metadata, file.schema_arrow
    if checksums is None:
        check_old_footer(data, begin, schema)
        return _Footer(metadata, schema, None)
    return _Footer(metadata, schema, tuple(zip(_ranges(metadata), checksums, strict=False)))


def _footer_start(data: memoryview) -> int:
    """Return the offset of the footer; raise StoreDamaged if there is none."""
    size = len(data)
    if size < len(PARQUET) + END or data[-4:] != PARQUET:
        raise StoreDamaged("it does not end as a Parquet file does")
    begin = size - END - int.from_bytes(data[-END:-4], "little")
    if begin < len(PARQUET):
        raise StoreDamaged("its footer is longer than the file")
    return begin


def _checksums(data: memoryview, end: int) -> tuple[int, ...] | None:
    """Return the checksums of columns and footer that end at an offset; None if there are none."""
    if data[max(0, end - len(MAGIC)) : end] != MAGIC:
        return None
    end -= len(MAGIC) + 4
    count = int.from_bytes(data[max(0, end - 4) : max(0, end)], "little") + 2
    begin = end - 4 * count
    if begin < len(PARQUET) or zlib.crc32(data[begin:end]) != int.from_bytes(
        data[end : end + 4], "little"
    ):
        raise StoreDamaged("its checksums are damaged")
    return struct.unpack(f"<{count}I", data[begin:end])[:-1]


def _ranges(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Return ``(begin, end)`` of the bytes of each column, row group after row group."""
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for position in range(metadata.num_columns):
            column: Any = group.column(position)
            begin = column.data_page_offset
            if column.has_dictionary_page:
                begin = min(begin, column.dictionary_page_offset)
            found.append((begin, begin + column.total_compressed_size))
    return found


def _forget() -> None:
    """Let a forked child verify files itself."""
    _known_footers.cache_clear()
    _checked_columns.cache_clear()


in_children(_forget)
