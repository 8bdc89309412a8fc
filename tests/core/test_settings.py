"""Settings: a value of the wrong type or out of range is an error that says what is possible."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest

import daskbroker
from daskbroker.core.errors import ConfigError
from daskbroker.core.settings import SETTINGS, setting

NAN, INF = float("nan"), float("inf")
WRONG = {
    "timezone": [5, "Mars/Olympus", "", None, ["UTC"], True],
    "mongo-spool": [5, True, ["x"], b"folder", "a\0b"],
    "prefetch": [True, 1.5, -1, None, NAN, INF, "many"],
    "seal-bytes": [-5, None, "x", INF, True, "-1 MiB"],
    "picture-seconds": [-1, None, "x", INF, NAN, True],
    "peek-after-stop": [2, "no", None, 0.5],
    "verify": ["sometimes", None, True, ["first"], 1],
    "shape-mismatch": ["ignore"],
}
RIGHT = {
    "timezone": [("local", "local"), ("+01:00", "+01:00"), ("Europe/Berlin", "Europe/Berlin")],
    "mongo-spool": [(None, None), ("~/spool", "~/spool"), (Path("/spool"), "/spool")],
    "prefetch": [(0, 0), ("8", 8), (4.0, 4)],
    "seal-bytes": [(0, 0), ("1 KiB", 1024), (2.0, 2)],
    "picture-seconds": [(0, 0.0), ("2", 2.0)],
    "peek-after-stop": [(0, False), (True, True)],
}


def test_values_of_settings(tmp_path):
    for name in SETTINGS:
        setting(name)  # the defaults are valid
    for name, values in RIGHT.items():
        for value, expected in values:
            with dask.config.set({f"daskbroker.{name}": value}):
                assert setting(name) == expected
    for name, values in WRONG.items():
        allowed = "one of" if isinstance(SETTINGS[name].kind, tuple) else ""
        for value in values:
            with (
                dask.config.set({f"daskbroker.{name}": value}),
                pytest.raises(ConfigError, match=rf"^daskbroker\.{name} .* must be {allowed}.*not"),
            ):
                setting(name)
    with (
        dask.config.set({"daskbroker.timezone": "Mars"}),
        pytest.raises(ConfigError, match=r"daskbroker\.timezone .*'Europe/Berlin'.*not 'Mars'"),
    ):
        daskbroker.connect(tmp_path)
