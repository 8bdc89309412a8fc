"""Conversion of places (folders and URIs) to settings."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit, urlunsplit

from ..core.errors import ConfigError
from ..core.redaction import has_login, redacted
from ..stores.openers import opener_of

Settings = dict[str, Any]

MONGO_LAYOUTS = ("auto", "normalized", "embedded")
MONGO = ("mongodb", "mongodb+srv")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_MISTYPED = re.compile(
    r"\s*(mongodb\+srv|mongodb|mongo|file|https?|[A-Za-z][A-Za-z0-9+.\-]+(?=:[/\\]))(?:[:;][/\\]?|//)",
    re.IGNORECASE,
)
"""A known scheme before a colon, or any of two letters or more before a colon and a slash.

One letter before a colon and a slash is a drive of Windows.
"""
_LOGIN = re.compile(r"/{0,2}[^/@]*:[^/@]*@")
_ESCAPED = re.compile(r"(?:[^:/?#\[\]@%\s]|%[0-9A-Fa-f]{2})*")


def place_settings(
    place: str, *, assets: str | None = None, layout: str = "auto", folder: Path | None = None
) -> Settings:
    """Return the settings of a folder, a ``file://`` or ``mongodb://`` URI, or any other URI.

    Parameters
    ----------
    place
        Path or URI.
    assets
        URI of the database of resources and datums, if that is another one; for MongoDB only.
    layout
        Layout of the database, one of `MONGO_LAYOUTS`; used for MongoDB only.
    folder
        Folder that a relative path is relative to. If None, the working directory.

    Raises
    ------
    ConfigError
        If no store has the scheme, a MongoDB URI names no database, the layout is not valid, or
        ``assets`` is given for another store than MongoDB.
    """
    check_place(place)
    scheme, separator, rest = place.partition("://")
    if separator and scheme in MONGO:
        if layout not in MONGO_LAYOUTS:
            raise ConfigError(f"layout must be one of {', '.join(MONGO_LAYOUTS)}, not {layout!r}")
        uri, other = _with_database(place), assets and _with_database(assets)
        mongo = {"uri": uri, "assets": None if other == uri else other, "layout": layout}
        return {"mongo": mongo}
    if separator and scheme != "file":
        opener_of(scheme)
        if assets is not None:
            raise ConfigError(
                f"{redacted(place)}: only MongoDB can have a separate 'assets' database"
            )
        return {"uri": place}
    if assets is not None:
        raise ConfigError(
            f"{place}: only MongoDB can have a separate 'assets' database, a folder cannot"
        )
    return _folder_settings("/" + rest.partition("/")[2] if separator else place, folder)


def _folder_settings(path: str, folder: Path | None) -> Settings:
    """Return the settings of a folder.

    ``embedded`` is the path without symbolic links, which is what a pickle names; ``link`` is the
    path as it was given, if that has symbolic links.
    """
    try:
        given = Path(folder or "", os.path.expanduser(path)).absolute()
        settings = {"embedded": str(given.resolve())}
    except (OSError, ValueError, RuntimeError) as error:  # the latter for links that go round
        raise ConfigError(f"{path!r} cannot be a folder: {error}") from error
    if os.path.normpath(given) != settings["embedded"]:
        settings["link"] = str(given)
    return settings


def check_place(place: str) -> None:
    """Refuse text that looks like a mistyped URI.

    Taken as a path it would make a folder whose name has the password that may be in it. For the
    same reason the message repeats only the scheme.

    Raises
    ------
    ConfigError
        If the text looks like a mistyped URI, or is a ``file:`` URI of another machine.
    """
    scheme, separator, rest = place.partition("://")
    if separator and _SCHEME.fullmatch(scheme):
        host = rest.partition("/")[0]
        if scheme == "file" and (host.lower() not in ("", "localhost") or "/" not in rest):
            raise ConfigError(
                f"{redacted(f'file://{host}/…')}: a file: URI of this machine is needed, "
                "file:///folder"
            )
        return
    mistyped = _MISTYPED.match(place)
    if (mistyped or _LOGIN.match(place)) and not os.path.isdir(place):
        shown = f"{mistyped[0].strip()}…" if mistyped else "a place with a user name or password"
        raise ConfigError(
            f"{shown} is neither a path nor a URI; a URI is scheme://host/…, and a folder of such "
            "a name is given as ./name"
        )


def _with_database(uri: str) -> str:
    scheme, _, path, _, _ = _split(uri)
    name = path.strip("/")
    if scheme not in MONGO or not name or "/" in name or "@" in name:
        raise _malformed(uri)
    return uri


def _split(uri: str) -> tuple[str, str, str, str, str]:
    try:
        return urlsplit(uri)
    except ValueError:
        raise _malformed(uri) from None


def _malformed(uri: str) -> ConfigError:
    return ConfigError(
        f"{redacted(uri)}: a MongoDB URI with a database is needed, mongodb://host/database "
        "(with user name and password escaped by urllib.parse.quote_plus)"
    )


def mongo_uri(
    base: str,
    database: str,
    *,
    user: str | None = None,
    password: str | None = None,
    auth_source: str | None = None,
) -> str:
    """Return a URI that names a database, from a server's URI and the rest of a configuration.

    The login goes to the database that the server's URI alone implies. This is said explicitly
    (``authSource``), because MongoDB would otherwise log in at the database of the new URI.

    Parameters
    ----------
    base
        ``mongodb://host:port`` or any MongoDB URI; its database is replaced.
    database
        Name of the database that holds the documents.
    user, password
        Login; escaped if they are not yet.
    auth_source
        Name of the database at which to log in. If None, that of ``base``, else ``admin``.

    Raises
    ------
    ConfigError
        If ``base`` is not a valid URI.
    """
    scheme, netloc, path, query, _ = _split(base)
    if user is not None:
        netloc = f"{_escaped(user)}:{_escaped(password or '')}@{netloc}"
    options = {name.lower(): value for name, value in parse_qsl(query)}
    source = auth_source or path.strip("/") or "admin"
    # Other mechanisms (certificates, Kerberos) log in at "$external", not at a database.
    passwords = options.get("authmechanism", "SCRAM").startswith("SCRAM")
    if "@" in netloc and "authsource" not in options and (auth_source or passwords):
        query = "&".join(filter(None, [query, f"authSource={quote_plus(source)}"]))
    return urlunsplit((scheme, netloc, f"/{database}", query, ""))


def _escaped(text: str) -> str:
    """Escape a text for a URI; text that is escaped already stays, as databroker takes both."""
    return text if _ESCAPED.fullmatch(text) else quote_plus(text)


def has_secret(settings: Settings) -> bool:
    """Return whether the settings hold a password, or text that may be one."""
    return has_login(json.dumps([settings.get("mongo"), settings.get("uri")]))


def scheme_of(settings: Settings) -> str:
    """Return the scheme of the store of some settings; see :mod:`daskbroker.stores.openers`."""
    if "embedded" in settings:
        return "file"
    uri = settings["mongo"]["uri"] if "mongo" in settings else settings["uri"]
    return str(uri).partition("://")[0]


def target_of(settings: Settings) -> str:
    """Return the place of some settings for display, without user names and passwords."""
    if "embedded" in settings:
        return str(settings["embedded"])
    return redacted(settings["mongo"]["uri"] if "mongo" in settings else settings["uri"])
