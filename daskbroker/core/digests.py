"""Digests that stand for content in tokens, names and identities."""

from __future__ import annotations

from hashlib import blake2b


def digest_of(content: str | bytes, size: int = 16) -> str:
    """Return the hexadecimal digest of a text or of bytes.

    Digests are in stores and in the names of files, so they must stay the same.

    Parameters
    ----------
    content
        Any bytes or text, also with lone surrogates.
    size
        Bytes of the digest; it has twice as many digits.
    """
    if isinstance(content, str):
        content = content.encode("utf8", "surrogatepass")
    return blake2b(content, digest_size=size).hexdigest()
