"""How stores are found: by the entry points of group ``daskbroker.stores``.

The name of an entry point is the scheme of a URI (``file`` for folders). What it names is called
as ``opener(settings, create=…)`` and returns :class:`~daskbroker.stores.contract.Opened`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from ..core.errors import ConfigError
from ..core.listing import listed
from .contract import Opened

__all__ = ["GROUP", "Opener", "opener_of", "schemes"]

GROUP = "daskbroker.stores"

Opener = Callable[..., Opened]
"""``opener(settings, *, create)``. ``settings`` is a mapping with ``uri`` (in its place, ours have
``mongo``, or ``embedded``, a path, and ``link``, the path that was given where it has symbolic
links), ``mode`` (``"r"`` or ``"a"``) and, where readers shall pickle as the reader of a broker,
``origin``, the broker's key. ``create`` is whether to make a store where there is none."""

OURS = {
    "file": "daskbroker.stores.embedded.opening:open_store",
    "mongodb": "daskbroker.stores.mongodb.opening:open_store",
    "mongodb+srv": "daskbroker.stores.mongodb.opening:open_store",
}
"""Also among the entry points; here for checkouts that are not installed."""


def schemes() -> list[str]:
    """Every scheme that can be opened, ours first."""
    return list(dict.fromkeys([*OURS, *(entry.name for entry in entry_points(group=GROUP))]))


def opener_of(scheme: str) -> Opener:
    """What opens the places of a scheme.

    Raises
    ------
    ConfigError
        If nothing does, or what does cannot be imported.
    """
    entry = _entry_of(scheme)
    if entry is None:
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
    """The entry points by their schemes, of packages on a path of imports.

    To look through all that is installed takes longer than to open a store.
    """
    del path  # the key: what is on another path is looked up anew
    return {entry.name: entry for entry in reversed(list(entry_points(group=GROUP)))}
