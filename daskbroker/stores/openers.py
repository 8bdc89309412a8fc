"""Finding the opener of a store, by the entry points of group ``daskbroker.stores``.

The name of an entry point is the scheme of a URI (``file`` for folders). Its object is called as
``opener(settings, create=…)`` and returns an :class:`~daskbroker.stores.contract.Opened`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from ..core.errors import ConfigError
from ..core.name_lists import listed
from .contract import Opened

GROUP = "daskbroker.stores"

Opener = Callable[..., Opened]
"""Function ``opener(settings, *, create)`` that opens a store.

``settings`` is a mapping with

- ``uri``; instead of it, daskbroker's own stores have ``mongo``, or ``embedded``, a path, and
  ``link``, the path as it was given if it has symbolic links;
- ``mode``, which is ``"r"`` or ``"a"``;
- ``origin``, the key of a broker, if readers are to pickle as the reader of that broker.

``create`` is whether to make a store if there is none.
"""

OURS = {
    "file": "daskbroker.stores.embedded.opening:open_store",
    "mongodb": "daskbroker.stores.mongodb.opening:open_store",
    "mongodb+srv": "daskbroker.stores.mongodb.opening:open_store",
}
"""Openers of daskbroker's own stores by scheme.

They are also entry points; this list serves checkouts that are not installed."""


def schemes() -> list[str]:
    """Return every scheme that can be opened, daskbroker's own first."""
    return list(dict.fromkeys([*OURS, *(entry.name for entry in entry_points(group=GROUP))]))


def opener_of(scheme: str) -> Opener:
    """Return the opener of a scheme.

    Raises
    ------
    ConfigError
        If there is no opener for it, or the opener cannot be imported.
    """
    entry = _entry_of(scheme)
    if entry is None:
        if scheme.endswith(("http", "https")):
            raise ConfigError(
                f"no store opens {scheme}://; runs in a Tiled server are copied by "
                "`daskbroker copy tiled+http://HOST:PORT STORE` on the command line, or by "
                "daskbroker.tiled.take_runs"
            )
        raise ConfigError(
            f"no store opens {scheme}://; there are: {listed(schemes(), scheme)}. A package adds "
            f"one by an entry point of the group {GROUP!r}"
        )
    try:
        opener: Opener = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the store of {scheme}:// cannot be imported from {entry.value!r}: {error}"
        ) from error
    return opener


def _entry_of(scheme: str) -> EntryPoint | None:
    path = tuple(sys.path)
    found = _entries(path).get(scheme)
    if found is None and scheme in OURS:
        return EntryPoint(scheme, OURS[scheme], GROUP)
    if found is None:
        _entries.cache_clear()  # a package may have been installed since
        found = _entries(path).get(scheme)
    return found


@lru_cache(maxsize=1)
def _entries(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return the entry points by scheme, of packages on an import path; cached.

    Looking through all installed packages takes longer than opening a store.
    """
    del path  # only the key of the cache: another import path is searched again
    return {entry.name: entry for entry in reversed(list(entry_points(group=GROUP)))}
