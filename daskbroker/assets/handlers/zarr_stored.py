"""Locate the files of a Zarr array's chunks, to make references to them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.file_identity import identity
from ..files.readable import ReadableRoots
from .stored_frames import Codec, NoReference, StoredFile, StoredRows

KNOWN = ("zlib", "gzip", "bz2", "zstd", "blosc", "shuffle")
"""Codecs of numcodecs that references can name."""
SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def stored_chunks(array: Any, folder: str, readable: ReadableRoots) -> StoredRows:
    """Return the chunks of an array, each of which is a file.

    Parameters
    ----------
    array
        Array of the package zarr.
    folder
        Path of the array's folder.
    readable
        Roots that the files of the chunks must be below.

    Raises
    ------
    NoReference
        If its codecs have no counterpart, its elements are not in C order, or it has shards.
    """
    metadata = array.metadata
    dtype = np.dtype(array.dtype)
    if metadata.zarr_format == 2:
        if metadata.order != "C":
            raise NoReference(f"{folder!r} is in Fortran order")
        applied = [*(metadata.filters or ()), metadata.compressor]
        codecs = [codec.get_config() for codec in applied if codec is not None]
    else:
        dtype, codecs = _of_version_3([codec.to_dict() for codec in metadata.codecs], dtype, folder)
    unknown = [codec["id"] for codec in codecs if codec["id"] not in KNOWN]
    if unknown:
        raise NoReference(f"{folder!r} is encoded by {unknown[0]}, which references cannot name")
    grid = tuple(-(-size // side) for size, side in zip(array.shape, array.chunks))
    table = np.zeros((*grid, 4), np.int64)
    files: list[StoredFile] = []
    for position in itertools.product(*map(range, grid)):
        path = readable.check(os.path.join(folder, metadata.encode_chunk_key(position)))
        found = identity(path)
        table[position] = (-1, -1, -1, 0) if found is None else (0, found[2], 0, len(files))
        if found is not None:
            files.append(StoredFile(path, found))
    shape, chunk = tuple(array.shape), tuple(array.chunks)
    return StoredRows(
        *(folder, None, shape, dtype, chunk), codecs=tuple(codecs), table=table, parts=files
    )


def _of_version_3(
    codecs: list[Mapping[str, Any]], dtype: np.dtype, folder: str
) -> tuple[np.dtype, list[Codec]]:
    """Return the dtype with its byte order, and numcodecs' configurations of codecs."""
    if any(codec["name"] == "sharding_indexed" for codec in codecs):
        raise NoReference(f"{folder!r} has several chunks in a file, as shards")
    found: list[Codec] = []
    for codec in codecs:
        config = codec.get("configuration", {})
        match str(codec["name"]).removeprefix("numcodecs."):
            case "bytes":
                dtype = dtype.newbyteorder(">" if config.get("endian") == "big" else "<")
            case "zstd":
                found.append({"id": "zstd", "level": config["level"]})
            case "blosc":
                names = {key: config[key] for key in ("cname", "clevel", "blocksize")}
                found.append({"id": "blosc", **names, "shuffle": SHUFFLES[config["shuffle"]]})
            case name:
                found.append({"id": name, **config})
    return dtype, found
