"""Settings: the keys below ``daskbroker`` in dask's configuration, with defaults, types and help.

:data:`SETTINGS` is the one place where a setting is defined. ``daskbroker.yaml``, which the package
registers as defaults of dask's configuration, is written from it by ``python ci/settings.py``, and
the page of settings in the documentation is made from it. Stores read settings without importing
dask: the package sets at import how they are looked up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """One key below ``daskbroker`` in dask's configuration.

    Attributes
    ----------
    default
        Value if the configuration has none.
    value_type
        Type of the value, one of :data:`VALUE_TYPES`, or a tuple of the possible values.
    help
        Description for users.
    """

    default: Any
    value_type: str | tuple[str, ...]
    help: str


VALUE_TYPES = {
    "int": "a whole number, 0 or more",
    "seconds": "a number of seconds, 0 or more",
    "bytes": "a number of bytes, or text such as '64 MiB'",
    "bool": "true or false",
    "zone": "a time zone such as 'Europe/Berlin', an offset such as '+01:00', or 'local'",
    "folder": "the path of a folder, or null for none",
}
"""Types of settings, with the values that they may have."""

SETTINGS: dict[str, Setting] = {
    "partition-size": Setting(
        "64 MiB",
        "bytes",
        "Size of a partition of a table, and of a block of a dataset: smaller chunks are put "
        "together, larger ones are split.",
    ),
    "loaded-size": Setting(
        "8 MiB",
        "bytes",
        "Maximum size of the stored variables of a dataset, all of them together, up to which they "
        "are read into memory when the dataset is opened.",
    ),
    "prefetch": Setting(
        8, "int", "Maximum number of reads and fills that a stream of documents is ahead."
    ),
    "prefetch-bytes": Setting(
        "128 MiB",
        "bytes",
        "Maximum size of all that a stream of documents has read or filled ahead.",
    ),
    "timezone": Setting(
        "UTC",
        "zone",
        "Time zone of a broker that is opened without one: an IANA name, an offset such as "
        "+02:00, or local for the machine's. Times without a zone are read in it, and all "
        "times are shown in it.",
    ),
    "shape-mismatch": Setting(
        "warn",
        ("warn", "raise", "keep"),
        "What happens to external cells whose shape or dtype differs from the descriptor's. If the "
        "file has been looked into, the file is right, with a warning (warn, keep) or an error "
        "(raise). If not, it is an error, except that with keep tables and documents hold the "
        "cells as they are. Also for frames in the file of a stopped run that belong to no event: "
        "a warning, an error, or nothing.",
    ),
    "peek-after-stop": Setting(
        True,
        "bool",
        "Whether shapes and dtypes are read from the detector files of a run, in the background, "
        "after it has stopped.",
    ),
    "picture-bytes": Setting(
        "64 MiB", "bytes", "Maximum size of what is read for the pictures on the page of a run."
    ),
    "picture-seconds": Setting(
        2.0,
        "seconds",
        "Maximum time that the page of a run waits for its pictures; with 0 it has none.",
    ),
    "handler-cache": Setting(
        64, "int", "Maximum number of handlers of detector files that a process keeps open."
    ),
    "decode-threads": Setting(
        0,
        "int",
        "Number of threads in which a process decodes frames; with 0 as many as a Dask worker has "
        "threads, or, outside of a worker, as there are cores.",
    ),
    "seal-rows": Setting(
        16_384, "int", "Number of rows at which the journal of a descriptor is sealed."
    ),
    "seal-bytes": Setting(
        "16 MiB", "bytes", "Size at which the journal of a descriptor is sealed."
    ),
    "sync-interval": Setting(
        1.0,
        "seconds",
        "Maximum time after which an insert into an embedded store survives a loss of power; with "
        "0 it does when it has returned. An inserted stop always does.",
    ),
    "verify": Setting(
        "first",
        ("first", "always", "never"),
        "When columns of Parquet files are compared with their checksums: when a process reads "
        "them for the first time, always, or never. Footers, small chunks and MongoDB's columns "
        "always are; daskbroker check always compares.",
    ),
    "mongo-journaled": Setting(
        True, "bool", "Whether an insert waits until MongoDB has written it to its log."
    ),
    "mongo-spool": Setting(
        None,
        "folder",
        "Local folder in which events for MongoDB wait until they are sent; without one they are "
        "sent at once.",
    ),
    "mongo-keep-journal": Setting(
        False, "bool", "Whether sealed events stay in MongoDB's journal, for databroker to read."
    ),
}

_look_up: Callable[[str, Any], Any] = lambda key, default: default  # noqa: E731
_parse_bytes: Callable[[Any], int] = int


def look_up_by(get: Callable[[str, Any], Any], parse_bytes: Callable[[Any], int]) -> None:
    """Set how settings are looked up and sizes are parsed; the package calls this at import."""
    global _look_up, _parse_bytes
    _look_up, _parse_bytes = get, parse_bytes


def setting(name: str) -> Any:
    """Return the present value of a setting, converted to its type.

    Raises
    ------
    ConfigError
        If the configuration has a value that is not valid.
    """
    known = SETTINGS[name]
    # dask.config.set({"daskbroker": {...}}) replaces all keys at once, registered defaults too.
    value = _look_up(f"daskbroker.{name}", known.default)
    try:
        return _typed(known, value)
    except (TypeError, ValueError, OverflowError, AttributeError, ConfigError):
        allowed = _allowed(known)
        raise ConfigError(
            f"daskbroker.{name} in dask's configuration must be {allowed}, not {value!r:.200}"
        ) from None


def _allowed(known: Setting) -> str:
    """Return the values that a setting can have, in words."""
    if isinstance(known.value_type, tuple):
        return f"one of {', '.join(known.value_type)}"
    return VALUE_TYPES[known.value_type]


def settings_yaml() -> str:
    """Return the text of ``daskbroker.yaml``: every setting with its default, type and help."""
    lines = [
        "# Defaults of daskbroker in dask's configuration, written by ci/settings.py.",
        "daskbroker:",
    ]
    for name, known in SETTINGS.items():
        said = f"{known.help} ({_allowed(known)})"
        lines += ["", *wrap(said, 100, initial_indent="  # ", subsequent_indent="  # ")]
        lines.append(f"  {name}: {json.dumps(known.default)}")
    return "\n".join(lines) + "\n"


def _typed(known: Setting, value: object) -> Any:
    if isinstance(known.value_type, tuple):
        if value not in known.value_type:
            raise ValueError
        return value
    return _CONVERT[known.value_type](value)


def _whole_number(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or number < 0 or (not isinstance(value, str) and number != value):
        raise ValueError
    return number


def _seconds(value: Any) -> float:
    seconds = float(value)
    if isinstance(value, bool) or not 0 <= seconds < float("inf"):
        raise ValueError
    return seconds


def _size(value: object) -> int:
    size = int(_parse_bytes(value))
    if isinstance(value, bool) or size < 0:
        raise ValueError
    return size


def _flag(value: object) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError
    return bool(value)


def _zone(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    from .clock import LOCAL, zone_of  # which needs pandas

    if value not in LOCAL:
        zone_of(value)
    return value


def _folder(value: Any) -> str | None:
    if value is None:
        return None
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path:
        raise ValueError
    return path


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "int": _whole_number, "seconds": _seconds, "bytes": _size, "bool": _flag, "zone": _zone,
    "folder": _folder,
}  # fmt: skip
