"""The log of an export folder: which runs are complete, so that an export can be resumed.

The file ``.daskbroker-export.jsonl`` in the folder gets a line for each run once all its files
have their names. The line has the uid of the run and of its stop, the options of the export, and
the size of each file. A run is complete if it had ended, was exported with the same options, and
its files are still there in the same sizes. References are complete only as long as the detector
files that they lead to have not changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import ALL
from .export_options import REFERRING, ExportOptions, storing
from .references.file_states import changed_here

if TYPE_CHECKING:
    from ..header import Header

NAME = ".daskbroker-export.jsonl"


class ExportLog:
    """The runs that were exported to a folder with some options.

    Parameters
    ----------
    folder
        Folder of the exports. It need not exist.
    options
        Options of this export. Runs that were exported with other options are ignored.
    """

    def __init__(self, folder: Path, options: ExportOptions) -> None:
        self._folder = folder
        self._asked = _told(options)
        self._refers = options.format in REFERRING
        self._complete: dict[str, dict[str, Any]] = {}
        for line in _lines(folder / NAME):
            if line.get("asked") == self._asked:
                self._complete[line["run"]] = line

    def has(self, header: Header) -> bool:
        """Return whether a run is complete in the folder; see the module's documentation."""
        known, stop = self._complete.get(header.uid), header.known_stop
        if known is None or stop is None or known.get("stop") != stop["uid"]:
            return False
        sizes = known.get("files")
        if not isinstance(sizes, dict):
            return False
        paths = {self._folder / name: size for name, size in sizes.items()}
        if any(_size(path) != size for path, size in paths.items()):
            return False
        return not (self._refers and any(map(changed_here, paths)))

    def note(self, header: Header, files: Iterable[Path]) -> None:
        """Add a run whose files all have their names. A run without a stop is ignored.

        Raises
        ------
        StoreFull, StoreReadOnly, StoreError
            If the journal cannot be written.
        """
        stop = header.known_stop
        if stop is None:
            return
        sizes = {path.relative_to(self._folder).as_posix(): _size(path) for path in files}
        line = {"run": header.uid, "stop": stop["uid"], "asked": self._asked, "files": sizes}
        path = self._folder / NAME
        with storing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            # One write, as other processes may append, too. A truncated last line is ended first.
            begin = b"\n" if _is_cut_off(path) else b""
            with path.open("ab", buffering=0) as file:
                file.write(begin + json.dumps(line).encode() + b"\n")


def _told(options: ExportOptions) -> dict[str, Any]:
    """Return the options that decide the content of files, as JSON has them."""
    found = asdict(options)
    del found["verify"]
    found["stream"] = None if options.stream is ALL else str(options.stream)
    found["files"] = None if options.files is None else os.path.abspath(options.files)
    found["to"] = None if options.to is None else dict(options.to)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the entries that can be read; the last line may be truncated."""
    found = []
    with storing(path):
        try:
            text = path.read_text(encoding="utf8", errors="replace")
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


def _is_cut_off(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # the file does not exist, or is empty
        return False


def _size(path: Path) -> int | None:
    """Return the bytes of a file, or of all files in a folder; None if nothing is there."""
    if path.is_dir():
        return sum(os.path.getsize(Path(p, n)) for p, _, names in os.walk(path) for n in names)
    try:
        return path.stat().st_size
    except OSError:
        return None
