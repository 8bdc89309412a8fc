"""URLs of files in references: their paths here, or their locations elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote

from ...assets.handlers.stored_frames import NoReference
from ...core.errors import BadQuery

QUOTED = ("http", "https")
"""Schemes whose URLs have quoted paths; with others fsspec takes paths as they are."""


def location_of(path: str, to: Mapping[str, str] | None) -> str:
    """Return the URL of a file.

    Parameters
    ----------
    path
        Path of the file on this machine.
    to
        Mapping from folders on this machine to their locations elsewhere, which are URLs or other
        folders. The longest folder that the path is below is used. If None, the URL has the path
        on this machine.

    Raises
    ------
    BadQuery
        If the path is below none of these folders.
    NoReference
        If the path is not valid Unicode, or readers would take it as a template.
    """
    found = os.path.abspath(path) if to is None else _mapped(path, to)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise NoReference(f"the name of {path!r} is not valid text") from None
    if "{{" in found:
        raise NoReference(f"readers of references interpret {found!r} as a template")
    return found if "://" in found else f"file://{found}"


def _mapped(path: str, to: Mapping[str, str]) -> str:
    for folder in sorted(to, key=len, reverse=True):
        begin = folder.rstrip("/") + "/"
        if path.startswith(begin):
            target, rest = to[folder].rstrip("/"), path[len(begin) :]
            is_quoted = target.partition("://")[0] in QUOTED
            return f"{target}/{quote(rest, errors='surrogateescape') if is_quoted else rest}"
    raise BadQuery(
        f"to= has no folder that contains {path!r}; it has "
        f"{', '.join(map(repr, to)) or 'none'}. {{'/': '/'}} leaves all others as they are"
    )
