"""Open brokers: ``connect``, ``temp``, and the keys by which pickled brokers are opened."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from .broker import DataBroker
from .configuration import (
    Settings,
    check_place,
    find_configuration,
    has_secret,
    list_configurations,
    place_settings,
    read_configuration,
    scheme_of,
    settings_of,
    target_of,
    unreadable_files,
)
from .core import advice, open_brokers
from .core.arguments import FLAG, NAME, accepts, instance
from .core.clock import resolved_zone
from .core.errors import ConfigError, StoreNotFound
from .core.forking import Origin
from .core.name_lists import listed
from .core.redaction import redacted
from .core.settings import setting
from .event_source import EventSource
from .header_source import HeaderSource
from .stores.embedded.opening import holds_store
from .stores.openers import opener_of

ENVIRONMENT = "DASKBROKER_URI"
MODES = ("r", "a")


def default_place() -> str:
    """Return the place that :func:`connect` opens without an argument."""
    chosen = os.environ.get(ENVIRONMENT)
    return chosen or str(Path(platformdirs.user_data_dir("daskbroker", appauthor=False)) / "store")


_PLACE = instance(
    "a path, a URI, the name of a configuration, or a mapping", str, os.PathLike, Mapping
)


@accepts(uri=_PLACE.or_none(), create=FLAG, mode=NAME.or_none(), timezone=NAME.or_none())
def connect(
    uri: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    create: bool = True,
    mode: str | None = None,
    timezone: str | None = None,
) -> DataBroker:
    """Open a broker, or return the one that is open in this process for the same settings.

    Parameters
    ----------
    uri
        One of:

        - a folder, as a :class:`~pathlib.Path` or as text with a slash (``"./data"``), which is
          made if it does not exist;
        - a URI such as ``mongodb://host/database``;
        - a YAML file; ``catalog.yml#name`` is one source of several;
        - a bare word: a store of that name in the current folder if there is one, else the name
          of a configuration as ``daskbroker config`` lists it. A bare word never makes a folder;
        - a mapping of what a YAML file would hold.

        If None, the value of ``$DASKBROKER_URI``, by the same rules, else a folder below the
        user's data directory.
    create
        Whether to make a store if there is none. If False, only an existing store is opened.
    mode
        ``"a"`` to read and insert, ``"r"`` to read only. If None, the mode of the configuration,
        else ``"a"``.
    timezone
        Time zone in which times are shown, and in which times without a zone are read: an IANA
        name, an offset such as ``"+01:00"``, or ``"local"`` for the zone of this machine, which
        is looked up now and passed to workers by its name. If None, the zone of the
        configuration, then ``daskbroker.timezone`` of dask's configuration, else UTC.

    Returns
    -------
    DataBroker

    Raises
    ------
    StoreNotFound
        If there is no store at the place, and none is to be made.
    StoreVersion
        If the store was written in a format newer than this daskbroker knows.
    StoreDamaged
        If a file or document of the store is missing or damaged.
    StoreReadOnly
        If a store has to be made or changed at a place that cannot be written to.
    ConfigError
        If the place, the mode or the time zone is not valid, or no configuration has the name.

    Notes
    -----
    A broker, and every object that is made from it, pickles as its settings. If the configuration
    holds a password and was given by name or file, they pickle as that name or file instead, and
    each worker reads its own copy. A password within a ``uri`` given here travels in the pickle.
    """
    request = _request_of(default_place() if uri is None else uri)
    try:
        return _opened(request, mode, timezone, create=create)
    except StoreNotFound as error:
        if uri is not None or os.environ.get(ENVIRONMENT):
            raise
        raise StoreNotFound(
            f"{error}, the default place; name another one by "
            f"{advice.opening('PLACE', as_option=True)}, or set {ENVIRONMENT}"
        ) from None


def _request_of(place: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return what a place stands for: settings, or a reference to a configuration."""
    if isinstance(place, Mapping):
        return {"configuration": place}
    path = os.fspath(place)
    check_place(path)
    if "://" in path:
        return place_settings(path)
    if path.partition("#")[0].endswith((".yml", ".yaml")) and not Path(path).is_dir():
        return {"file": str(Path(path).expanduser().absolute())}
    # A store in a folder of this name goes before a configuration.
    if isinstance(place, str) and _is_word(path) and not holds_store(path):
        if find_configuration(path) is None:
            raise _unknown_word(path)
        return {"named": path}
    return place_settings(path)


def _is_word(path: str) -> bool:
    """Return whether a text is a bare name rather than a path as users write one."""
    return path == Path(path).name and path != ".." and not path.startswith("~")


def _unknown_word(word: str) -> ConfigError:
    if not word:
        return ConfigError(
            "a place is needed, not empty text: '.' is the current folder, and without an argument "
            "connect() opens the default store"
        )
    there = f"a folder {word!r} is here, but it holds no store" if Path(word).is_dir() else ""
    there = there or _unreadable(word)
    return ConfigError(
        f"{word!r} is neither a store in the current folder nor the name of a configuration; "
        f"{there or f'the names are: {_names(word)}'}. A folder is given as a path, "
        f"{advice.opening(f'./{word}')}"
    )


def _unreadable(name: str) -> str:
    """Return which files of the configuration of a name cannot be read; empty if there are none."""
    files = unreadable_files(name)
    return f"not readable: {'; '.join(files)}" if files else ""


def _names(name: str) -> str:
    return listed(dict.fromkeys(found.name for found in list_configurations()), name)


def _opened(
    request: Mapping[str, Any], mode: str | None, timezone: str | None, *, create: bool
) -> DataBroker:
    """Return the broker of a request; open it unless this process has it open."""
    # databroker opens a temporary broker by this name; a configuration that has it goes first.
    if request.get("named") == "temp" and find_configuration("temp") is None:
        return temp(mode=mode, timezone=timezone)
    settings = _settings(request)
    settings["mode"] = settings.get("mode", "a") if mode is None else mode
    if settings["mode"] not in MODES:
        raise ConfigError(
            f"mode must be 'a' (read and insert) or 'r' (read), not {settings['mode']!r}"
        )
    # Resolved here, as it is part of the broker's key and has to be the same zone on its workers.
    default = setting("timezone")
    settings["timezone"] = resolved_zone(timezone or settings.get("timezone", default))
    # The key travels in pickles, so it names the configuration rather than hold its password.
    by_reference = has_secret(settings) and ("named" in request or "file" in request)
    chosen = {"mode": settings["mode"], "timezone": settings["timezone"]}
    key = json.dumps({**request, **chosen} if by_reference else settings, sort_keys=True)
    if by_reference:
        settings["origin"] = key

    def open_it() -> DataBroker:
        return _open(settings, key, create=create)

    return open_brokers.known_or_opened(key, open_it)


def _settings(request: Mapping[str, Any]) -> Settings:
    if "configuration" in request:
        return settings_of(request["configuration"])
    if "file" in request:
        return read_configuration(request["file"]).settings()
    if "named" not in request:
        return dict(request)
    name = request["named"]
    found = find_configuration(name)
    if found is None:
        raise ConfigError(
            f"there is no configuration {name!r} on this machine; "
            f"{_unreadable(name) or f'there are: {_names(name)}'} "
            "(on the command line, `daskbroker config --folders` shows where they are looked for)"
        )
    return found.settings()


def _open(settings: Settings, key: str, *, create: bool) -> DataBroker:
    setting("verify")  # a wrong value is an error now, not when the first chunk is read
    opened = opener_of(scheme_of(settings))(settings, create=create)
    filling = ("handlers", "root_map", "readable_roots")
    return DataBroker(
        HeaderSource(opened.headers),
        {name: EventSource(store) for name, store in opened.events.items()},
        timezone=settings["timezone"],
        uri=target_of(settings),
        key=key,
        **{name: settings[name] for name in filling if name in settings},
    )


def open_key(key: str) -> DataBroker:
    """Return the broker of a key: one of a pickle, or of a method of :class:`DataBroker`.

    A key that holds the settings themselves, as pickles do, opens an existing store only; one
    that refers to a configuration may make a store.
    """
    request: dict[str, Any] = json.loads(key)
    mode, timezone = request.get("mode"), request.get("timezone")
    asked = bool(request.keys() & {"named", "file", "configuration"})
    return _opened(request, mode, timezone, create=asked)


def key_of(uri: str, **options: Any) -> str:
    """Return the key of a broker that was put together by hand.

    Parameters
    ----------
    uri
        Folder or URI of its store.
    **options
        Further keys of daskbroker's own form of configuration.

    Returns
    -------
    str
        Settings of the configuration that these make, as JSON text.

    Raises
    ------
    ConfigError
        If an option is not valid, or no store opens the place.
    """
    settings = settings_of({"uri": uri, **options}, f"the broker of {redacted(uri)}")
    opener_of(scheme_of(settings))
    settings["mode"] = "a"
    return json.dumps(settings, sort_keys=True)


def temp(**options: Any) -> DataBroker:
    """Open a broker on a new temporary folder, which is deleted together with the broker.

    The folder is deleted when the broker is garbage-collected, at the latest when Python exits,
    and only by the process that made it.

    Parameters
    ----------
    **options
        Options of :func:`connect`.

    Returns
    -------
    DataBroker
    """
    folder = tempfile.mkdtemp(prefix="daskbroker-")
    broker = connect(folder, **options)
    weakref.finalize(broker, _remove, folder, Origin())
    return broker


def _remove(folder: str, origin: Origin) -> None:
    if origin.is_here():
        shutil.rmtree(folder, ignore_errors=True)
