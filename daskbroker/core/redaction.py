"""Texts that may be shown: without user names, passwords and tokens of URIs."""

from __future__ import annotations

import re

__all__ = ["address_of", "has_login", "label_of", "redacted"]

_LOGIN = re.compile(r"([a-z][a-z0-9+.\-]*://)(?!\*\*\*)(.*)@(.*)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"([?&](?:\w*password|authmechanismproperties|api_key)=)(?!\*\*\*).*", re.IGNORECASE | re.DOTALL
)


def redacted(text: str) -> str:
    """The text with what logs in replaced by ``***``, in every URI of it.

    Rather too much than too little: where a URI is malformed, so that nobody can tell where a
    password ends that was not escaped, all that follows is replaced.
    """
    return _SECRET.sub(r"\1***", _LOGIN.sub(_without_login, text))


def _without_login(found: re.Match[str]) -> str:
    scheme, login, rest = found.groups()
    if re.search(r"[/?#@\s]", login):
        return f"{scheme}***"
    return f"{scheme}***@{rest}"


def has_login(text: str) -> bool:
    """Whether :func:`redacted` would hide anything."""
    return redacted(text) != text


def label_of(uri: str) -> str:
    """A uri without user, password and options, for messages."""
    return redacted(uri).replace("***@", "").partition("?")[0]


def address_of(uri: str) -> str:
    """The servers and the database that a uri of MongoDB names, however it is written."""
    scheme, _, rest = label_of(uri).partition("://")
    hosts, _, database = rest.partition("/")
    port = "" if scheme.endswith("+srv") else ":27017"
    names = (
        host if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host + port
        for host in hosts.lower().split(",")
    )
    return f"{','.join(sorted(names))}/{database}"
