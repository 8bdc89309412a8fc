"""Verification of exported files: digests of values when written, compared with those read back."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import xarray as xr

from ..core.errors import StoreError


def differs(target: Path, what: str) -> StoreError:
    """Return the error for a file that does not hold what was written to it.

    Parameters
    ----------
    target
        Path that is named in the message.
    what
        Description of the part that differs.
    """
    return StoreError(
        f"the export {target} was read back, and {what} differs from what was written; the target "
        "was not changed. Check the disk and export again"
    )


def regions_of(variable: xr.Variable) -> Iterator[Any]:
    """Yield the regions to read of a variable: chunks along dimension 0, all of it if not lazy."""
    if not variable.chunks:
        yield ...
        return
    for begin, end in pairwise(np.cumsum([0, *variable.chunks[0]]).tolist()):
        if begin < end:
            yield slice(begin, end)


class CheckedText(io.TextIOBase):
    """A text file that computes a digest of what is written to it.

    Parameters
    ----------
    file
        File that is open for writing, in UTF-8.
    errors
        Error handler of ``file`` for text that UTF-8 cannot encode; see :func:`open`.
    """

    def __init__(self, file: TextIO, errors: str = "strict") -> None:
        self._file, self._errors = file, errors
        self._digest = hashlib.blake2b()

    def write(self, text: str) -> int:
        """Write text and return the number of characters."""
        self._digest.update(text.encode("utf8", self._errors))
        return self._file.write(text)

    def check(self, path: Path, target: Path) -> None:
        """Compare the content of the file with what was written. The file must be closed.

        Parameters
        ----------
        path
            Path of the file to read.
        target
            Path that is named in messages.

        Raises
        ------
        StoreError
            If the content differs.
        """
        with path.open("rb") as file:
            stored = hashlib.file_digest(file, "blake2b")
        if stored.digest() != self._digest.digest():
            raise differs(target, "its text")


class WrittenParts:
    """Digests of the parts of a file, in the order in which they were written.

    Attributes
    ----------
    parts
        Pairs of the name of a part and its digest.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[Any, bytes]] = []

    def note(self, part: Any, digest: bytes) -> None:
        """Add the digest of a part."""
        self.parts.append((part, digest))

    def check(self, digests: Iterable[tuple[Any, bytes]], label: str, target: Path) -> None:
        """Compare the digests with those of the parts that were read back.

        Parameters
        ----------
        digests
            Pairs of the name of a part and its digest, in the same order.
        label
            Kind of the parts, for messages.
        target
            Path that is named in messages.

        Raises
        ------
        StoreError
            If a part differs, is missing, or was not written. The message names the first one.
        """
        rest = iter(digests)
        for part, digest in self.parts:
            read = next(rest, None)
            if read is None or read[1] != digest:
                raise differs(target, f"{label} {part if read is None else read[0]}")
        if next(rest, None) is not None:
            raise differs(target, f"{label}, of which there are too many,")


def values_digest(values: np.ndarray) -> bytes:
    """Return a digest of an array of numbers, times or text, whatever its byte order."""
    digest = hashlib.blake2b(repr(values.shape).encode())
    if values.dtype.kind in "OTU":
        for cell in values.ravel().tolist():
            text = cell if isinstance(cell, bytes) else str(cell).encode("utf8", "surrogatepass")
            digest.update(len(text).to_bytes(8, "little") + text)
    else:
        digest.update(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))).data)
    return digest.digest()


def arrow_digest(table: pa.Table) -> bytes:
    """Return a digest of the cells of a table.

    It depends neither on how columns are chunked nor on the values beneath nulls.
    """
    digest = hashlib.blake2b(repr(table.column_names).encode())
    for column in table.columns:
        _add(digest, column)
    return digest.digest()


def _add(digest: Any, array: Any) -> None:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    digest.update(len(array).to_bytes(8, "little"))
    if array.null_count:
        digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
        array = array.drop_null()
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        digest.update(array.value_lengths().to_numpy(zero_copy_only=False).tobytes())
        _add(digest, array.flatten())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            _add(digest, child)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        for cell in array.cast(pa.large_binary()).to_pylist():
            digest.update(len(cell).to_bytes(8, "little") + cell)
    elif not pa.types.is_null(kind):
        digest.update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).tobytes())
