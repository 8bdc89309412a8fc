"""Forms of configuration, and their conversion to settings.

Three forms are understood: daskbroker's own (``uri``), databroker's of versions 0 and 1
(``metadatastore`` and ``assets``), and a source of a databroker 2 (intake) catalog
(``driver`` and ``args``). The meaning of their keys was read from databroker 1.2.5 and intake 0.6.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.name_lists import listed
from .places import Settings, mongo_uri, place_settings

OWN = (
    "uri", "assets", "layout", "mode", "timezone", "handlers", "root_map", "readable_roots",
    "description",
)  # fmt: skip
DRIVERS = {
    "bluesky-mongo-normalized-catalog": "normalized",
    "databroker._drivers.mongo_normalized.BlueskyMongoCatalog": "normalized",
    "bluesky-mongo-embedded-catalog": "embedded",
    "databroker._drivers.mongo_embedded.BlueskyMongoCatalog": "embedded",
}
"""Drivers of databroker's catalogs on MongoDB, with the layout of the database of each."""

RECORDINGS = ("jsonl", "msgpack")
STORES = {
    "metadatastore": ("databroker.headersource.mongo", ("MDS", "MDSRO")),
    "assets": ("databroker.assets.mongo", ("Registry", "RegistryRO")),
}
"""Module and classes of each half of a version 0 configuration that databroker 1.2.5 opens."""

_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_ENV = re.compile(r"env\(\s*['\"]?(\w+)['\"]?\s*\)")


def settings_of(content: Any, where: str = "configuration", folder: Path | None = None) -> Settings:
    """Return the settings that the content of a configuration describes.

    Parameters
    ----------
    content
        Content of any of the forms, or one source of a catalog.
    where
        Name of the configuration for messages.
    folder
        Folder of its file: relative paths are relative to it, and ``{{ CATALOG_DIR }}`` stands
        for it.

    Raises
    ------
    ConfigError
        If the content has no known form, or describes what this version does not open. The
        message names the key, and never a value that may be secret.
    """
    kind = configuration_form(content, where)
    content = _expanded(content, where, folder)
    return _FORMS[kind](content, where, folder)


def configuration_form(content: Any, where: str = "configuration") -> str:
    """Return the form of a content: ``"daskbroker"``, ``"databroker"`` (0 or 1) or ``"catalog"``.

    Raises
    ------
    ConfigError
        If the content has no known form.
    """
    if isinstance(content, Mapping):
        for key, kind in (("uri", "daskbroker"), ("metadatastore", "databroker"),
                          ("driver", "catalog"), ("sources", "catalog")):  # fmt: skip
            if key in content:
                return kind
    raise ConfigError(
        f"{where}: the form of the configuration is not known; it needs 'uri', or in "
        "databroker's form 'metadatastore' and 'assets', or 'sources'"
    )


def sources_of(content: Any) -> dict[str, Mapping[str, Any]] | None:
    """Return databroker's sources in a catalog, by name, or None if the content is no catalog."""
    sources = content.get("sources") if isinstance(content, Mapping) else None
    if not isinstance(sources, Mapping):
        return None
    return {str(name): source for name, source in sources.items() if _is_databroker(source)}


def _is_databroker(source: object) -> bool:
    return isinstance(source, Mapping) and any(
        driver in DRIVERS or _is_recordings(driver) for driver in _drivers(source)
    )


def _drivers(source: Mapping[str, Any]) -> list[str]:
    drivers = source.get("driver")
    return [str(driver) for driver in (drivers if isinstance(drivers, list) else [drivers])]


def _is_recordings(driver: str) -> bool:
    return driver.startswith(("bluesky-", "databroker.")) and any(k in driver for k in RECORDINGS)


def _own(content: Mapping[str, Any], where: str, folder: Path | None) -> Settings:
    unknown = [str(key) for key in content if key not in OWN]
    # A misspelled key would be ignored silently otherwise.
    if unknown:
        raise ConfigError(
            f"{where}: {listed(unknown)} is not a known key; known keys are {listed(OWN)}"
        )
    options = {key: _text(content, key, where) for key in ("assets", "layout") if key in content}
    settings = place_settings(_text(content, "uri", where), folder=folder, **options)
    for key in ("mode", "timezone"):
        if key in content:
            settings[key] = _text(content, key, where)
    return settings | _filling(content, "handlers", where, folder)


def _databroker(content: Mapping[str, Any], where: str, folder: Path | None) -> Settings:
    parts = {part: _store(content, part, where) for part in STORES}
    ignored = [key for key in ("event_sources", "transforms") if content.get(key)]
    if ignored:
        warnings.warn(
            f"{where}: daskbroker does not support {listed(ignored)} and ignores it", stacklevel=2
        )
    settings = place_settings(
        parts["metadatastore"], assets=parts["assets"], layout="normalized", folder=folder
    )
    zone = content["metadatastore"]["config"].get("timezone")
    if zone is not None:
        settings["timezone"] = str(zone)
    # Read-only classes of databroker.
    if str(content["metadatastore"].get("class")).endswith("RO"):
        settings["mode"] = "r"
    return settings | _filling(content, "handlers", where, folder)


def _store(content: Mapping[str, Any], half: str, where: str) -> str:
    """Return the URI of the database that one half of a version 0 configuration names."""
    module, classes = STORES[half]
    store = _mapping(content, half, where)
    # Other stores of databroker 0 are files of other formats.
    if store.get("module") != module or store.get("class") not in classes:
        raise ConfigError(
            f"{where}: {half} is of class {store.get('module')}.{store.get('class')}; only "
            f"MongoDB can be opened ({module}.{classes[0]}). Export such a store with databroker "
            "and insert the documents by 'daskbroker ingest'"
        )
    config = _mapping(store, "config", f"{where}: {half}")
    # It would not be clear which counts.
    if "uri" in config and ("host" in config or "port" in config):
        raise ConfigError(f"{where}: {half}.config has both 'uri' and 'host' or 'port'")
    base = config.get("uri") or f"mongodb://{config.get('host') or 'localhost'}"
    if config.get("port") is not None:
        base = f"{base}:{config['port']}"
    user, source = config.get("mongo_user"), config.get("authsource")
    return mongo_uri(
        str(base),
        _text(config, "database", f"{where}: {half}.config"),
        user=None if user is None else str(user),
        password=str(config.get("mongo_pwd", "")),
        auth_source=None if source is None else str(source),
    )


def _catalog(source: Mapping[str, Any], where: str, folder: Path | None) -> Settings:
    sources = sources_of(source)
    if sources is not None:
        # Only a single source needs no name.
        if len(sources) != 1:
            raise ConfigError(
                f"{where}: has the sources {listed(sources)}; say which, as in "
                f"'{where}#{next(iter(sources), 'name')}'"
            )
        source = next(iter(sources.values()))
    layout = _layout(source, where)
    args = _mapping(source, "args", where)
    if args.get("transforms"):
        warnings.warn(
            f"{where}: daskbroker does not support 'transforms' and ignores it", stacklevel=2
        )
    if layout == "embedded":
        settings = place_settings(_text(args, "datastore_db", where), layout=layout)
    else:
        settings = place_settings(
            _text(args, "metadatastore_db", where),
            assets=_text(args, "asset_registry_db", where),
            layout=layout,
        )
    return settings | _filling(args, "handler_registry", where, folder)


def _layout(source: Mapping[str, Any], where: str) -> str:
    drivers = _drivers(source)
    for driver in drivers:
        if driver in DRIVERS:
            return DRIVERS[driver]
        # A common mistake: recordings are not a store.
        if _is_recordings(driver):
            raise ConfigError(
                f"{where}: {driver} is a folder of recorded documents, not a store; insert them "
                "on the command line by `daskbroker ingest FOLDER --db STORE`, and open that store"
            )
    raise ConfigError(
        f"{where}: driver {drivers} is not a store that daskbroker can open; it can open "
        "bluesky-mongo-normalized-catalog and bluesky-mongo-embedded-catalog"
    )


_FORMS: dict[str, Callable[[Mapping[str, Any], str, Path | None], Settings]] = {
    "daskbroker": _own,
    "databroker": _databroker,
    "catalog": _catalog,
}


# -- what filling needs ----------------------------------------------------------------------


def _filling(
    content: Mapping[str, Any], handlers: str, where: str, folder: Path | None
) -> Settings:
    """Return handlers, root map and readable roots, as far as the content has them."""
    found: Settings = {}
    if content.get(handlers):
        registry = _mapping(content, handlers, where)
        found["handlers"] = {
            str(spec): _import_path(value, f"{where}: {handlers}.{spec}")
            for spec, value in registry.items()
        }
    if content.get("root_map"):
        found["root_map"] = {
            str(root): _absolute(target, f"{where}: root_map.{root}", folder)
            for root, target in _mapping(content, "root_map", where).items()
        }
    roots = content.get("readable_roots")
    if roots is not None:
        # A single text would be taken for a list of letters.
        if not isinstance(roots, list):
            raise ConfigError(f"{where}: 'readable_roots' must be a list of folders")
        found["readable_roots"] = [_absolute(r, f"{where}: readable_roots", folder) for r in roots]
    return found


def _import_path(value: object, where: str) -> str:
    """Return ``module:Class`` of a handler, whichever way it is written."""
    # Both forms are in databroker's documentation.
    if isinstance(value, Mapping) and {"module", "class"} <= value.keys():
        value = f"{value['module']}:{value['class']}"
    if isinstance(value, str):
        module, sign, name = value.rpartition(":" if ":" in value else ".")
        if sign and module and name.isidentifier():
            return f"{module}:{name}"
    raise ConfigError(f"{where}: a handler is written as 'module:Class', or as module and class")


def _absolute(path: object, where: str, folder: Path | None) -> str:
    if not isinstance(path, str) or not path:
        raise ConfigError(f"{where}: must be the path of a folder")
    full = Path(folder or "", os.path.expanduser(path))
    # Without a file there is no folder to be relative to.
    if not full.is_absolute():
        raise ConfigError(f"{where}: must be an absolute path if it is not given in a file")
    return os.path.normpath(full)


# -- values ----------------------------------------------------------------------------------


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {key!r} must be text that is not empty")
    return value


def _mapping(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {key!r} must be a mapping")
    return value


def _expanded(value: object, where: str, folder: Path | None) -> Any:
    """Replace ``{{ env(NAME) }}`` and ``{{ CATALOG_DIR }}`` in all values; no code is run."""
    if isinstance(value, Mapping):
        return {key: _expanded(item, where, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, where, folder) for item in value]
    # Numbers and other values have no placeholders.
    if not isinstance(value, str):
        return value
    return _PLACEHOLDER.sub(lambda found: _placeholder(found[1], where, folder), value)


def _placeholder(text: str, where: str, folder: Path | None) -> str:
    # Only files have a folder; the placeholder is intake's.
    if text == "CATALOG_DIR" and folder is not None:
        return str(folder)
    variable = _ENV.fullmatch(text)
    if variable is None:
        raise ConfigError(
            f"{where}: the placeholder {{{{ {text} }}}} is not a known placeholder; known ones are "
            "{{ env(NAME) }} and {{ CATALOG_DIR }}"
        )
    # An empty password or host would fail later, with a less clear error.
    if variable[1] not in os.environ:
        raise ConfigError(f"{where}: the environment variable {variable[1]} is not set")
    return os.environ[variable[1]]
