"""The process-wide registry of brokers: one broker per configuration.

Headers, Results and brokers pickle as their configuration and unpickle through here, so a
thousand headers on a worker share one broker and its connections (the manifesto's "global
registry of known DataBroker").
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from .bounded_dict import BoundedDict
from .forking import ProcessLock

_brokers: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_lock = ProcessLock()
_openers: list[Callable[[str], Any]] = []
_keys: list[Callable[..., str]] = []

MOST_OPEN = 16
"""Maximum number of unpickled brokers that stay open although nothing refers to them."""
_recent: BoundedDict[str, Any] = BoundedDict(MOST_OPEN)


def register_opener(opener: Callable[[str], Any], key_of: Callable[..., str]) -> None:
    """Set the functions that open a broker by its key and make keys; called at import."""
    _openers[:] = [opener]
    _keys[:] = [key_of]


def key_of(uri: str, **options: Any) -> str:
    """Return the key by which another process opens the broker of a place.

    Parameters
    ----------
    uri
        Folder or URI of the store.
    **options
        Options as a YAML file has them.

    Raises
    ------
    ConfigError
        If no store opens the place, or an option cannot be used in another process.
    """
    return _keys[0](uri, **options)


def remember(key: str, broker: Any) -> None:
    """Register a broker in this process under its key; the reference to it is weak."""
    with _lock.lock():
        _brokers[key] = broker


def known(key: str) -> Any | None:
    """Return the open broker of a key in this process, or None if there is none.

    A broker that is closed, or whose place is gone, does not count.
    """
    with _lock.lock():
        broker = _brokers.get(key)
        return None if broker is None or broker.closed or not broker.is_in_place else broker


def known_or_opened(key: str, open_it: Callable[[], Any]) -> Any:
    """Return the open broker of a key as :func:`known`, else the one that a function opens.

    Threads that ask for the same broker get the same object: the others wait while it is opened.
    """
    with _lock.lock():
        return known(key) or open_it()


def opened(key: str) -> Any:
    """Return the broker of a key, opened unless this process has it; the caller must hold it."""
    with _lock.lock():
        return known(key) or _openers[0](key)


def broker_of(key: str) -> Any:
    """Return the broker of a key as :func:`opened`, and hold the last :data:`MOST_OPEN`."""
    with _lock.lock():
        broker = known(key)
        if broker is None:
            broker = _openers[0](key)
            _recent.put_last(key, broker)
        return broker


def reader_of(key: str, source: str) -> Any:
    """Return the reader of an event source of a broker.

    A reader that was made with a password pickles as a call of this, so as not to carry it.
    """
    return broker_of(key).event_sources[source].store.reader
