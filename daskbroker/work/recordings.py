"""Recorded documents in files: finding them and reading them.

What is read: JSON (arrays of ``[name, document]`` or ``{"name", "doc"}``, lists of such runs,
mappings of labels to runs), JSON lines, msgpack with msgpack-numpy arrays; gzip of any of
these; zip with any number of them. Datasets that xarray has saved (:mod:`.saved`). The content
decides, not the name of the file.

Files come from anywhere, so nothing in them is unpickled, executed or written to disk, and
what a compressed file may grow to is bounded.
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
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from msgpack import UnpackException

from ..core.dtypes import plain_dtype
from ..core.errors import BadRecording
from ..core.json_text import from_extended_json
from ..core.plain_msgpack import Unpacker
from ..core.regular import open_regular
from .saved import is_ours, is_saved, is_zarr, read_saved

__all__ = ["Recorded", "find_recordings", "msgpack_array", "read_recording"]

LARGEST = 64 * 2**20
RATIO = 250
"""A compressed file may unpack to `LARGEST` bytes, or to so many times its own size."""

DEEPEST = 8
"""Levels of lists and labels around documents."""

MOST_GZIP = 4
"""Times that a file may be compressed by gzip; one can unpack to itself for ever."""

MOST_EMPTY = 2**16
"""Empty lists that an array without values may stand for."""

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
        Uid of the start document it follows; None before the first.
    name, doc
        The document, as it was recorded.
    where
        File, and line or item, for messages.
    """

    run: str | None
    name: str
    doc: Mapping[str, Any]
    where: str


# -- finding ---------------------------------------------------------------------------------


def find_recordings(path: str | os.PathLike[str]) -> list[Path]:
    """The files below a folder that may be recordings, sorted; a file is itself the answer.

    Hidden files, READMEs, manifests, catalog files and folders of external files are passed
    over, and so is what has no suffix of a recording, and files of netCDF and Zarr that were not
    saved of Datasets of ours.

    Raises
    ------
    BadRecording
        If there is nothing at ``path``.
    """
    root = Path(path)
    try:
        there = root.exists()
    except OSError as error:  # a name that is too long
        raise BadRecording(f"{root}: {error.strerror}") from error
    if not there:
        raise BadRecording(f"{root}: no such file or folder")
    if not root.is_dir() or is_zarr(root):
        return [root]
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "external_files"]
        found += [Path(folder, f) for f in files if _may_be_recording(f)]
        groups = [f for f in folders if is_zarr(Path(folder, f))]
        found += [path for f in (*files, *groups) if is_ours(path := Path(folder, f))]
        folders[:] = [f for f in folders if f not in groups]
    return sorted(found)


def _may_be_recording(file: str) -> bool:
    name = file.lower()
    if name.startswith((".", "readme", "catalog.")) or "manifest" in name:
        return False
    return name.endswith(".zip") or name.removesuffix(".gz").endswith(_SUFFIXES)


# -- reading ---------------------------------------------------------------------------------


def read_recording(
    path: str | os.PathLike[str], define: Mapping[str, str] | None = None
) -> Iterator[Recorded]:
    """The documents of a file, one by one, in its order.

    JSON lines and msgpack are streamed; any other JSON text is held as a whole.

    Parameters
    ----------
    path
        A file in any of the known forms.
    define
        Values of placeholders ``{{ name }}`` in JSON that is a template. ``uuid`` is derived
        from the content if not given, so reading a template again gives the same run;
        ``root_path`` is the folder of the file. Any other stays as it is.

    Raises
    ------
    BadRecording
        Where the file is damaged or holds something else than documents. What is complete
        before that place has been given out.
    """
    path = Path(path)
    run: str | None = None
    if is_saved(path):
        for name, made in read_saved(path):
            run = made["uid"] if name == "start" else run
            yield Recorded(run, name, made, str(path))
        return
    try:
        for where, value in _values(path, define or {}):
            for name, doc in _named(value, where, 0):
                if name == "start" and isinstance(doc.get("uid"), str):
                    run = doc["uid"]
                yield Recorded(run, name, doc, where)
    except MemoryError:
        raise BadRecording(
            f"{path}: there is not enough memory for what it says it holds"
        ) from None
    except (*_UNREADABLE, *_BAD_ZIP) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadRecording(f"{path}: damaged or unreadable: {reason}") from error


def _named(value: Any, where: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The documents in a value: one, a list of them, a list or mapping of runs."""
    pair = [value.get("name"), value.get("doc")] if isinstance(value, dict) else value
    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
        if isinstance(pair[1], dict):
            yield pair[0], pair[1]
            return
    elif isinstance(value, (list, dict)) and depth < DEEPEST:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _named(item, where, depth + 1)
        return
    raise BadRecording(f'{where}: no document, neither [name, document] nor {{"name", "doc"}}')


def _values(path: Path, define: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Everything that stands where a document, a run or a list of runs should."""
    template = _Template(path.resolve().parent, define)
    with open_regular(path) as file:
        packed = os.fstat(file.fileno()).st_size
        if packed == 0:  # so are those of /proc, which may have no end
            raise BadRecording(f"{path}: the file is empty")
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
            raise BadRecording(f"{path}: no recording in this zip file")
        for info in members:
            name = f"{path}!{info.filename}"
            with archive.open(info) as member:
                packed = min(info.compress_size, size)  # the former is only what the file says
                bounded = io.BufferedReader(_Bounded(member, name, packed))
                yield from _stream_values(name, bounded, packed, _most(packed), template)


def _is_member(info: zipfile.ZipInfo) -> bool:
    *folders, name = info.filename.split("/")
    if info.is_dir() or any(f.startswith((".", "__MACOSX", "external_files")) for f in folders):
        return False
    return _may_be_recording(name) or (
        name.lower().endswith(".txt") and not name.lower().startswith("readme")
    )


def _stream_values(
    name: str, file: Any, packed: int, most: int, template: _Template, depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """What a file holds that has ``packed`` bytes, and unpacks to at most ``most``."""
    head = file.peek(16)[:16]
    if head[:2] == b"\x1f\x8b":
        if depth == MOST_GZIP:
            raise BadRecording(f"{name}: compressed by gzip more than {MOST_GZIP} times")
        unpacked = io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=file), name, packed))
        yield from _stream_values(name, unpacked, packed, _most(packed), template, depth + 1)
    elif not head:
        raise BadRecording(f"{name}: the file is empty")
    elif head[0] >> 4 in (8, 9) or 0xDC <= head[0] <= 0xDF:  # a mapping or an array
        yield from _msgpack_values(name, file, most)
    elif head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b""):
        yield from _text_values(name, file, template)
    else:
        raise BadRecording(f"{name}: neither JSON, JSON lines, msgpack, nor gzip or zip of these")


def _most(packed: int) -> int:
    """Bytes that a compressed file of some size may unpack to."""
    return max(LARGEST, RATIO * packed)


class _Bounded(io.RawIOBase):
    """Reads what unpacks from a compressed file, and refuses one that grows out of proportion."""

    def __init__(self, file: Any, name: str, packed: int) -> None:
        self._file, self._name = file, name
        self._left = _most(packed)

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
    """Fills the placeholders of recordings that are templates."""

    def __init__(self, folder: Path, define: Mapping[str, str]) -> None:
        self._define = {"root_path": folder.as_posix(), **define}

    def fill(self, text: str) -> str:
        """The text with known placeholders replaced, escaped as inside a JSON string."""
        if "{{" not in text:
            return text
        digest = hashlib.sha256(text.encode("utf8", "surrogatepass")).hexdigest()
        # Templates append the last group themselves.
        uuid = f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}"
        known = {"uuid": uuid, **self._define}

        def value(match: re.Match[str]) -> str:
            return json.dumps(known[match[1]])[1:-1] if match[1] in known else match[0]

        return _PLACEHOLDER.sub(value, text)


def _text_values(name: str, file: BinaryIO, template: _Template) -> Iterator[tuple[str, Any]]:
    """JSON lines if the first line is complete by itself, else one JSON text.

    The first line is the first that is not blank; those before it still count.
    """
    begin, first = 1, _decoded(name, 1, file.readline()).removeprefix("\ufeff")
    while first and not first.strip():
        begin, first = begin + 1, _decoded(name, begin + 1, file.readline())
    try:
        value = from_extended_json(template.fill(first))
    except (ValueError, RecursionError):
        rest = _read_rest(file)
        text = "\n" * (begin - 1) + first + _decoded(name, begin + 1, rest[0])
        yield from _whole_text(name, template.fill(text))
        if rest[1] is not None:
            raise rest[1] from None
        return
    yield f"{name}, line {begin}", value
    for number, line in enumerate(file, begin + 1):
        if line.strip():
            yield f"{name}, line {number}", _line_value(name, number, line, template)


def _read_rest(file: BinaryIO) -> tuple[bytes, Exception | None]:
    """All that follows, and the damage that it ends in, if any."""
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
        place = line + data.count(b"\n", 0, error.start)
        raise BadRecording(f"{name}, line {place}: no UTF-8 text: {error.reason}") from None


def _line_value(name: str, number: int, line: bytes, template: _Template) -> Any:
    try:
        return from_extended_json(template.fill(_decoded(name, number, line)))
    except json.JSONDecodeError as error:
        what = "truncated" if not line.endswith(b"\n") else "damaged"
        raise BadRecording(f"{name}, line {number}: {what} JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadRecording(f"{name}, line {number}: damaged JSON: {error}") from None


def _whole_text(name: str, text: str) -> Iterator[tuple[str, Any]]:
    """The value of a JSON text; of a damaged array, its complete elements and an error."""
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
    place = len(text) - len(text.lstrip()) + 1
    while text.lstrip().startswith("["):
        try:
            place = len(text) - len(text[place:].lstrip())
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            return
        yield value
        place = text.find(",", place) + 1 or len(text)


# -- msgpack ---------------------------------------------------------------------------------


def _msgpack_values(name: str, file: BinaryIO, most: int) -> Iterator[tuple[str, Any]]:
    """The items of at most so many bytes: a list takes memory for as many items as it announces."""
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
        except (ValueError, UnpackException, RecursionError, TypeError) as error:
            raise BadRecording(f"{name}, item {number + 1}: damaged msgpack: {error}") from None
        if not data:
            break
    if damage is None and end != read:  # at the end, tell() counts half an item too
        damage = BadRecording(f"{name}, item {number + 1}: truncated msgpack")
    if damage is not None:
        raise damage


def msgpack_array(mapping: dict[Any, Any]) -> Any:
    """Arrays and NumPy scalars as msgpack-numpy writes them; never its pickled ones."""
    marks = {key.decode() if isinstance(key, bytes) else key: key for key in mapping}
    if not {"nd", "type", "data"} <= marks.keys():
        return mapping
    is_array, kind, data = (mapping[marks[key]] for key in ("nd", "type", "data"))
    if not isinstance(data, bytes):
        raise ValueError("an array whose data are no bytes")
    dtype = plain_dtype(kind.decode() if isinstance(kind, bytes) else kind)
    values = np.frombuffer(data, dtype)
    if is_array and "shape" in marks:
        shape = mapping[marks["shape"]]
        if not len(values) and prod(shape[: list(shape).index(0)]) > MOST_EMPTY:
            raise ValueError(f"an array of the shape {shape} without values")
        return values.reshape(shape)
    if is_array or len(values) != 1:
        raise ValueError("an array without a shape")
    return values[0]
