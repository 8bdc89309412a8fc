"""Undo HDF5's filters outside HDF5, by decoders that stop at the known size of a chunk.

A decoder gets the stored bytes and an output buffer of exactly the right size. The sizes in a
chunk's header are compared with that buffer first, so that no decoder takes memory or time as a
damaged or malicious header declares.
"""

from __future__ import annotations

import bz2
import ctypes
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

import h5py
import hdf5plugin
import imagecodecs
import numpy as np

from daskbroker_codecs import decode_bitshuffle

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
BZIP2, LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD = 307, 32000, 32001, 32004, 32008, 32015
LZ4_INSIDE, ZSTD_INSIDE = 2, 3
"""Codes of bitshuffle's compressions in the filter's values."""
CHECKSUM = 4
"""Bytes that fletcher32 appends."""
SLACK = 2**20
"""Maximum bytes that a chunk may have beyond twice its unpacked size, as stored or between two
filters: headers, padding, and data that does not compress."""

Decoder: TypeAlias = "Callable[[memoryview, np.ndarray, tuple[int, ...]], None]"
"""Function of the stored bytes, the output buffer of the exact size, and the filter's values."""


class Damaged(ValueError):
    """Raised if a chunk is not valid output of its filters."""


def filters_of(dataset: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """Return HDF5's number and the parameters of each filter, in the order of application."""
    plist = dataset.id.get_create_plist()
    found = (plist.get_filter(number) for number in range(plist.get_nfilters()))
    return [(code, tuple(values)) for code, _, values, *_ in found]


def most_bytes(size: int) -> int:
    """Return the maximum bytes of a chunk that has ``size`` bytes unpacked."""
    return 2 * size + SLACK


@dataclass(frozen=True)
class Filters:
    """The filters of a dataset, all of which can be undone here.

    Attributes
    ----------
    codes, values
        HDF5's number and the parameters of each filter, in the order in which they were applied.
    size
        Bytes of an unpacked chunk.
    """

    codes: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    size: int

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Filters | None:
        """Return the filters of a dataset; None if it has none or one cannot be undone here."""
        if dataset.chunks is None:
            return None
        found = filters_of(dataset)
        codes, values = tuple(code for code, _ in found), tuple(each for _, each in found)
        if not codes or not all(map(_is_known, codes, values)) or not _is_sized(codes, values):
            return None
        return cls(codes, values, prod(dataset.chunks) * dataset.dtype.itemsize)

    @property
    def most(self) -> int:
        """Maximum bytes of a stored chunk."""
        return most_bytes(self.size)

    def decode(self, data: memoryview, mask: int, out: np.ndarray) -> None:
        """Undo the filters of one chunk.

        Parameters
        ----------
        data
            Bytes of the chunk as stored.
        mask
            Bit i is set if filter i was not applied.
        out
            Contiguous uint8 array of ``size`` bytes, into which the chunk is written.

        Raises
        ------
        Damaged
            If the chunk does not have the right size, or is not valid output of its filters.
        """
        pairs = list(zip(self.codes, self.values))
        applied = [pair for position, pair in enumerate(pairs) if not mask >> position & 1]
        for number in reversed(range(len(applied))):
            code, values = applied[number]
            if code == FLETCHER32:
                data = _checked(data)
                continue
            # Checksums that were appended before this filter was applied come out of it as well.
            sums = sum(before == FLETCHER32 for before, _ in applied[:number])
            into = np.empty(self.size + CHECKSUM * sums, np.uint8) if number else out
            undo(code, values, data, into)
            data = into.data
        if not applied or applied[0][0] == FLETCHER32:  # nothing was decoded into its place
            if len(data) != len(out):
                raise Damaged(f"it has {len(data)} bytes, not the {len(out)} bytes of a chunk")
            out[:] = np.frombuffer(data, np.uint8)


def undo(code: int, values: tuple[int, ...], data: memoryview, out: np.ndarray) -> None:
    """Undo one filter, with the output buffer of the exact size.

    Raises
    ------
    Damaged
        If other than that many bytes come out.
    """
    try:
        _DECODERS[code](data, out, values)
    except (RuntimeError, ValueError, struct.error) as error:
        raise Damaged(f"it does not unpack to the {len(out)} bytes of a chunk: {error}") from None


def _is_known(code: int, values: tuple[int, ...]) -> bool:
    if code == BITSHUFFLE:
        return len(values) > 2 and values[2] > 0 and _packing(values) in (0, *_NAMES)
    if code == SHUFFLE:
        return len(values) >= 1 and values[0] > 0
    return code in _DECODERS or code == FLETCHER32


def _is_sized(codes: Sequence[int], values: Sequence[tuple[int, ...]]) -> bool:
    """Return whether the output size of each filter is known: only checksums follow compression."""
    packed = [is_packing(code, each) for code, each in zip(codes, values)]
    return True not in packed or set(codes[packed.index(True) + 1 :]) <= {FLETCHER32}


def is_packing(code: int, values: tuple[int, ...]) -> bool:
    """Return whether a filter changes the size of a chunk as it pleases."""
    if code == BITSHUFFLE:
        return _packing(values) != 0
    return code not in (SHUFFLE, FLETCHER32)


def _packing(values: tuple[int, ...]) -> int:
    """Return the code of bitshuffle's compression; 0 if it does not compress."""
    # The parameters: two numbers of the version, bytes of an element, block size, compression.
    return values[4] if len(values) > 4 else 0


# -- checksum and shuffle --------------------------------------------------------------------


def _checked(data: memoryview) -> memoryview:
    """Check the checksum at the end, and return the data before it.

    Old versions of HDF5 swapped the bytes of each half of the checksum, so both orders are valid.
    """
    content, stored = data[:-CHECKSUM], bytes(data[-CHECKSUM:])
    if len(stored) != CHECKSUM:
        raise Damaged("it is too short for its checksum")
    found = int(imagecodecs.h5checksum_fletcher32(content)).to_bytes(CHECKSUM, "little")
    if stored not in (found, bytes(found[position] for position in (1, 0, 3, 2))):
        raise Damaged("its checksum differs from the stored one")
    return content


def _unshuffle(data: memoryview, out: np.ndarray, values: tuple[int, ...]) -> None:
    """Undo the byte shuffle, which stores all first bytes of the elements, then all second ones.

    Bytes after the last whole element are stored unchanged.
    """
    _expect(len(data), len(out))
    width = values[0]
    count = len(out) // width
    stored = np.frombuffer(data, np.uint8)
    planes = stored[: width * count].reshape(width, count)
    elements = out[: width * count].reshape(count, width)
    for number, plane in enumerate(planes):  # six times as fast as a transposed copy
        elements[:, number] = plane
    out[width * count :] = stored[width * count :]


# -- compression -----------------------------------------------------------------------------


def _expect(found: int, size: int) -> None:
    if found != size:
        raise Damaged(f"{found} come out")


def _by(decode: Callable[..., Any]) -> Decoder:
    """Make a decoder of a function that stops at the end of ``out`` and returns the filled part."""

    def decoder(data: memoryview, out: np.ndarray, values: tuple[int, ...]) -> None:
        _expect(len(decode(data, out=out)), len(out))

    return decoder


def _unbzip2(data: memoryview, out: np.ndarray, values: tuple[int, ...]) -> None:
    """Undo bzip2; imagecodecs' decoder does not tell that more would come out."""
    try:
        found = bz2.BZ2Decompressor().decompress(data, len(out) + 1)
    except OSError as error:
        raise Damaged(str(error)) from None
    _expect(len(found), len(out))
    out[:] = np.frombuffer(found, np.uint8)


def _unlz4(data: memoryview, out: np.ndarray, values: tuple[int, ...]) -> None:
    _expect(_header(">Q", data)[0], len(out))
    _expect(len(imagecodecs.lz4h5_decode(data, out=out)), len(out))


def _unblosc(data: memoryview, out: np.ndarray, values: tuple[int, ...]) -> None:
    """Undo blosc, after checking the sizes in the header.

    The decoder trusts the header for how much it reads and how much memory it takes for a block.
    """
    size, block, stored = _header("<III", data, 4)
    _expect(size, len(out))
    if stored > len(data) or block > size:
        raise Damaged("its header declares more bytes than there are")
    _expect(len(imagecodecs.blosc_decode(data, out=out, numthreads=1)), len(out))


def _header(form: str, data: memoryview, start: int = 0) -> tuple[int, ...]:
    return struct.unpack_from(form, data, start)


# -- bitshuffle ------------------------------------------------------------------------------

_HEADER = 12
"""Bytes of the header of sizes before the first block."""
GROUP = 8
"""Number of elements that are shuffled together; a remainder of fewer elements is unchanged."""
_LENGTH = struct.Struct(">I").unpack_from


def _unbitshuffle(data: memoryview, out: np.ndarray, values: tuple[int, ...]) -> None:
    width, packing = values[2], _packing(values)
    if len(out) % width:
        raise Damaged(f"its size is not a multiple of {width}, its elements'")
    if not packing:
        _expect(len(data), len(out))
        block = values[3] if len(values) > 3 else 0
        rest = len(out) % (GROUP * width)
        _unshuffle_bits(data, out, width, block, rest)
        # Elements that do not fill a group are stored as they are.
        out[len(out) - rest :] = np.frombuffer(data, np.uint8)[len(out) - rest :]
        return
    size, block = _header(">QI", data)
    _expect(size, len(out))
    if not block or block % (GROUP * width) or block > max(size, 2**16):
        raise Damaged(f"its header declares blocks of {block} bytes")
    if packing == LZ4_INSIDE and (dectris := _dectris()) is not None:
        stored = np.frombuffer(data, np.uint8)
        into, source = out.ctypes.data, stored.ctypes.data
        if dectris(_DECTRIS_BSLZ4, into, len(out), source, len(stored), width) != len(out):
            raise Damaged("a block is damaged")
        return
    rest = size % (GROUP * width)
    begins = _find_blocks(data, size - rest, block, rest)
    if packing == LZ4_INSIDE and (plugin := _plugin()) is not None:
        # The library trusts the lengths that precede the blocks, which were checked.
        begin = np.frombuffer(data, np.uint8).ctypes.data + _HEADER
        if plugin(begin, out.ctypes.data, size // width, width, block // width) < 0:
            raise Damaged("a block is damaged")
        return
    _unpack_by_blosc(data, out, width, block, packing, begins)


def _unshuffle_bits(data: memoryview, out: np.ndarray, width: int, block: int, rest: int) -> None:
    """Undo the bit shuffle, which stores the bits of each block of elements plane by plane."""
    whole = out[: len(out) - rest]
    stored = data[: len(whole)]  # of an array, the width would be that of its dtype
    imagecodecs.bitshuffle_decode(stored, itemsize=width, blocksize=block, out=whole)


_BLOSC_HEADER = struct.Struct("<BBBBIII").pack_into
"""Versions of Blosc and of the compression, flags, and bytes: of an element, of the whole, of a
block, of the chunk."""
_BLOSC_FLAGS = 0x4 | 0x10
"""Bits are shuffled, and blocks are not split by the bytes of elements."""
_BLOSC_CODES = {LZ4_INSIDE: 1 << 5, ZSTD_INSIDE: 4 << 5}
"""The flags of Blosc that tell the compression."""
_NAMES = {LZ4_INSIDE: "lz4", ZSTD_INSIDE: "zstd"}
_BLOSC_WIDTH = 255
"""Maximum bytes of an element in Blosc."""
_BLOSC_MOST = 2**30
"""Maximum bytes, packed or not, that are given to Blosc, which counts them in 32 bits."""


def _unpack_by_blosc(
    data: memoryview, out: np.ndarray, width: int, block: int, packing: int, begins: array[int]
) -> None:
    """Undo packed blocks by Blosc's decoder.

    Blosc 1 has the same blocks: with their lengths in the other byte order, and with a table of
    where they begin, they are a chunk of it. The decoder of Blosc 2 is given it, which uses one
    state of Zstd for all blocks: others make one for each, which takes as long as decoding.
    """
    whole = len(out) - len(out) % (GROUP * width)
    packed, end = np.frombuffer(data, np.uint8), begins[-1]
    # Elements that do not fill a group are stored as they are.
    out[whole:] = packed[end : end + len(out) - whole]
    if not whole:
        return
    edges = np.array(begins, np.int64)
    starts, lengths = edges[:-1], np.diff(edges) - 4
    if not lengths.all():  # Blosc would take it for a block of zeros
        raise Damaged("a block has no bytes")
    last = whole - block * (len(lengths) - 1)
    # What is as long packed as unpacked would be taken for unpacked.
    alike = (lengths[:-1] == block).any() or lengths[-1] == last
    large = width > _BLOSC_WIDTH or max(len(out), end) > _BLOSC_MOST
    if alike or large or not imagecodecs.BLOSC2.available:
        out[:] = decode_bitshuffle(data, width, _NAMES[packing])
        return
    head = 16 + 4 * len(starts)
    starts += head - _HEADER
    chunk = np.empty(head + end - _HEADER, np.uint8)
    flags = _BLOSC_FLAGS | _BLOSC_CODES[packing]
    _BLOSC_HEADER(chunk.data, 0, 2, 1, flags, width, whole, min(block, whole), len(chunk))
    chunk[16:head].view("<i4")[:] = starts
    chunk[head:] = packed[_HEADER:end]
    for number, octets in enumerate(lengths.astype("<u4").view("u1").reshape(-1, 4).T):
        chunk[starts + number] = octets
    _expect(len(imagecodecs.blosc2_decode(chunk, out=out[:whole], numthreads=1)), whole)


def _find_blocks(data: memoryview, size: int, block: int, rest: int) -> array[int]:
    """Return where each block begins, with its length before it, and where the last one ends.

    The data must have all of them, and the rest after them. A damaged header may declare millions
    of blocks, which as a list would take several times the memory of the chunk.
    """
    count = -(-size // block)
    # The length of a block takes four bytes, and its data at least one.
    if 5 * count > len(data):
        raise Damaged(f"it is too short for {count} blocks")
    at = _HEADER
    begins = array("q", (at,))
    for _ in range(count):  # it has the GIL, so it does nothing else
        at += 4 + _LENGTH(data, at)[0]
        begins.append(at)
    if at + rest > len(data):
        raise Damaged("its last block is cut off")
    return begins


@lru_cache(1)
def _plugin() -> Callable[..., int] | None:
    """Return the decoder of LZ4 in hdf5plugin's library, a tenth faster than Blosc's.

    It is used without HDF5. None if it is not exported.
    """
    try:
        library = ctypes.CDLL(hdf5plugin.get_config().registered_filters["bshuf"])
        undo = library.bshuf_decompress_lz4
    except (KeyError, OSError, AttributeError):
        return None
    undo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    undo.restype = ctypes.c_int64
    return undo


_DECTRIS_BSLZ4 = 0
"""Number of ``COMPRESSION_BSLZ4`` in dectris-compression's header."""


@lru_cache(1)
def _dectris() -> Callable[..., int] | None:
    """Return the C function of dectris-compression, which takes 1/3 of the time for LZ4.

    None if it is not installed or does not export the function. Its Python function returns new
    bytes, which would have to be copied; that of C decodes into a buffer, and is told where both
    end.
    """
    try:
        from dectris import compression

        undo = ctypes.CDLL(compression.__file__).compression_decompress_buffer
    except (ImportError, OSError, AttributeError):
        return None
    undo.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t),
    ]
    undo.restype = ctypes.c_size_t
    return undo


_DECODERS: dict[int, Decoder] = {
    DEFLATE: _by(imagecodecs.deflate_decode),
    SHUFFLE: _unshuffle,
    BZIP2: _unbzip2,
    LZF: _by(imagecodecs.lzf_decode),
    BLOSC: _unblosc,
    LZ4: _unlz4,
    BITSHUFFLE: _unbitshuffle,
    ZSTD: _by(imagecodecs.zstd_decode),
}
