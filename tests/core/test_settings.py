"""Settings are defined in one module; ``daskbroker.yaml`` and dask's configuration follow it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask
import pytest
import yaml

import daskbroker
from daskbroker.core.errors import ConfigError
from daskbroker.core.settings import SETTINGS, setting, settings_yaml

FILE = Path(daskbroker.__file__).with_name("daskbroker.yaml")


def test_the_yaml_file_is_what_the_module_says():
    """``python ci/settings.py`` writes it anew."""
    assert FILE.read_text(encoding="utf8") == settings_yaml()
    defaults = {name: known.default for name, known in SETTINGS.items()}
    assert yaml.safe_load(settings_yaml()) == {"daskbroker": defaults}


def test_dasks_configuration_has_the_defaults_from_the_import_on():
    code = (
        "import sys\n"
        "{imports}\n"
        "from daskbroker.core.settings import setting\n"
        "assert setting('prefetch') == 7, 'of the environment'\n"
        "import dask\n"
        "known = dask.config.get('daskbroker')\n"
        "assert known['seal-rows'] == 16384 and len(known) == {count}, known\n"
        "dask.config.refresh()\n"
        "assert dask.config.get('daskbroker.seal-rows') == 16384\n"
        "assert dask.config.get('daskbroker.prefetch') == 7\n"
    )
    for imports in (
        "import dask, daskbroker",
        "import daskbroker; assert 'dask' not in sys.modules",
    ):
        filled = code.format(imports=imports, count=len(SETTINGS))
        done = subprocess.run(
            [sys.executable, "-c", filled],
            env={"DASK_DASKBROKER__PREFETCH": "7", "PYTHONPATH": str(FILE.parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_each_default_is_valid_and_stays_when_its_neighbours_are_replaced():
    with dask.config.set({"daskbroker": {"prefetch": 3}}):
        assert setting("prefetch") == 3
        values = {name: setting(name) for name in SETTINGS}
    assert values["seal-bytes"] == 16 * 2**20
    assert values["mongo-spool"] is None
    assert values["verify"] == "first"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("prefetch", "many", "must be a whole number, 0 or more, not 'many'"),
        ("sync-interval", -1, "must be a number of seconds, 0 or more, not -1"),
        ("seal-bytes", "much", "must be a number of bytes, or text such as '64 MiB', not 'much'"),
        ("mongo-journaled", "perhaps", "must be true or false, not 'perhaps'"),
        ("verify", "sometimes", "must be one of first, always, never, not 'sometimes'"),
    ],
)
def test_a_value_that_is_not_valid_is_an_error_that_names_the_setting(name, value, said):
    with (
        dask.config.set({f"daskbroker.{name}": value}),
        pytest.raises(ConfigError, match=f"daskbroker.{name} in dask's configuration {said}"),
    ):
        setting(name)


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
        allowed = "one of" if isinstance(SETTINGS[name].value_type, tuple) else ""
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
