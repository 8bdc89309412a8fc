"""Resolve a resource or stream_resource document to the path and parameters of a handler."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ...core.documents import plain
from ...core.errors import FillError
from .readable import ANYWHERE, ReadableRoots

MIMETYPES = {
    "AD_HDF5_SWMR_STREAM": "application/x-hdf5",
    "AD_TIFF": "multipart/related;type=image/tiff",
    "NPY_SEQ": "multipart/related;type=application/x-npy",
}
"""Mimetypes by spec, for stream resources from before there were mimetypes (event-model < 1.20)."""


@dataclass(frozen=True)
class ResolvedResource:
    """Description of a resource for tasks: small, picklable, without open files.

    Attributes
    ----------
    uid
        Uid of the document.
    spec
        Spec or mimetype, the latter in lower case and without blanks.
    paths
        Candidates for the path of the file or folder; see :attr:`path`. There are several only
        for a ``resource_path`` that begins with a slash.
    kwargs
        Keyword arguments of the handler: ``resource_kwargs`` or ``parameters``.
    stream
        Whether it is a stream resource.
    data_key
        Data key of a stream resource, else "".
    readable
        Limit on which files may be opened.
    """

    uid: str
    spec: str
    paths: tuple[str, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    data_key: str = ""
    readable: ReadableRoots = ANYWHERE

    @property
    def path(self) -> str:
        """The candidate that exists here; else one in a folder that exists, else the first.

        A path need not be a file, as some handlers make file names by adding to it.
        """
        if len(self.paths) == 1:
            return self.paths[0]
        folders = {path: os.path.dirname(path) for path in self.paths}
        # The root exists everywhere, so it says nothing of where the file is.
        in_folder = [p for p, folder in folders.items() if folder != "/" and os.path.isdir(folder)]
        found = [p for p in self.paths if os.path.lexists(p)]
        return [*found, *in_folder, *self.paths][0]


def resolve(
    resource: Mapping[str, Any],
    *,
    root_map: Mapping[str, str | os.PathLike[str]] | None = None,
    readable: ReadableRoots = ANYWHERE,
    stream: bool | None = None,
    where: str = "",
) -> ResolvedResource:
    """Determine where a resource's file is, without accessing it.

    Parameters
    ----------
    resource
        A ``resource`` or ``stream_resource`` document of any version of event-model.
    root_map
        Maps roots in documents to folders of this machine. A root that is not a key itself is
        mapped by the longest key that its path begins with, compared part by part.
    readable
        Limit on which files may be opened, checked when a file is opened.
    stream
        Whether it is a stream resource. If None, it is one if it has ``uri``, ``mimetype`` or
        ``parameters``.
    where
        Beginning of an error message: run, stream and key.

    Raises
    ------
    FillError
        If the document has no spec, its uri is malformed or has a scheme other than ``file``, a
        path contains a null character, or a path of Windows is not translated by ``root_map``.
    """
    if stream is None:
        stream = any(key in resource for key in ("uri", "mimetype", "parameters"))
    label = f"{where}: " if where else ""
    label += f"{'stream_resource' if stream else 'resource'} {resource.get('uid')!r}"
    # Stream resources of early versions of event-model have resource_kwargs, too.
    name = "parameters" if stream and resource.get("parameters") else "resource_kwargs"
    kwargs = resource.get(name) or {}
    if not isinstance(kwargs, Mapping):
        raise FillError(f"{label}: {name} must be a mapping, not {kwargs!r:.100}")
    roots = {key: _from_here(os.fspath(folder)) for key, folder in (root_map or {}).items()}
    if resource.get("uri"):
        paths = _paths_of_uri(str(resource["uri"]), roots, label)
    else:
        paths = _paths_below_root(resource, roots, label)
    return ResolvedResource(
        uid=str(resource.get("uid", "")),
        spec=_spec(resource, stream=stream, label=label),
        paths=paths,
        kwargs=plain(dict(kwargs)),
        stream=stream,
        data_key=str(resource.get("data_key", "")) if stream else "",
        readable=readable,
    )


def _spec(resource: Mapping[str, Any], *, stream: bool, label: str) -> str:
    spec = spec_of(resource)
    if not spec:
        raise FillError(f"{label}: has neither 'spec' nor 'mimetype', so its format is not known")
    if stream and not resource.get("mimetype"):
        return normal_spec(MIMETYPES.get(spec, spec))
    return spec


def spec_of(resource: Mapping[str, Any]) -> str:
    """Return the mimetype of a resource, or else its spec; "" if it has neither."""
    return normal_spec(str(resource.get("mimetype") or resource.get("spec") or ""))


def normal_spec(spec: str) -> str:
    """Return a mimetype in lower case and without blanks; other specs unchanged."""
    return "".join(spec.split()).lower() if "/" in spec else spec


# -- uris ------------------------------------------------------------------------------------


def _paths_of_uri(uri: str, roots: Mapping[str, str], label: str) -> tuple[str, ...]:
    """Return the path of a ``file:`` uri, with %-escapes undone and its root translated."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError as error:
        raise FillError(f"{label}: its uri is malformed: {error}") from None
    if parts.scheme.lower() != "file" or parts.netloc.lower() not in ("", "localhost"):
        shown = f"{parts.scheme}://{host or ''}{parts.path}"  # may hold a password
        raise FillError(
            f"{label}: {shown!r} is not a file of this machine; only file: uris can be read"
        )
    # What urlsplit takes for a query or a fragment is part of the name of a file.
    rest = uri.partition(":")[2]
    if rest.startswith("//"):
        rest = rest[2:].partition("/")[2]
    path = _checked("/" + unquote(rest).lstrip("/"), label)
    windows = bool(PureWindowsPath(path[1:]).drive)
    path = path[1:] if windows else path
    return (_here(_mapped(path, roots, windows=windows), path, label),)


# -- root and resource_path ------------------------------------------------------------------


def _paths_below_root(
    resource: Mapping[str, Any], roots: Mapping[str, str], label: str
) -> tuple[str, ...]:
    """Return the candidates for the path of a document with ``root`` and ``resource_path``.

    Databroker joins the two as ``os.path.join`` does, so a ``resource_path`` that begins with a
    slash is absolute; Bluesky's TiledWriter takes it as relative to the root. Recorded documents
    of both kinds exist, so both paths are candidates, databroker's first.
    """
    windows = resource.get("path_semantics") == "windows"
    root = _checked(str(resource.get("root") or ""), label)
    tail = _checked(str(resource.get("resource_path") or ""), label)
    base = _mapped(root, roots, windows=windows)
    drive = bool(windows and PureWindowsPath(tail).drive)
    posix_tail = _posix(tail, windows=windows)
    below = os.path.join(base, posix_tail.lstrip("/")) if posix_tail else base
    if not drive and not posix_tail.startswith("/"):
        return (_here(below, root, label),)
    alone = _here(_mapped(tail, roots, windows=windows), tail, label)
    if drive or not base:
        return (alone,)
    return tuple(dict.fromkeys((alone, _here(below, root, label))))


def _posix(path: str, *, windows: bool) -> str:
    """Return the path with slashes; a trailing one is kept."""
    return path.replace("\\", "/") if windows else path


def _mapped(path: str, roots: Mapping[str, str], *, windows: bool = False) -> str:
    """Return the path with its root translated, if a key of ``root_map`` fits."""
    if not roots:
        return _posix(path, windows=windows)
    if path in roots:
        return roots[path]
    parts = _names(path, windows=windows)
    for key in sorted(roots, key=len, reverse=True):
        head = _names(key, windows=windows)
        if head and _alike(parts[: len(head)], windows=windows) == _alike(head, windows=windows):
            last = "/" if _posix(path, windows=windows).endswith("/") else ""
            return os.path.join(roots[key], "/".join(parts[len(head) :]) + last)
    return _posix(path, windows=windows)


def _names(path: str, *, windows: bool) -> tuple[str, ...]:
    return (PureWindowsPath if windows else PurePosixPath)(path).parts


def _alike(names: tuple[str, ...], *, windows: bool) -> tuple[str, ...]:
    return tuple(part.casefold() for part in names) if windows else names


def _here(path: str, original: str, label: str) -> str:
    """Return the absolute path, relative ones from the working directory on.

    Raises
    ------
    FillError
        If it has a drive of Windows and this is another system.
    """
    if os.name != "nt" and PureWindowsPath(path).drive and not path.startswith("/"):
        raise FillError(
            f"{label}: {original!r} is a Windows path; set root_map={{{original!r}: folder}} to "
            "the folder on this machine"
        )
    return _from_here(path)


def _from_here(path: str) -> str:
    # Not abspath: it removes ".." textually, which after a link gives another folder.
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _checked(path: str, label: str) -> str:
    if "\0" in path:
        raise FillError(f"{label}: the path {path!r} contains a null character")
    return path
