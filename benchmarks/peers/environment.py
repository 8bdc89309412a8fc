"""The peer's Python: an environment of its own, because its pins clash with ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

__all__ = ["ENVIRONMENT", "PACKAGES", "peer_python"]

ENVIRONMENT = "DASKBROKER_PEER_PYTHON"
PACKAGES = (
    "databroker==1.2.5",
    "intake==0.6.4",
    "dask==2022.12.1",
    "xarray==2022.12.0",
    "pandas==1.5.3",
    "numpy==1.24.4",
    "pymongo==4.3.3",
    "suitcase-mongo==0.7.0",
    "setuptools<81",  # some of these import pkg_resources
)
PYTHONS = ("python3.11", "python3.10", "python3.9")
"""NumPy 1.24 has no wheels for later ones."""


def peer_python(given: str | None = None) -> str:
    """Path of a Python that has the peer's packages.

    Parameters
    ----------
    given
        Such a Python; by default ``$DASKBROKER_PEER_PYTHON``, else an environment in the
        user's cache folder, which is made when it is needed first (by pip, some minutes).
    """
    chosen = given or os.environ.get(ENVIRONMENT)
    if chosen:
        return chosen
    mark = hashlib.sha256("\n".join(PACKAGES).encode()).hexdigest()[:12]
    folder = Path(platformdirs.user_cache_dir("daskbroker", appauthor=False)) / f"peer-{mark}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        _make(folder, python)
        complete.touch()
    return str(python)


def _make(folder: Path, python: Path) -> None:
    print(f"making {folder} …", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([_base(), "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *PACKAGES], check=True)


def _base() -> str:
    """A Python old enough for the peer."""
    if sys.version_info < (3, 12):
        return sys.executable
    for name in PYTHONS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise SystemExit(
        f"the peer's packages need one of {', '.join(PYTHONS)} on the PATH; or give a Python "
        f"that has them by --peer-python or {ENVIRONMENT}"
    )
