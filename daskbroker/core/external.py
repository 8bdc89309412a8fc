"""Data keys whose values are outside the store: event-model's ``external``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def external_keys(descriptor: Mapping[str, Any]) -> list[str]:
    """Return the data keys of a descriptor that are external."""
    return [key for key, claim in descriptor["data_keys"].items() if claim.get("external")]


def datum_keys(descriptor: Mapping[str, Any]) -> list[str]:
    """Return the external data keys whose values in events are datum_ids."""
    claims = descriptor["data_keys"]
    return [key for key in external_keys(descriptor) if not is_stream_key(claims[key])]


def stream_keys(descriptor: Mapping[str, Any]) -> list[str]:
    """Return the external data keys whose frames are described by stream_datum documents."""
    return [key for key, claim in descriptor["data_keys"].items() if is_stream_key(claim)]


def is_stream_key(claim: Mapping[str, Any]) -> bool:
    """Return whether stream_datum documents describe a key, given its entry in ``data_keys``."""
    return str(claim.get("external", "")).startswith("STREAM")
