"""Reading chunks of an embedded store: Parquet files, and small chunks inside SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...core.chunks import ChunkReader, from_ipc, ranges_table
from ...core.errors import StoreDamaged
from .database import Database

__all__ = ["EmbeddedReader"]


@dataclass(frozen=True)
class EmbeddedReader(ChunkReader):
    """Reads by key.

    A key is the path of a Parquet file below the store's folder; the number of a chunk inside
    SQLite, read only in a process that may open it; the Arrow bytes of a small chunk or an
    unsealed tail, as they travel to other processes; or a ``(first, last)`` range of seq_num.
    """

    root: str
    read_only: bool = False

    def read(self, key: Any, columns: Sequence[str] | None = None) -> pa.Table:
        """See :meth:`daskbroker.core.chunks.ChunkReader.read`."""
        if isinstance(key, str):
            return self._read_file(key, columns)
        if isinstance(key, tuple):
            table = ranges_table(*key)
            return table if columns is None else table.select(_present(table.schema, columns))
        return from_ipc(key if isinstance(key, bytes) else self._bodies([key])[key], columns)

    def _read_file(self, key: str, columns: Sequence[str] | None) -> pa.Table:
        path = Path(self.root, key)
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                if columns is None:
                    return file.read()
                schema = file.schema_arrow
                present = _present(schema, columns)
                if not present:  # the number of rows still counts
                    return pa.table({"": pa.nulls(file.metadata.num_rows)}).select([])
                return file.read(columns=present).select(present)
        except FileNotFoundError:
            raise StoreDamaged(
                f"{path} is missing; if this is a worker on another machine, it must see the "
                f"folder {self.root} under the same path"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise StoreDamaged(f"{path} is damaged: {error}") from error

    def _bodies(self, numbers: Sequence[int]) -> dict[int, bytes]:
        database = Database.of(Path(self.root), create=False, read_only=self.read_only)
        found: dict[int, bytes] = {}
        with database.read() as connection:
            for start in range(0, len(numbers), 500):
                some = numbers[start : start + 500]
                marks = ",".join("?" * len(some))
                found.update(
                    connection.execute(
                        f"SELECT id, body FROM chunk_body WHERE id IN ({marks})", some
                    )
                )
        missing = set(numbers) - found.keys()
        if missing:
            raise StoreDamaged(f"{database.path} lacks the chunks {sorted(missing)[:5]}")
        return found

    def portable(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Put small chunks in place of their numbers: workers never open the SQLite file,
        which is not safe over network file systems.
        """
        numbers = [key for key in keys if isinstance(key, int)]
        bodies = self._bodies(numbers) if numbers else {}
        return [bodies[key] if isinstance(key, int) else key for key in keys]


def _present(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    names = set(schema.names)
    return [name for name in columns if name in names]
