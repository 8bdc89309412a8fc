"""Texts that may be shown: without user names, passwords and tokens of URIs."""

from __future__ import annotations

import re

__all__ = ["has_login", "redacted"]

_LOGIN = re.compile(r"([a-z][a-z0-9+.\-]*://).*@", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"([?&](?:\w*password|authmechanismproperties)=)[^&\s]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with what logs in replaced by ``***``, in every URI of it.

    Rather too much than too little is replaced: up to the last ``@``, because a
    password that was not escaped may hold any sign.
    """
    return _SECRET.sub(r"\1***", _LOGIN.sub(r"\1***@", text))


def has_login(text: str) -> bool:
    """Whether :func:`redacted` would hide anything."""
    return redacted(text) != text
