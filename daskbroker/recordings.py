"""Recorded documents in files: finding, reading and ingesting them.

What is read: JSON (arrays of ``[name, document]`` or ``{"name", "doc"}``, lists of runs,
mappings of labels to runs), JSON lines, msgpack with msgpack-numpy arrays; gzip of any of
these; zip with any number of them. The content decides, not the name of the file.

Files come from anywhere, so nothing in them is unpickled, executed or written to disk, and
what a compressed file may grow to is bounded (`MAX_UNPACKED`, `MAX_RATIO`).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
import numpy as np

from .core.errors import BadDocument, BadRecording, DaskbrokerError

if TYPE_CHECKING:
    from .broker import DataBroker

__all__ = [
    "MAX_RATIO",
    "MAX_UNPACKED",
    "IngestReport",
    "Recorded",
    "Refusal",
    "find_recordings",
    "ingest",
    "read_recording",
]

MAX_UNPACKED = 16 << 30
"""Bytes that one compressed file (all members of a zip together) may unpack to."""

MAX_RATIO = 250
"""How many times its packed size a compressed file may take in memory at once."""

_RATIO_FROM = 64 << 20  # small files may compress as well as they like
_BLOCK = 1 << 18
_MAX_LEVELS = 8  # of lists and labels around documents
_MAX_REFUSALS = 1000
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".msgpack", ".json.txt", ".jsonl.txt")
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*(.)', re.DOTALL)
_DECODER = json.JSONDecoder()


class Recorded(NamedTuple):
    """One document of a recording."""

    run: str | None
    """Uid of the start document it follows; None before the first."""
    name: str
    doc: Mapping[str, Any]
    where: str
    """File, and line or item, for messages."""


# -- finding -------------------------------------------------------------------------------


def find_recordings(path: str | os.PathLike[str]) -> list[Path]:
    """The files below a folder that may be recordings, sorted; a file is itself the answer.

    Hidden files, READMEs, manifests, catalog files and folders of external files are passed
    over, and so is what has no suffix of a recording. A file named explicitly is always given.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no such file or folder: {root}")
    if not root.is_dir():
        return [root]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "external_files"]
        found += [Path(folder, file) for file in files if _may_be_recording(file)]
    return sorted(found)


def _may_be_recording(file: str) -> bool:
    name = file.lower()
    if name.startswith((".", "readme", "catalog.")) or "manifest" in name:
        return False
    return name.endswith(".zip") or name.removesuffix(".gz").endswith(_SUFFIXES)


# -- reading -------------------------------------------------------------------------------


def read_recording(
    path: str | os.PathLike[str], define: Mapping[str, str] | None = None
) -> Iterator[Recorded]:
    """The documents of a file, one by one, in its order.

    JSON lines and msgpack are streamed. Of a JSON array the text is held, not the documents.

    Parameters
    ----------
    path
        A file in any of the known forms.
    define
        Values of placeholders ``{{ name }}`` inside JSON. ``uuid`` is derived from the content
        if not given, so reading a template again gives the same run; ``root_path`` is the folder
        of the file.

    Raises
    ------
    BadRecording
        Where the file is damaged or holds something else than documents. What stands before
        that place has been given out.
    """
    with closing(_sources(Path(path))) as sources:
        for source in sources:
            yield from _read(source, define)


@dataclass
class _Source:
    """One file, or one member of a zip."""

    name: str
    folder: Path
    size: int
    packed: bool
    opener: Callable[[], Any]
    unpacked: int = 0


def _sources(path: Path) -> Generator[_Source]:
    """The file itself, or the members of a zip."""
    try:
        folder, size = path.resolve().parent, path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as error:
        raise _unreadable(str(path), error) from error
    if head != b"PK\x03\x04" and head != b"PK\x05\x06":
        yield _Source(str(path), folder, size, False, partial(open, path, "rb"))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise BadRecording(f"{path}: damaged zip file: {error}") from error
    with archive:
        members = [info for info in archive.infolist() if _may_be_member(info)]
        if not members:
            raise BadRecording(f"{path}: no recording in this zip file")
        total = sum(info.file_size for info in members)
        if total > MAX_UNPACKED:
            raise BadRecording(f"{path}: unpacks to {total:,} bytes; the limit is {MAX_UNPACKED:,}")
        unpacked = 0
        for info in members:
            source = _Source(
                f"{path}!{info.filename}",
                folder,
                info.compress_size,
                True,
                partial(archive.open, info),
                unpacked,
            )
            yield source
            unpacked = source.unpacked


def _may_be_member(info: zipfile.ZipInfo) -> bool:
    folders, _, name = info.filename.rpartition("/")
    if info.is_dir() or any(f.startswith((".", "__MACOSX")) for f in folders.split("/")):
        return False
    # In a zip a plain .txt is more often documents than not; READMEs are out already.
    name = name.lower().removesuffix(".txt") + ".json" if name.endswith(".txt") else name
    return _may_be_recording(name) and "external_files" not in folders.split("/")


def _unreadable(name: str, error: BaseException) -> BadRecording:
    return BadRecording(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}")


class _Unpacking(io.RawIOBase):
    """Reads an open file, compressed or not; counts, bounds, and names what goes wrong."""

    def __init__(self, file: Any, source: _Source, *, counts: bool) -> None:
        self._file, self._source, self._counts, self._done = file, source, counts, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        source = self._source
        try:
            data = self._file.read1(len(buffer))
        except BadRecording:
            raise
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
            # RuntimeError: a zip member with a password; NotImplementedError is one of these.
            raise BadRecording(
                f"{source.name}: damaged or unreadable after {self._done:,} bytes: {error}"
            ) from error
        self._done += len(data)
        if self._counts:
            source.unpacked += len(data)
            if source.unpacked > MAX_UNPACKED:
                raise BadRecording(f"{source.name}: unpacks to more than {MAX_UNPACKED:,} bytes")
        buffer[: len(data)] = data
        return len(data)


class _Stream:
    """The unpacked bytes of a source, with a bound on how many are held at once."""

    def __init__(self, source: _Source, stack: ExitStack, *, counts: bool = True) -> None:
        self.source, self.packed = source, source.packed
        try:
            file = stack.enter_context(source.opener())
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            raise _unreadable(source.name, error) from error
        self._file = io.BufferedReader(_Unpacking(file, source, counts=counts and self.packed))
        for _ in range(2):  # a gzip of a gzip, and no further
            if self.peek()[:2] == b"\x1f\x8b":
                inner = stack.enter_context(gzip.GzipFile(fileobj=self._file))
                self.packed = True
                self._file = io.BufferedReader(_Unpacking(inner, source, counts=counts))

    def peek(self) -> bytes:
        return self._file.peek(16)

    def block(self) -> bytes:
        return self._file.read1(_BLOCK)

    def hold(self, size: int) -> None:
        """Refuse to keep so many bytes of a file that is tiny itself."""
        if self.packed and size > max(_RATIO_FROM, MAX_RATIO * self.source.size):
            raise BadRecording(
                f"{self.source.name}: refused, one piece of it unpacks to over {size:,} bytes, "
                f"more than {MAX_RATIO} times the size of the file"
            )

    def line(self) -> bytes:
        parts, size = [], 0
        while part := self._file.readline(_BLOCK):
            parts.append(part)
            size += len(part)
            self.hold(size)
            if part.endswith(b"\n"):
                break
        return b"".join(parts)

    def rest(self) -> tuple[bytes, BadRecording | None]:
        """All that follows; if that ends in damage, what comes before it and the error."""
        parts, size = [], 0
        try:
            while part := self.block():
                parts.append(part)
                size += len(part)
                self.hold(size)
        except BadRecording as error:
            return b"".join(parts), error
        return b"".join(parts), None


def _read(source: _Source, define: Mapping[str, str] | None) -> Iterator[Recorded]:
    run = None
    with ExitStack() as stack:
        stream = _Stream(source, stack)
        for place, value in _values(stream, _Template(source, define or {})):
            where = f"{source.name}, {place}"
            named = _named(value)
            if named is None:
                raise BadRecording(
                    f'{where}: no document, neither [name, document] nor {{"name", "doc"}}'
                )
            name, doc = named
            if name == "start":
                run = doc["uid"] if isinstance(doc.get("uid"), str) else None
            yield Recorded(run, name, doc, where)


def _named(value: Any) -> tuple[str, Mapping[str, Any]] | None:
    if isinstance(value, dict):
        value = [value.get("name"), value.get("doc")]
    if isinstance(value, list) and len(value) == 2:
        name, doc = value
        if isinstance(name, str) and isinstance(doc, dict):
            return name, doc
    return None


def _values(stream: _Stream, template: _Template) -> Iterator[tuple[str, Any]]:
    """Place and value of everything that stands where a document should."""
    name, head = stream.source.name, stream.peek()
    if not head:
        raise BadRecording(f"{name}: the file is empty")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadRecording(f"{name}: text in UTF-16; only UTF-8 is read")
    if head[:4] == b"PK\x03\x04":
        raise BadRecording(f"{name}: a zip file inside a compressed file is not read")
    if head[0] >> 4 in (8, 9) or 0xDC <= head[0] <= 0xDF:  # msgpack: a mapping or an array
        return _msgpack_values(stream)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b""):
        return _text_values(stream, template)
    raise BadRecording(f"{name}: neither JSON, JSON lines, msgpack, nor gzip or zip of these")


# -- JSON ----------------------------------------------------------------------------------


class _Damage(Exception):
    """Something wrong at a place of a text."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


class _Template:
    """Fills the placeholders of recordings that are templates."""

    def __init__(self, source: _Source, define: Mapping[str, str]) -> None:
        self._source = source
        self._known = {"root_path": source.folder.as_posix(), **define}

    def fill(self, text: str) -> str:
        """The text with its placeholders replaced, escaped as inside a JSON string."""
        return _PLACEHOLDER.sub(self._value, text) if "{{" in text else text

    def _value(self, match: re.Match[str]) -> str:
        name = match[1]
        if name == "uuid" and name not in self._known:
            self._known[name] = self._uuid()
        if name not in self._known:
            raise _Damage(
                match.start(),
                f"unknown placeholder {match[0]}: give it a value with --define {name}=VALUE",
            )
        return json.dumps(self._known[name])[1:-1]

    def _uuid(self) -> str:
        """The first four groups of a uuid made of the content and what is filled into it."""
        digest, names, tail = hashlib.sha256(), set(), ""
        with ExitStack() as stack:
            stream = _Stream(self._source, stack, counts=False)
            while block := stream.block():
                digest.update(block)
                tail = tail[-200:] + block.decode("utf-8", "replace")
                names.update(_PLACEHOLDER.findall(tail))
        for name in sorted(names & self._known.keys()):
            digest.update(f"\0{name}={self._known[name]}".encode())
        code = digest.hexdigest()
        return f"{code[:8]}-{code[8:12]}-4{code[13:16]}-a{code[17:20]}"


def _text_values(stream: _Stream, template: _Template) -> Iterator[tuple[str, Any]]:
    """JSON lines if the first line is complete by itself, else one JSON text."""
    name, number, line = stream.source.name, 0, b""
    while not line.strip():  # blank lines at the top
        line, number = stream.line().removeprefix(b"\xef\xbb\xbf"), number + 1
        if not line:
            raise BadRecording(f"{name}: the file is empty")
    if _goes_on(line):
        rest, damage = stream.rest()
        yield from _whole(name, line + rest, template, number, damage)
        return
    while line:
        if line.strip():
            yield from _whole(name, line, template, number, None, lines=True)
        line, number = stream.line(), number + 1


def _goes_on(line: bytes) -> bool:
    """Whether the first line is only the beginning of a JSON text."""
    try:
        text = line.decode("utf-8").rstrip()
        _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except (ValueError, RecursionError):
        pass  # the message is made where the line is read
    return False


def _whole(
    name: str,
    data: bytes,
    template: _Template,
    line: int,
    damage: BadRecording | None,
    *,
    lines: bool = False,
) -> Iterator[tuple[str, Any]]:
    """The values of a JSON text of which one line or all lines are at hand."""
    text, last, number = "", 0, 0
    try:
        text, damage = _decoded(name, data, line, damage)
        text = template.fill(text)
        position = _SPACE.match(text).end()  # type: ignore[union-attr]
        while position < len(text):
            position = yield from _numbered(text, position, line, lines)
            position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
    except _Damage as error:
        if damage is None:
            place = line + text.count("\n", 0, error.position)
            damage = BadRecording(f"{name}, line {place}: {error}")
    if damage is not None:
        raise damage
