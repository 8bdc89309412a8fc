r"""Names of variables and streams as files have them, where ``/`` divides groups.

=============================== =====================================================
of a name                       in files
=============================== =====================================================
``/``, ``\``                     ``%2F``, ``%5C``
control characters, which a     ``%00`` to ``%1F``, ``%7F`` to ``%9F``
terminal that lists files obeys
``.`` of a name that means a    ``%2E``
place in a path, or that Zarr
gives to files of its own
an empty name                   ``%``
=============================== =====================================================

A name that has one of these itself gets ``%25`` in place of its ``%``, so that no two names become
equal, and each comes back as it was.
"""

from __future__ import annotations

import re

_CONTROLS = {f"{code:02X}": chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}
_CHARACTERS = {"2E": ".", "2F": "/", "5C": "\\", **_CONTROLS}
_ESCAPE = re.compile(f"%((?:25)*)({'|'.join(_CHARACTERS)})")
_EMPTY = re.compile("%((?:25)*)")
_ALWAYS = str.maketrans({found: f"%{code}" for code, found in _CHARACTERS.items() if found != "."})
_TAKEN = frozenset({".", "..", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"})
"""Names that mean places in paths, and those of files that both formats of Zarr have in groups."""


def group_name(name: str) -> str:
    """Return a name as files have it; see the module's documentation."""
    if not name or _EMPTY.fullmatch(name):
        return f"{name}25" if name else "%"
    found = _ESCAPE.sub(r"%25\1\2", name).translate(_ALWAYS)
    return found.replace(".", "%2E") if found in _TAKEN else found


def of_group_name(name: str) -> str:
    """Return the name that :func:`group_name` has made another of."""
    if _EMPTY.fullmatch(name):
        return name.removesuffix("25") if name != "%" else ""
    return _ESCAPE.sub(lambda m: f"%{m[1][2:]}{m[2]}" if m[1] else _CHARACTERS[m[2]], name)
