"""Installed clients of databroker, with daskbroker in databroker's place.

    python ci/clients                     # by a Python that has daskbroker[test]
    python ci/clients --python PATH       # of an environment that is there

Makes a virtual environment, in which the clients of ``PACKAGES`` and ``ALONE`` are installed, and
removes it. What they need beside is installed into it too, but for what this Python has in the
version that they ask for, daskbroker among it: that is seen from the environment. It has no
databroker: the clients find daskbroker by ``daskbroker.compat.install()``. Each test is one thing
that a client does, over an embedded store and over MongoDB; those that are expected to fail say
why.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = (
    "apstools",
    "area-detector-handlers",
    "bluesky-live",
    "bluesky-tiled-plugins",
    "bluesky-widgets",
    "databroker-pack",
    "frozendict",  # bluesky-darkframes imports it and does not say so
    "hklpy2",
    "ophyd",
    "polartools",
    "setuptools<81",  # some of these import pkg_resources
    "suitcase-csv",
    "suitcase-json-metadata",
    "suitcase-jsonl",
    "suitcase-mongo",
    "suitcase-msgpack",
    "suitcase-specfile",
    "suitcase-tiff",
)
ALONE = ("apsbits", "bluesky-darkframes", "nslsii", "sixtools")
"""Clients of which one module is used; what the others need is not installed."""


def main() -> None:
    """Run every check, and end as pytest does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", help="with daskbroker and the clients, without databroker")
    given, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        python = given.python or make_environment(Path(scratch, "environment"))
        command = [python, "-m", "pytest", "--quiet", "--no-header", "-rxXf", "--timeout=120"]
        command += [
            "-p",
            "pytest_timeout",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore",
            "--rootdir",
            str(HERE),
            "-c",
            os.devnull,
            *others,
            str(HERE),
        ]
        environment = {
            **os.environ,
            "MPLBACKEND": "agg",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "QT_QPA_PLATFORM": "offscreen",
        }
        sys.exit(subprocess.call(command, env=environment, cwd=scratch))


def make_environment(folder: Path) -> str:
    """Return its Python."""
    if importlib.util.find_spec("daskbroker") is None:
        sys.exit(f"ci/clients: {sys.executable} has no daskbroker: pip install '.[test]'")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # Its own packages come first; those of this Python are found, and pip counts them as installed.
    beneath = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(packages, "beneath.pth").write_text(beneath)
    pip(python, "install", "--no-compile", *PACKAGES)
    pip(python, "install", "--no-compile", "--no-deps", *ALONE)
    pip(python, "uninstall", "--yes", "databroker")
    return python


def pip(python: str, *arguments: str) -> None:
    """Run this Python's pip for the environment of another one."""
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    status = subprocess.call([*command, "--disable-pip-version-check", *arguments])
    if status:
        sys.exit(
            f"ci/clients: the environment of the clients was not made: pip {arguments[0]} ended "
            f"with status {status}, as told above. It needs an index of packages (PyPI)."
        )


if __name__ == "__main__":
    main()
