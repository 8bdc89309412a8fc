"""Names of variables and streams as files have them, where ``/`` divides groups.

``/`` becomes ``%2F``; the names ``.`` and ``..``, which mean places in paths, become ``%2E`` and
``%2E%2E``. A name that has one of these itself gets ``%25`` in place of its ``%``, so that no two
names become equal, and each comes back as it was.
"""

from __future__ import annotations

import re

__all__ = ["group_name", "of_group_name"]

_ESCAPE = re.compile("%((?:25)*)2([EF])")
_CHARACTERS = {"E": ".", "F": "/"}


def group_name(name: str) -> str:
    """Return a name as files have it; see the module's documentation."""
    found = _ESCAPE.sub(r"%25\g<1>2\g<2>", name).replace("/", "%2F")
    return found.replace(".", "%2E") if found in (".", "..") else found


def of_group_name(name: str) -> str:
    """Return the name that :func:`group_name` has made another of."""
    return _ESCAPE.sub(lambda m: f"%{m[1][2:]}2{m[2]}" if m[1] else _CHARACTERS[m[2]], name)
