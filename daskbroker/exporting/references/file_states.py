"""The detector files that references lead to, as they were, to notice those that changed since.

Readers of kerchunk's format do not notice that a file was replaced: they decode whatever bytes are
there now. So references are written with the size and the time of the last change of each file:
under the key ``"daskbroker"`` beside ``"refs"`` in JSON, in the file ``daskbroker-files.json`` of
a folder of Parquet files or of a repository of Icechunk. Readers ignore both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.arguments import MAPPING, accepts, instance
from ...core.errors import BadQuery
from ...core.file_identity import identity
from ..export_options import storing
from .collecting import StreamArrays
from .locations import location_of

STATES_KEY, NAME = "daskbroker", "daskbroker-files.json"
FILE_SCHEME = "file://"


@dataclass(frozen=True)
class ChangedFile:
    """A detector file that is not the one that references were made for.

    Attributes
    ----------
    url
        URL of the file in the references.
    reason
        Description of the change.
    """

    url: str
    reason: str

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"

    def to_dict(self) -> dict[str, str]:
        """Return the attributes as a dict."""
        return asdict(self)


def file_states(streams: Iterable[StreamArrays], to: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the state of each file that grids of frames lead to, as JSON has it.

    Parameters
    ----------
    streams
        Arrays of the streams.
    to
        See :func:`.locations.location_of`. If given, each state has the path on this machine, too.
    """
    found: dict[str, Any] = {}
    for stream in streams:
        for grid in stream.grids.values():
            for file in grid.files:
                if file.state is not None:
                    state = {"size": file.state[2], "mtime_ns": file.state[3]}
                    here = {} if to is None else {"path": file.path}
                    found[location_of(file.path, to)] = {**here, **state}
    return {"files": found}


def write_states(
    folder: Path, streams: Iterable[StreamArrays], to: Mapping[str, str] | None
) -> None:
    """Write the states of files into a folder of references."""
    (folder / NAME).write_text(json.dumps(file_states(streams, to)), encoding="utf8")


@accepts(
    references=instance("a path, or a mapping", str, os.PathLike, Mapping),
    storage_options=MAPPING.or_none(),
)
def verify_references(
    references: str | os.PathLike[str] | Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
) -> list[ChangedFile]:
    """Compare the detector files of references with what they were when these were made.

    Readers of kerchunk's format do not notice that a file was replaced: they return wrong frames,
    or an error of a codec. Files with paths of this machine are compared by size and by the time of
    their last change. Files whose folder got another name by ``to=`` are compared only by size, as
    copies have times of their own: another file of the same size is not noticed there.

    Parameters
    ----------
    references
        Path of what ``export(path, "references")`` or ``export(path, "icechunk")`` has written, or
        the mapping that :meth:`daskbroker.Header.references` returns.
    storage_options
        Options of fsspec for URLs, such as ``{"anon": True}`` for ``s3://``.

    Returns
    -------
    list of ChangedFile
        The files that are missing, of another size, or changed since. Empty if there are none.

    Raises
    ------
    BadQuery
        If the references do not have the states of their files: others have written them, or an
        older version of daskbroker.
    StoreError
        If the references cannot be read.
    """
    checked = ((url, _change(url, state, storage_options)) for url, state in _states(references))
    return [ChangedFile(url, reason) for url, reason in checked if reason is not None]


def changed_here(references: Path) -> bool:
    """Return whether a file on this machine has changed since references to it were written.

    Unlike :func:`verify_references` this looks at the files from which they were made, also if the
    references name others.
    """
    try:
        states = _states(references)
    except BadQuery:  # not known, so they are made again
        return True
    paths = ((state.get("path", url.removeprefix(FILE_SCHEME)), state) for url, state in states)
    return any(_local_change(path, state, is_copy=False) is not None for path, state in paths)


def _states(
    references: str | os.PathLike[str] | Mapping[str, Any],
) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(references, Mapping):
        name, content = "the references", references.get(STATES_KEY)
    else:
        name, content = f"{os.fspath(references)!r}", _read(Path(references))
        if content is None and Path(references).is_dir():
            raise BadQuery(
                f"{name} is a folder that holds no references itself; name the files in it"
            )
    files = content.get("files") if isinstance(content, Mapping) else None
    if not isinstance(files, Mapping):
        raise BadQuery(
            f"{name} do not tell the size and time of their files, by which replaced files are "
            "noticed: make them again by export(..., 'references')"
        )
    return list(files.items())


def _read(path: Path) -> Any:
    with storing(path):
        if not path.is_dir():
            source = path
        elif (path / NAME).exists():
            source = path / NAME
        else:
            return None
        text = source.read_text(encoding="utf8", errors="replace")
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content.get(STATES_KEY) if source == path and isinstance(content, Mapping) else content


def _change(url: str, state: Mapping[str, Any], options: Mapping[str, Any] | None) -> str | None:
    """Return how a file has changed; None if it has not."""
    if url.startswith(FILE_SCHEME):
        return _local_change(url.removeprefix(FILE_SCHEME), state, is_copy="path" in state)
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url, **(options or {}))
        size = system.info(path)["size"]
    except FileNotFoundError:
        return "there is no such file"
    except (ImportError, OSError, ValueError) as error:
        return f"cannot be looked at: {error}"
    return _size_change(size, state)


def _local_change(path: str, state: Mapping[str, Any], *, is_copy: bool) -> str | None:
    found = identity(path)
    if found is None:
        return "there is no such file"
    if is_copy or found[2] != state["size"]:
        return _size_change(found[2], state)
    return None if found[3] == state["mtime_ns"] else "was changed since, its size is the same"


def _size_change(size: int | None, state: Mapping[str, Any]) -> str | None:
    if size == state["size"]:
        return None
    return f"has {size or 0:,} bytes, and had {state['size']:,}"
