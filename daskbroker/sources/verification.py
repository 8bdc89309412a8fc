"""When stored bytes are compared with their checksums: dask's configuration ``daskbroker.verify``.

It is read by the process that reads, so a worker goes by its own configuration.
"""

from __future__ import annotations

from typing import Literal, cast

import dask

from ..core.errors import ConfigError

__all__ = ["Verification", "verification"]

Verification = Literal["first", "always", "never"]
MODES = ("first", "always", "never")


def verification() -> Verification:
    """When columns of Parquet files are checked.

    Returns
    -------
    str
        ``"first"``: when this process reads a column of a file for the first time, the default.
        ``"always"``: each time. ``"never"``: only the footers, without which nothing can be read.

    Raises
    ------
    ConfigError
        For any other value.
    """
    mode = dask.config.get("daskbroker.verify", "first")
    if mode not in MODES:
        raise ConfigError(
            f"daskbroker.verify in dask's configuration must be one of {', '.join(MODES)}, "
            f"not {mode!r}"
        )
    return cast(Verification, mode)
