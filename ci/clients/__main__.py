"""Run installed clients of databroker with daskbroker in the place of databroker.

    python ci/clients                     # with a Python that has daskbroker[test]
    python ci/clients --python PATH       # with the Python of an existing environment

Makes a virtual environment, installs the clients of ``PACKAGES`` and ``ALONE`` into it, and removes
it at the end. The packages of this Python, daskbroker among them, can be imported in that
environment, so only dependencies in other versions are installed as well. It has no databroker: the
clients find daskbroker through ``daskbroker.compat.install()``. Each test is one use of a client,
with an embedded store and with MongoDB. A test that is expected to fail gives the reason.
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
    "frozendict",  # imported by bluesky-darkframes, which does not require it
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
"""Clients of which one module is used. They are installed without their dependencies."""


def main() -> None:
    """Run all checks, and exit with the status of pytest."""
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
    """Make the environment, and return its Python."""
    if importlib.util.find_spec("daskbroker") is None:
        sys.exit(f"ci/clients: {sys.executable} has no daskbroker: pip install '.[test]'")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # Packages of this Python can be imported after its own, and pip counts them as installed.
    beneath = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(packages, "beneath.pth").write_text(beneath)
    pip(python, "install", "--no-compile", *PACKAGES)
    pip(python, "install", "--no-compile", "--no-deps", *ALONE)
    pip(python, "uninstall", "--yes", "databroker")
    return python


def pip(python: str, *arguments: str) -> None:
    """Run the pip of this Python for the environment of another one."""
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    status = subprocess.call([*command, "--disable-pip-version-check", *arguments])
    if status:
        sys.exit(
            f"ci/clients: cannot make the environment of the clients: pip {arguments[0]} ended "
            f"with status {status} (see its output above). It needs a package index such as PyPI."
        )


if __name__ == "__main__":
    main()
