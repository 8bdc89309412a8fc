"""What references call files: as they are here, or as others see them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...assets.handlers.stored_frames import NoReference
from ...core.errors import BadQuery

__all__ = ["location_of"]


def location_of(path: str, to: Mapping[str, str] | None) -> str:
    """The URL of a file.

    Parameters
    ----------
    path
        Of the file here.
    to
        From folders here to what they are called elsewhere: URLs, or other folders. The longest
        one that the path is below counts.

    Raises
    ------
    BadQuery
        If none of these folders fits.
    NoReference
        For a path that is no text, or that readers would take for a template.
    """
    found = os.path.abspath(path) if to is None else _mapped(path, to)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise NoReference(f"the name of {path!r} is no text") from None
    if "{{" in found:
        raise NoReference(f"readers of references take {found!r} for a template")
    return found if "://" in found else f"file://{found}"


def _mapped(path: str, to: Mapping[str, str]) -> str:
    for folder in sorted(to, key=len, reverse=True):
        begin = folder.rstrip("/") + "/"
        if path.startswith(begin):
            return f"{to[folder].rstrip('/')}/{path[len(begin) :]}"
    raise BadQuery(
        f"to= says of no folder of {path!r} what it is called elsewhere; it has "
        f"{', '.join(map(repr, to)) or 'none'}. {{'/': '/'}} leaves all others as they are"
    )
