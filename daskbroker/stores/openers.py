"""How stores are found: by the entry points of group ``daskbroker.stores``.

The name of an entry point is the scheme of a URI (``file`` for folders). What it names is called
as ``opener(settings, create=…)`` and returns :class:`~daskbroker.stores.contract.Opened`.
"""

from __future__ import annotations

from collections.abc import Callable
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
    found = [entry for entry in entry_points(group=GROUP) if entry.name == scheme]
    if not found and scheme in OURS:
        found = [EntryPoint(scheme, OURS[scheme], GROUP)]
    if not found:
        raise ConfigError(
            f"no store opens {scheme}://; there are: {listed(schemes(), scheme)}. A package adds "
            f"one by an entry point of the group {GROUP!r}"
        )
    try:
        opener: Opener = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the store of {scheme}:// cannot be imported from {found[0].value!r}: {error}"
        ) from error
    return opener
