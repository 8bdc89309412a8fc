"""Locate the bytes of HDF5 datasets in their files, to make references to them."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import numpy as np
from h5py import h5d, h5p

from ....core.file_identity import identity
from ..stored_frames import Codec, NoReference, StoredRows
from .chunk_bytes import is_coded_to_its_edge, is_plain, is_written
from .chunk_filters import (
    BITSHUFFLE,
    BLOSC,
    BZIP2,
    DEFLATE,
    FLETCHER32,
    LZ4,
    LZ4_INSIDE,
    LZF,
    SHUFFLE,
    ZSTD,
    ZSTD_INSIDE,
)
from .chunk_index import chunk_table

Values = tuple[int, ...]

BLOSC_PACKING = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")


def stored_rows(dataset: h5py.Dataset) -> StoredRows:
    """Return where a dataset's chunks lie, or its values if it has no chunks.

    Raises
    ------
    NoReference
        If the dataset is not stored in its own file in chunks or contiguously, was never written,
        has elements other than plain numbers or filters without a codec, or if the file is still
        being written.
    """
    plist = dataset.id.get_create_plist()
    path, number = dataset.file.filename, dataset.file.id.get_vfd_handle()
    _check(dataset, plist, number)
    about = {"path": path, "state": identity(number), "shape": tuple(dataset.shape)}
    if plist.get_layout() == h5d.CHUNKED:
        table = chunk_table(dataset)
        left_out = _left_out_of_all(table)
        applied = [n for n in range(plist.get_nfilters()) if not left_out >> n & 1]
        table[..., 2] &= ~left_out
        return StoredRows(
            **about,
            dtype=dataset.dtype,
            chunk=tuple(dataset.chunks),
            codecs=tuple(_codec(dataset, *plist.get_filter(n)) for n in applied),
            table=table,
        )
    offset = dataset.id.get_offset()
    if offset is None:
        raise NoReference(f"the dataset {dataset.name!r} of {path!r} was never written")
    return StoredRows(**about, dtype=dataset.dtype, offset=int(offset))


def _left_out_of_all(table: np.ndarray) -> int:
    """Return the filters that were omitted for all chunks, as bits.

    HDF5 omits filters that save nothing.
    """
    masks = table[..., 2][table[..., 0] >= 0]
    return int(np.bitwise_and.reduce(masks)) if masks.size else 0


def _check(dataset: h5py.Dataset, plist: h5p.PropDCID, number: int) -> None:
    where = f"the dataset {dataset.name!r} of {dataset.file.filename!r}"
    if not is_plain(dataset):
        raise NoReference(f"{where} has elements of {dataset.dtype}, or a block before it")
    if plist.get_external_count():
        raise NoReference(f"{where} has its values in other files, as raw external storage")
    if plist.get_layout() not in (h5d.CHUNKED, h5d.CONTIGUOUS):
        raise NoReference(f"{where} is stored in a compact or virtual layout")
    if plist.get_layout() == h5d.CHUNKED and not is_coded_to_its_edge(dataset):
        raise NoReference(f"{where} has chunks at its edges that are encoded differently")
    if is_written(number):
        raise NoReference(f"{dataset.file.filename!r} is still written, so its chunks may move")


def _codec(dataset: h5py.Dataset, code: int, flags: int, values: Values, name: bytes) -> Codec:
    made = _CODECS.get(code)
    found = None if made is None else made(values)
    if found is None:
        raise NoReference(
            f"the dataset {dataset.name!r} of {dataset.file.filename!r} is encoded by the HDF5 "
            f"filter {code} ({name.decode(errors='replace') or 'without name'}), for which there "
            "is no codec"
        )
    return found


def _blosc(values: Values) -> Codec | None:
    """Return numcodecs' configuration; for decoding, a chunk itself tells how it is packed."""
    # Level, shuffle and compressor come after four numbers of HDF5's filter; absent ones have the
    # defaults of that filter.
    level, shuffle, packing = (*values[4:7], *(5, 1, 0)[len(values[4:7]) :])
    if packing >= len(BLOSC_PACKING):
        return None
    return {
        "id": "blosc",
        "cname": BLOSC_PACKING[packing],
        "clevel": level,
        "shuffle": shuffle,
        "blocksize": 0,
    }


def _bitshuffle(values: Values) -> Codec | None:
    packing = {0: "none", LZ4_INSIDE: "lz4", ZSTD_INSIDE: "zstd"}
    chosen = packing.get(values[4] if len(values) > 4 else 0)
    if len(values) < 3 or not values[2] or chosen in (None, "none"):
        return None
    return {"id": "hdf5_bitshuffle", "elementsize": values[2], "packing": chosen}


def _lzf(values: Values) -> Codec | None:
    """Return the codec with the size of a chunk, which LZF does not tell itself."""
    return {"id": "hdf5_lzf", "size": values[2]} if len(values) > 2 else None


_CODECS: dict[int, Callable[[Values], Codec | None]] = {
    DEFLATE: lambda values: {"id": "zlib", "level": values[0] if values else 6},
    SHUFFLE: lambda values: {"id": "shuffle", "elementsize": values[0]},
    FLETCHER32: lambda values: {"id": "fletcher32"},
    BZIP2: lambda values: {"id": "bz2", "level": values[0] if values else 9},
    BLOSC: _blosc,
    LZ4: lambda values: {"id": "hdf5_lz4"},
    LZF: _lzf,
    ZSTD: lambda values: {"id": "zstd", "level": values[0] if values else 3},
    BITSHUFFLE: _bitshuffle,
}
