"""The process-wide registry of brokers: one broker per configuration.

Headers, Results and brokers pickle as their configuration and unpickle through here, so a
thousand headers on a worker share one broker and its connections (the manifesto's "global
registry of known DataBroker").
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from .forking import ProcessLock

__all__ = [
    "broker_of",
    "key_of",
    "known",
    "known_or_opened",
    "opened",
    "reader_of",
    "register_opener",
    "remember",
]

_brokers: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_recent: dict[str, Any] = {}
_lock = ProcessLock()
_openers: list[Callable[[str], Any]] = []
_keys: list[Callable[..., str]] = []

KEPT = 16
"""So many brokers, opened by unpickling, stay open although nothing refers to them."""


def register_opener(opener: Callable[[str], Any], key_of: Callable[..., str]) -> None:
    """Say what opens a broker by its key, and makes keys; the package does it at import."""
    _openers[:] = [opener]
    _keys[:] = [key_of]


def key_of(uri: str, **options: Any) -> str:
    """By what another process opens a broker at a place, with options as a YAML file has them.

    Raises
    ------
    ConfigError
        If nothing opens the place, or an option means nothing in another process.
    """
    return _keys[0](uri, **options)


def remember(key: str, broker: Any) -> None:
    """Make a broker known in this process under its configuration."""
    with _lock.held():
        _brokers[key] = broker


def known(key: str) -> Any | None:
    """The open broker of a configuration, if there is one in this process."""
    with _lock.held():
        broker = _brokers.get(key)
        return None if broker is None or broker.closed or not broker.is_in_place else broker


def known_or_opened(key: str, open_it: Callable[[], Any]) -> Any:
    """The open broker of a configuration, unless its place is gone, else a new one.

    Threads that ask for one broker get one: while it is opened the others wait.
    """
    with _lock.held():
        return known(key) or open_it()


def opened(key: str) -> Any:
    """The broker of a configuration, opened if this process has none yet; the caller holds it."""
    with _lock.held():
        return known(key) or _openers[0](key)


def broker_of(key: str) -> Any:
    """The same for brokers that nothing else may hold: the last few stay open."""
    with _lock.held():
        broker = known(key)
        if broker is None:
            broker = opened(key)
            _recent.pop(key, None)
            _recent[key] = broker
            while len(_recent) > KEPT:
                _recent.pop(next(iter(_recent)))
        return broker


def reader_of(key: str, source: str) -> Any:
    """The reader of an event source of a broker; what a reader pickles as that must not carry
    the password it was made with.
    """
    return broker_of(key).event_sources[source].store.reader
