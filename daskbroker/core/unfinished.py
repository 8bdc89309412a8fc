"""Names of unfinished files and folders, by which those of killed processes are found and removed.

A file that replaces another is written under a name of its own first. The name tells the machine,
the process and a digest of the final name: ``.<digest>.<machine>-<process>-<start>.<hex>.part``.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from .digests import digest_of

NAME = re.compile(
    r"\.(?P<digest>[0-9a-f]{16})"
    r"\.(?P<machine>[0-9a-f]{16})-(?P<process>\d+)-(?P<start>\d+)"
    r"\.[0-9a-f]{32}\.(?P<kind>part|old)"
)
OLDER = re.compile(r"\.[0-9a-f]{32}\.part")
"""Names that versions before this one gave, which do not tell the process."""
LONG_AGO = 24 * 3600
"""Seconds without a change after which the file of another machine is taken for abandoned."""


def unfinished(target: Path, suffix: str = "part") -> Path:
    """Return a path, new with each call, for what will replace a target.

    Parameters
    ----------
    target
        Path of the file or folder.
    suffix
        ``"part"``; or ``"old"`` for what is at the target and is about to be replaced.
    """
    process = os.getpid()
    owner = f"{_machine()}-{process}-{_start_of(process) or 0}"
    return target.with_name(f".{_digest(target.name)}.{owner}.{uuid4().hex}.{suffix}")


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that are gone have left unfinished in a folder.

    Files of processes on other machines are removed a day after their last change. What was
    replaced (``"old"``) is removed only if its target is there.
    """
    try:
        names = set(os.listdir(folder))
    except OSError:
        return
    targets: set[str] | None = None
    for name in names:
        found = NAME.fullmatch(name)
        if found is None and not OLDER.fullmatch(name):
            continue
        if found is not None and found["kind"] == "old":
            targets = {_digest(other) for other in names} if targets is None else targets
            if found["digest"] not in targets:
                continue
        path = folder / name
        if _is_abandoned(path, found):
            _remove(path)


def _is_abandoned(path: Path, name: re.Match[str] | None) -> bool:
    if name is None or name["machine"] != _machine():
        return _last_change(path) < time.time() - LONG_AGO
    return str(_start_of(int(name["process"]))) != name["start"]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _last_change(path: Path) -> float:
    """Return the time of the last change of a file, or of anything in a folder."""
    found = 0.0
    paths = [path, *(Path(parent, name) for parent, _, names in os.walk(path) for name in names)]
    for one in paths:
        with suppress(OSError):
            found = max(found, one.lstat().st_mtime)
    return found


def _digest(name: str) -> str:
    return digest_of(os.fsencode(name), 8)


@lru_cache(1)
def _machine() -> str:
    """Return what tells apart machines, their boots, and containers with processes of their own."""
    parts = [socket.gethostname()]
    # Systems without /proc are told apart by their names alone.
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest_of("\n".join(parts), 8)


def _start_of(process: int) -> int | None:
    """Return when a process was started, in units of the system's; None if there is no process.

    The time is 0 where the system does not tell it.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
        return int(status.rpartition(b")")[2].split()[19])  # after the name, which may be anything
    except (OSError, IndexError, ValueError):
        pass
    # Without /proc it is only known whether there is a process of this number.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return 0
    return 0
