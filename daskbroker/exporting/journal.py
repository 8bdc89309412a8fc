"""Which runs a folder of exports has whole, so that an export that was interrupted goes on.

A file ``.daskbroker-export.jsonl`` in the folder gets a line for each run when all its files have
their names: its uid, that of its stop, what was asked, and the size of each file. A run is whole if
it had ended, was exported in the same way, and its files are there in the size that they had.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import ALL
from .options import ExportOptions, storing

if TYPE_CHECKING:
    from ..header import Header

__all__ = ["ExportJournal"]

NAME = ".daskbroker-export.jsonl"


class ExportJournal:
    """What was exported to a folder.

    Parameters
    ----------
    folder
        Of the exports.
    options
        What is asked now.
    """

    def __init__(self, folder: Path, options: ExportOptions) -> None:
        self._folder = folder
        self._asked = _told(options)
        self._whole: dict[str, dict[str, Any]] = {}
        for line in _lines(folder / NAME):
            if line.get("asked") == self._asked:
                self._whole[line["run"]] = line

    def has(self, header: Header) -> bool:
        """Whether all files of a run are there."""
        known, stop = self._whole.get(header.uid), header.known_stop
        if known is None or stop is None or known.get("stop") != stop["uid"]:
            return False
        sizes = known.get("files")
        return isinstance(sizes, dict) and all(
            _size(self._folder / name) == size for name, size in sizes.items()
        )

    def note(self, header: Header, files: Iterable[Path]) -> None:
        """Remember a run whose files all have their names."""
        stop = header.known_stop
        if stop is None:
            return
        sizes = {path.relative_to(self._folder).as_posix(): _size(path) for path in files}
        line = {"run": header.uid, "stop": stop["uid"], "asked": self._asked, "files": sizes}
        place = self._folder / NAME
        with storing(place):
            self._folder.mkdir(parents=True, exist_ok=True)
            # In one write, as others may add to it; before it, a line that was cut off is ended.
            begin = b"\n" if _is_cut_off(place) else b""
            with place.open("ab", buffering=0) as file:
                file.write(begin + json.dumps(line).encode() + b"\n")


def _told(options: ExportOptions) -> dict[str, Any]:
    """What is asked, as JSON has it."""
    found = asdict(options)
    del found["verify"]
    found["stream"] = None if options.stream is ALL else str(options.stream)
    found["files"] = None if options.files is None else os.path.abspath(options.files)
    found["to"] = None if options.to is None else dict(options.to)
    return found


def _lines(place: Path) -> list[dict[str, Any]]:
    """All that can be read: the last one may be cut off."""
    found = []
    with storing(place):
        try:
            text = place.read_text(encoding="utf8", errors="replace")
        except FileNotFoundError:
            return []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("run"), str):
            found.append(entry)
    return found


def _is_cut_off(place: Path) -> bool:
    try:
        with place.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # there is none, or it is empty
        return False


def _size(path: Path) -> int | None:
    """Bytes of a file, or of all files in a folder; None where there is nothing."""
    if path.is_dir():
        return sum(os.path.getsize(Path(p, n)) for p, _, names in os.walk(path) for n in names)
    try:
        return path.stat().st_size
    except OSError:
        return None
