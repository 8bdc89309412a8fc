"""Configuration files: the folders that are searched for them, and how they are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from ..core.errors import ConfigError
from ..core.name_lists import listed
from .forms import configuration_form, settings_of, sources_of
from .places import Settings, target_of

ENVIRONMENT = "DASKBROKER_PATH"
SUFFIXES = (".yml", ".yaml")
LEGACY = "_legacy_config"
"""Name of the configuration that databroker opens by itself at import, and does not list."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration that has a name.

    Attributes
    ----------
    name
        Name by which :func:`daskbroker.connect` opens it: the file's name without suffix, or the
        name of a source in a catalog file.
    form
        Form of the content: ``"daskbroker"``, ``"databroker"`` (version 0 or 1) or
        ``"catalog"``.
    file
        Path of the file.
    content
        Content as YAML gives it; kept out of the repr, because it may hold a password.
    """

    name: str
    form: str
    file: Path
    content: Any = field(repr=False)

    def settings(self) -> Settings:
        """Return the content as settings; see :func:`settings_of`.

        Raises
        ------
        ConfigError
            If the content has no valid settings.
        """
        return settings_of(self.content, f"{self.name} ({self.file})", self.file.parent)

    def target(self) -> str:
        """Return the place that it opens, without password, or the reason why it opens none."""
        try:
            return target_of(self.settings())
        except ConfigError as error:
            return f"cannot be opened: {error}"


def search_folders() -> list[Path]:
    """Return the folders in which configurations are looked for, in order of precedence.

    These are ``$DASKBROKER_PATH``; the user's, the environment's and the machine's configuration
    folder of daskbroker; those of databroker (``~/.config``, ``<prefix>/etc``, ``/etc``;
    ``%APPDATA%`` on Windows); the folders of intake, where catalogs of databroker 2 are, and its
    ``catalog_path``, which may name single files, too.
    """
    prefix = Path(sys.prefix)
    folders = [Path(part) for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    dirs = platformdirs.PlatformDirs("daskbroker", appauthor=False)
    folders += [
        Path(dirs.user_config_dir),
        prefix / "etc" / "daskbroker",
        Path(dirs.site_config_dir),
    ]
    if os.name == "nt":
        folders.append(Path(os.environ.get("APPDATA", "~")).expanduser() / "databroker")
    else:
        folders += [
            Path.home() / ".config" / "databroker",
            prefix / "etc" / "databroker",
            Path("/etc/databroker"),
        ]
    folders += _intake_folders(prefix)
    return list(dict.fromkeys(folders))


def _intake_folders(prefix: Path) -> list[Path]:
    dirs = platformdirs.PlatformDirs("intake", "intake")
    folders = [Path(dirs.user_data_dir), prefix / "share" / "intake", Path(dirs.site_data_dir)]
    listed = os.environ.get("INTAKE_PATH") or _intake_path()
    parts = listed.split(os.pathsep) if isinstance(listed, str) else listed
    return folders + [Path(part).expanduser() for part in parts if part and "://" not in part]


def _intake_path() -> Any:
    """Return ``catalog_path`` of intake's own configuration: text, or a list of texts."""
    folder = os.environ.get("INTAKE_CONF_DIR") or Path.home() / ".intake"
    try:
        content = _load(Path(folder, "conf.yaml"))
    # A broken configuration of intake must not prevent the use of other folders.
    except ConfigError:
        return []
    listed = content.get("catalog_path") if isinstance(content, dict) else None
    return [str(part) for part in listed] if isinstance(listed, list) else listed or []


def list_configurations() -> list[Configuration]:
    """Return every configuration in :func:`search_folders`, in order of precedence.

    If several have the same name, the first one is used. Files that cannot be read (see
    :func:`unreadable_files`) and sources that are not databroker's are left out.
    """
    return [one for one in _configurations(_files()) if isinstance(one, Configuration)]


def unreadable_files(name: str | None = None) -> list[str]:
    """Return one message for each unreadable file that :func:`list_configurations` leaves out.

    With a name, only for files whose names without suffix are this name.
    """
    files = (file for file in _files() if name is None or file.stem == name)
    return [str(one) for one in _configurations(files) if isinstance(one, ConfigError)]


def find_configuration(name: str) -> Configuration | None:
    """Return the first configuration of this name, or None if there is none."""
    return next((found for found in list_configurations() if found.name == name), None)


def read_configuration(path: str | os.PathLike[str]) -> Configuration:
    """Read the configuration in a file; ``catalog.yml#name`` is one source of a catalog.

    Raises
    ------
    ConfigError
        If there is no such file or source, or the file cannot be read as YAML.
    """
    text, _, chosen = os.fspath(path).partition("#")
    file = Path(text).expanduser().resolve()
    content = _load(file)
    sources = sources_of(content)
    if chosen:
        if chosen not in (sources or {}):
            raise ConfigError(
                f"{file}: has no source {chosen!r}; it has: {listed(sources or (), chosen)}"
            )
        content = (sources or {})[chosen]
    return Configuration(chosen or file.stem, configuration_form(content, str(file)), file, content)


def _files() -> Iterator[Path]:
    for folder in search_folders():
        if folder.suffix in SUFFIXES and folder.is_file():
            yield folder
            continue
        try:
            inside = sorted(folder.iterdir())
        except OSError:  # most of these folders do not exist
            continue
        yield from (f for f in inside if f.suffix in SUFFIXES and f.is_file() and f.stem != LEGACY)


def _configurations(files: Iterable[Path]) -> Iterator[Configuration | ConfigError]:
    """Yield the configurations of some files, and the error of each file that cannot be read."""
    for file in files:
        try:
            content = _load(file)
            sources = sources_of(content)
            form = "catalog" if sources is not None else configuration_form(content, str(file))
        except ConfigError as error:
            yield error
            continue
        named = {file.stem: content} if sources is None else sources
        yield from (Configuration(name, form, file, one) for name, one in named.items())


def _load(file: Path) -> Any:
    """Read a YAML file with the safe loader, which makes no arbitrary Python objects.

    The parser's own message is not repeated: it quotes the line, which may hold a password.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", at line {mark.line + 1}"
        raise ConfigError(f"{file}: is not plain YAML{line}") from None
