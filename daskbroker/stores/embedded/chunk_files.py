"""Parquet files of chunks, written with checksums of all their bytes and checked when read.

::

    PAR1 | columns | checksums | footer | length of the footer | PAR1

Parquet's own checksums are of pages; a flipped bit in a page's header, or in the footer, gives
wrong numbers all the same. So there is one CRC-32 of each column (its pages with their headers
and its dictionary), and one of the footer to the end of the file. They stand between the last
column and the footer, where no reader of Parquet looks, as all go by the footer's offsets.

Earlier versions wrote checksums of pages only. Of such a file the footer is compared with itself,
as it tells nearly everything twice, and pages are checked by Arrow (:mod:`.old_footers`).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...core.chunks import present
from ...core.errors import StoreDamaged
from ...core.settings import setting
from .old_footers import check_old_footer, check_old_table
from .open_files import State, opened, state_of

__all__ = ["encoded_file", "read_file"]

MAGIC = b"dkbcrc01"
PARQUET = b"PAR1"
END = 8
"""Bytes after the footer: its length, and the magic number."""

FOOTERS = 256
"""So many footers stay in memory; to read one takes as long as to read a column."""

FILES = 10_000
"""Of so many files it is remembered which columns were checked."""

DECODING = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError)
"""What decoding of damaged bytes may end in."""


@dataclass(frozen=True)
class _Footer:
    """The footer of a file.

    Attributes
    ----------
    metadata, schema
        As Arrow has read them.
    checksums
        First byte of each column, the one after its last, and the checksum; None in a file
        without.
    """

    metadata: pq.FileMetaData
    schema: pa.Schema
    checksums: tuple[tuple[tuple[int, int], int], ...] | None

    def places(self, names: Sequence[str]) -> set[int]:
        """Where columns are in the schema, with all that Arrow reads when it is asked for them.

        It takes ``a.b`` for a part of ``a``.
        """
        every = self.schema.names
        wanted = set(names)
        if len(wanted) == len(every):
            return set(range(len(every)))
        if any("." in name for name in every):
            wanted |= {n for n in every if any(n.startswith(f"{name}.") for name in names)}
        return {place for place, name in enumerate(every) if name in wanted}


# -- writing ---------------------------------------------------------------------------------


def encoded_file(table: pa.Table, dictionaries: Sequence[str]) -> list[memoryview | bytes]:
    """The bytes of a chunk's file, in pieces.

    Parameters
    ----------
    table
        The chunk.
    dictionaries
        Columns of few different values.
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
    """Read some columns of a chunk's file, or all, checked as ``daskbroker.verify`` says.

    Parameters
    ----------
    path
        Of the file.
    columns
        Those that the file lacks are left out. None: all.
    rows
        How many there should be, if that is known.

    Raises
    ------
    OSError
        If it cannot be opened.
    StoreDamaged
        Naming the file.
    ConfigError
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
    """The bytes of a file, and what tells it from others: of one and the same file.

    They are mapped by Arrow and not by Python. Arrow's threads may hold them a moment longer than
    a read lasts, and to let go of an object of Python, while Python ends, ends in an abort.
    """
    while True:
        state = state_of(os.stat(path))
        if not state[2]:
            return memoryview(pa.py_buffer(b"")), state
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
        if state_of(os.stat(path)) == state:  # it was not replaced in between
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
    names = footer.schema.names if columns is None else present(footer.schema, columns)
    if not names:  # the number of rows still counts
        return pa.table({"": pa.nulls(count)}).select([])
    places = footer.places(names)
    checked = _checked_columns(str(path), state)
    wanted = {"first": places - checked, "always": places, "never": set()}[mode]
    if footer.checksums is not None:
        _check(data, footer, wanted)
    asked = None if columns is None else names
    if footer.checksums is not None and mode != "always":
        with opened(path, state) as mine:
            mine.file = mine.file or _parquet(data, footer)
            table = mine.file.read(columns=asked)
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


def _check(data: memoryview, footer: _Footer, places: set[int]) -> None:
    """Compare columns with their checksums."""
    names = footer.schema.names
    for number, ((low, high), checksum) in enumerate(footer.checksums or ()):
        place = number % len(names)  # one row group after the other
        if place in places and zlib.crc32(data[low:high]) != checksum:
            raise StoreDamaged(f"the checksum of column {names[place]!r} is wrong")


@lru_cache(maxsize=FOOTERS)
def _known_footers(path: str, state: State) -> dict[int, _Footer]:
    """A place for the footer of a file."""
    return {}


@lru_cache(maxsize=FILES)
def _checked_columns(path: str, state: State) -> set[int]:
    """The columns of a file that this process has compared with their checksums, by place."""
    return set()


def _read_footer(data: memoryview) -> _Footer:
    """Read, and check, what is at the end of a file."""
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
    """Where the footer begins."""
    size = len(data)
    if size < len(PARQUET) + END or data[-4:] != PARQUET:
        raise StoreDamaged("it does not end as a Parquet file does")
    begin = size - END - int.from_bytes(data[-END:-4], "little")
    if begin < len(PARQUET):
        raise StoreDamaged("its footer is longer than the file")
    return begin


def _checksums(data: memoryview, end: int) -> tuple[int, ...] | None:
    """The checksums of columns and footer that end here; None where there are none."""
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
    """First byte of each column, and the one after its last; row group after row group."""
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(metadata.num_columns):
            column: Any = group.column(place)
            begin = column.data_page_offset
            if column.has_dictionary_page:
                begin = min(begin, column.dictionary_page_offset)
            found.append((begin, begin + column.total_compressed_size))
    return found


def _after_fork() -> None:
    """A forked child checks by itself."""
    _known_footers.cache_clear()
    _checked_columns.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
