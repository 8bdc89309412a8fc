"""Redaction of user names, passwords and tokens in URIs of texts that are shown."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"([a-z][a-z0-9+.\-]*://)(?!\*\*\*)(.*)@(.*)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"([?&](?:\w*password|authmechanismproperties|api_key)=)(?!\*\*\*).*", re.IGNORECASE | re.DOTALL
)


def redacted(text: str) -> str:
    """Return a text with the login and the secret options of every URI replaced by ``***``.

    In case of doubt too much is replaced: if a URI is malformed, so that the end of an unescaped
    password cannot be known, all that follows is replaced.
    """
    return _SECRET.sub(r"\1***", _LOGIN.sub(_without_login, text))


def _without_login(match: re.Match[str]) -> str:
    scheme, login, rest = match.groups()
    if re.search(r"[/?#@\s]", login):
        return f"{scheme}***"
    return f"{scheme}***@{rest}"


def has_login(text: str) -> bool:
    """Return whether :func:`redacted` would replace anything."""
    return redacted(text) != text


def label_of(uri: str) -> str:
    """Return a URI without user, password and options, for messages."""
    return redacted(uri).replace("***@", "").partition("?")[0]


def address_of(uri: str) -> str:
    """Return the servers and database of a MongoDB URI in one spelling.

    Hosts are in lower case, sorted, and have a port (except for ``mongodb+srv``).
    """
    scheme, _, rest = label_of(uri).partition("://")
    hosts, _, database = rest.partition("/")
    port = "" if scheme.endswith("+srv") else ":27017"
    names = (
        host if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host + port
        for host in hosts.lower().split(",")
    )
    return f"{','.join(sorted(names))}/{database}"
