"""Recorded documents in files: how they are found and read.

The following forms are read: JSON (arrays of ``[name, document]`` or ``{"name", "doc"}``, lists of
such runs, mappings of labels to runs), JSON lines, msgpack with arrays of msgpack-numpy, any of
these compressed by gzip, zip files with any number of these, and Datasets that xarray has saved
(:mod:`.saved`). The form is recognized by the content of a file, not by its name.

Files may come from anywhere. Therefore nothing in them is unpickled, executed or written to disk,
and the size that a compressed file may unpack to is bounded.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from msgpack import UnpackException

from ..core.dtypes import plain_dtype
from ..core.errors import BadRecording
from ..core.json_text import from_extended_json
from ..core.plain_msgpack import Unpacker
from ..core.regular_files import open_regular
from .saved import is_ours, is_saved, is_zarr, read_saved
from .unpacked_sizes import RATIO, most_unpacked

MAX_WRAPPINGS = 8
"""Maximum levels of lists and labels around documents."""

MOST_GZIP = 4
"""Maximum times that a file may be compressed by gzip; a file can unpack to itself forever."""

MOST_EMPTY = 2**16
"""Maximum number of empty lists that an array without values may stand for."""

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".msgpack", ".json.txt", ".jsonl.txt")
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_DECODER = json.JSONDecoder()
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
_BAD_ZIP = (zipfile.BadZipFile, RuntimeError, UnicodeDecodeError, OverflowError, struct.error)


class Recorded(NamedTuple):
    """One document of a recording.

    Attributes
    ----------
    run
        Uid of the latest start document, this one included. None before the first.
    name, doc
        Name and content of the document, as it was recorded.
    where
        File, and line or item in it, for messages.
    """

    run: str | None
    name: str
    doc: Mapping[str, Any]
    where: str


# -- finding ---------------------------------------------------------------------------------


def find_recordings(path: str | os.PathLike[str]) -> list[Path]:
    """Return the sorted paths of the files below a folder that may be recordings.

    Hidden files, READMEs, manifests, catalog files and folders of external files are skipped, and
    so are files without a suffix of recordings. NetCDF files and Zarr groups are skipped unless
    they were saved from Datasets of daskbroker. Folders that cannot be listed are among the paths,
    as their content is not known; reading them says why.

    Parameters
    ----------
    path
        Path of the folder. The path of a file or a Zarr group is returned as the only item.

    Raises
    ------
    BadRecording
        If nothing exists at ``path``.
    """
    root = Path(path)
    try:
        there = bool(os.fspath(path)) and root.exists()  # empty text is no working directory
    except OSError as error:  # a name that is too long
        raise BadRecording(f"{root}: {error.strerror}") from error
    if not there:
        raise BadRecording(f"{root}: no such file or folder")
    if not root.is_dir() or is_zarr(root):
        return [root]
    found: list[Path] = []
    closed: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=closed.append):
        # Hidden folders are of other programs; external_files are of suitcase, which copies
        # detector files there.
        folders[:] = [f for f in folders if not f.startswith(".") and f != "external_files"]
        found += [Path(folder, f) for f in files if _may_be_recording(f)]
        groups = [f for f in folders if _may_be(is_zarr, Path(folder, f))]
        found += [path for f in (*files, *groups) if _may_be(is_ours, path := Path(folder, f))]
        # A Zarr group is one recording; its chunks are no files of documents.
        folders[:] = [f for f in folders if f not in groups]
    return sorted({*found, *(Path(error.filename) for error in closed)})


def _may_be(kind: Callable[[Path], bool], path: Path) -> bool:
    """Return whether a path is of a kind, or cannot be looked at: reading it says why."""
    try:
        return kind(path)
    except OSError:
        return True


def _may_be_recording(file: str) -> bool:
    name = file.lower()
    # Names that accompany recordings: read-me files, catalogues of intake, and lists of files.
    if name.startswith((".", "readme", "catalog.")) or "manifest" in name:
        return False
    return name.endswith(".zip") or name.removesuffix(".gz").endswith(_SUFFIXES)


# -- reading ---------------------------------------------------------------------------------


def read_recording(
    path: str | os.PathLike[str], define: Mapping[str, str] | None = None
) -> Iterator[Recorded]:
    """Yield the documents of a file one by one, in the order of the file.

    JSON lines and msgpack are streamed. Any other JSON text is held in memory as a whole.

    Parameters
    ----------
    path
        Path of a file in any of the known forms.
    define
        Values of placeholders ``{{ name }}`` in JSON that is a template. If ``uuid`` is not given,
        it is derived from the content, so reading a template again gives the same run. If
        ``root_path`` is not given, it is the folder of the file. Any other placeholder stays as
        it is.

    Yields
    ------
    Recorded
        A document, and the run that it follows.

    Raises
    ------
    BadRecording
        If the file is damaged or holds something other than documents. The complete documents
        before that position have been yielded by then.
    """
    path = Path(path)
    run: str | None = None
    try:
        if path.is_dir():
            os.scandir(path).close()  # where it cannot be listed, that is the error
        if is_saved(path):
            for name, made in read_saved(path):
                run = made["uid"] if name == "start" else run
                yield Recorded(run, name, made, str(path))
            return
        for where, value in _values(path, define or {}):
            for name, doc in _named(value, where, 0):
                if name == "start" and isinstance(doc.get("uid"), str):
                    run = doc["uid"]
                yield Recorded(run, name, doc, where)
    except MemoryError:
        raise BadRecording(
            f"{path}: there is not enough memory for the sizes that it declares"
        ) from None
    except (*_UNREADABLE, *_BAD_ZIP) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadRecording(f"{path}: damaged or unreadable: {reason}") from error


def _named(value: object, where: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the documents in a value: a document, a list of them, or a list or mapping of runs."""
    pair = [value.get("name"), value.get("doc")] if isinstance(value, dict) else value
    # A list of two documents looks like a pair, but its first item is no text.
    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
        if isinstance(pair[1], dict):
            yield pair[0], pair[1]
            return
    elif isinstance(value, (list, dict)) and depth < MAX_WRAPPINGS:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _named(item, where, depth + 1)
        return
    raise BadRecording(
        f'{where}: is not a document, neither [name, document] nor {{"name", "doc"}}'
    )


def _values(path: Path, define: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield each top-level value of a file, which should be a document, a run or a list of runs."""
    template = _Template(path.resolve().parent, define)
    with open_regular(path) as file:
        packed = os.fstat(file.fileno()).st_size
        if packed == 0:  # files of /proc have this size, too, and may have no end
            raise BadRecording(f"{path}: the file is empty")
        # A zip file is known by its first bytes, whatever its name; an empty one has other first
        # bytes.
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            file.seek(0)
            yield from _stream_values(str(path), file, packed, packed, template)
            return
        file.seek(0)
        yield from _zip_values(path, file, packed, template)


def _zip_values(
    path: Path, file: BinaryIO, size: int, template: _Template
) -> Iterator[tuple[str, Any]]:
    with zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if _is_member(info)]
        if not members:
            raise BadRecording(f"{path}: the zip file contains no recording")
        for info in members:
            name = f"{path}!{info.filename}"
            with archive.open(info) as member:
                packed = min(info.compress_size, size)  # compress_size is only a claim
                bounded = io.BufferedReader(_Bounded(member, name, packed))
                yield from _stream_values(name, bounded, packed, most_unpacked(packed), template)


def _is_member(info: zipfile.ZipInfo) -> bool:
    *folders, name = info.filename.split("/")
    if info.is_dir() or any(f.startswith((".", "__MACOSX", "external_files")) for f in folders):
        return False
    # Zip files have documents as plain .txt too; such files in a folder may hold anything.
    return _may_be_recording(name) or (
        name.lower().endswith(".txt") and not name.lower().startswith("readme")
    )


def _stream_values(
    name: str, file: Any, packed: int, most: int, template: _Template, depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Yield the values in a file of ``packed`` bytes that may unpack to at most ``most`` bytes."""
    head = file.peek(16)[:16]
    # Formats are told by the first bytes, as suffixes of recordings are often wrong or missing.
    if head[:2] == b"\x1f\x8b":
        if depth == MOST_GZIP:
            raise BadRecording(f"{name}: compressed by gzip more than {MOST_GZIP} times")
        unpacked = io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=file), name, packed))
        yield from _stream_values(
            name, unpacked, packed, most_unpacked(packed), template, depth + 1
        )
    elif not head:
        raise BadRecording(f"{name}: the file is empty")
    elif head[0] >> 4 in (8, 9) or 0xDC <= head[0] <= 0xDF:  # a mapping or an array
        yield from _msgpack_values(name, file, most)
    elif head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b""):
        yield from _text_values(name, file, template)
    else:
        raise BadRecording(f"{name}: neither JSON, JSON lines, msgpack, nor gzip or zip of these")


class _Bounded(io.RawIOBase):
    """The unpacked content of a compressed file; BadRecording is raised if it grows too large."""

    def __init__(self, file: Any, name: str, packed: int) -> None:
        self._file, self._name = file, name
        self._left = most_unpacked(packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read1(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise BadRecording(f"{self._name}: unpacks to more than {RATIO} times its size")
        buffer[: len(data)] = data
        return len(data)


# -- JSON ------------------------------------------------------------------------------------


class _Template:
    """The values of placeholders in recordings that are templates."""

    def __init__(self, folder: Path, define: Mapping[str, str]) -> None:
        self._define = {"root_path": folder.as_posix(), **define}

    def fill(self, text: str) -> str:
        """Return the text with known placeholders replaced by values escaped for JSON strings."""
        # Without a placeholder the text need not be hashed.
        if "{{" not in text:
            return text
        digest = hashlib.sha256(text.encode("utf8", "surrogatepass")).hexdigest()
        # Only four groups of a UUID: templates append the last one themselves.
        uuid = f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}"
        known = {"uuid": uuid, **self._define}

        def value(match: re.Match[str]) -> str:
            return json.dumps(known[match[1]])[1:-1] if match[1] in known else match[0]

        return _PLACEHOLDER.sub(value, text)


def _text_values(name: str, file: BinaryIO, template: _Template) -> Iterator[tuple[str, Any]]:
    """Yield the values of JSON lines if the first line is complete by itself, else of one text.

    The first line is the first one that is not blank. The blank lines before it still count in
    line numbers.
    """
    begin, first = 1, _decoded(name, 1, file.readline()).removeprefix("\ufeff")
    while first and not first.strip():
        begin, first = begin + 1, _decoded(name, begin + 1, file.readline())
    try:
        value = from_extended_json(template.fill(first))
    except (ValueError, RecursionError):
        rest, damage = _read_rest(file)
        # The blank lines are put back, so that messages name the right line.
        text = "\n" * (begin - 1) + first + _decoded(name, begin + 1, rest)
        yield from _whole_text(name, template.fill(text))
        if damage is not None:
            raise damage from None
        return
    yield f"{name}, line {begin}", value
    for number, line in enumerate(file, begin + 1):
        # Blank lines between documents do no harm.
        if line.strip():
            yield f"{name}, line {number}", _line_value(name, number, line, template)


def _read_rest(file: BinaryIO) -> tuple[bytes, Exception | None]:
    """Return the rest of a file, up to any damage, and the exception for the damage."""
    parts: list[bytes] = []
    try:
        while part := file.read(2**16):
            parts.append(part)
    except _UNREADABLE as error:
        return b"".join(parts), error
    return b"".join(parts), None


def _decoded(name: str, line: int, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        position = line + data.count(b"\n", 0, error.start)
        raise BadRecording(f"{name}, line {position}: is not UTF-8 text: {error.reason}") from None


def _line_value(name: str, number: int, line: bytes, template: _Template) -> Any:
    try:
        return from_extended_json(template.fill(_decoded(name, number, line)))
    except json.JSONDecodeError as error:
        what = "truncated" if not line.endswith(b"\n") else "damaged"
        raise BadRecording(f"{name}, line {number}: {what} JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadRecording(f"{name}, line {number}: damaged JSON: {error}") from None


def _whole_text(name: str, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the value of a JSON text.

    For a damaged array its complete elements are yielded before BadRecording is raised.
    """
    try:
        yield name, from_extended_json(text)
        return
    except json.JSONDecodeError as error:
        what = "truncated" if error.pos >= len(text.rstrip()) else "damaged"
        failure = f"{name}, line {error.lineno}: {what} JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        failure = f"{name}: damaged JSON: {error}"
    for number, value in enumerate(_elements(text)):
        yield f"{name}, item {number}", value
    raise BadRecording(failure)


def _elements(text: str) -> Iterator[Any]:
    position = len(text) - len(text.lstrip()) + 1
    # After the value of a list: its items before the damage can still be read.
    while text.lstrip().startswith("["):
        try:
            position = len(text) - len(text[position:].lstrip())
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return
        yield value
        position = text.find(",", position) + 1 or len(text)


# -- msgpack ---------------------------------------------------------------------------------


def _msgpack_values(name: str, file: BinaryIO, most: int) -> Iterator[tuple[str, Any]]:
    """Yield the items of a msgpack file that has at most ``most`` bytes.

    The lengths of lists and mappings are limited by it, as memory for all the items that a list
    announces is taken at once.
    """
    limit = min(most, 2**31 - 1)
    unpacker = Unpacker(
        object_hook=msgpack_array,
        strict_map_key=False,
        max_buffer_size=2**31 - 1,
        max_array_len=limit,
        max_map_len=limit // 2,
    )
    read, end, number, damage = 0, 0, 0, None
    while damage is None:
        data = b""
        try:
            data = file.read(2**16)
        except _UNREADABLE as error:
            damage = BadRecording(f"{name}: damaged after item {number}: {error}")
        unpacker.feed(data)
        read += len(data)
        try:
            for value in unpacker:
                number, end = number + 1, unpacker.tell()
                yield f"{name}, item {number}", value
        # The items before it were yielded, so what is read is kept.
        except (ValueError, UnpackException, RecursionError, TypeError) as error:
            raise BadRecording(f"{name}, item {number + 1}: damaged msgpack: {error}") from None
        # The file is at its end, or what is left of it is not readable.
        if not data:
            break
    if damage is None and end != read:  # at the end, tell() counts half an item too
        damage = BadRecording(f"{name}, item {number + 1}: truncated msgpack")
    if damage is not None:
        raise damage


def msgpack_array(mapping: dict[Any, Any]) -> Any:
    """Return the array or NumPy scalar that msgpack-numpy has written as a mapping.

    Any other mapping is returned as it is. Pickled arrays are never loaded.

    Raises
    ------
    ValueError
        If the mapping does not describe a valid array.
    """
    marks = {key.decode() if isinstance(key, bytes) else key: key for key in mapping}
    # Any mapping without all three keys is a mapping of the document.
    if not {"nd", "type", "data"} <= marks.keys():
        return mapping
    is_array, kind, data = (mapping[marks[key]] for key in ("nd", "type", "data"))
    # In place of the bytes of a masked array msgpack-numpy has written an array of its data.
    if isinstance(data, np.ndarray):
        raise ValueError("a masked array, which msgpack-numpy writes without its mask")
    if not isinstance(data, bytes):
        raise ValueError("an array whose data are not bytes")
    dtype = plain_dtype(kind.decode() if isinstance(kind, bytes) else kind)
    values = np.frombuffer(data, dtype)
    if is_array and "shape" in marks:
        shape = mapping[marks["shape"]]
        # Without values the product of the lengths is 0, however long the others are: bounded
        # here.
        if not len(values) and prod(shape[: list(shape).index(0)]) > MOST_EMPTY:
            raise ValueError(f"an array of the shape {shape} without values")
        return values.reshape(shape)
    if is_array or len(values) != 1:
        raise ValueError("an array without a shape")
    return values[0]
