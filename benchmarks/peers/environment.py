"""Python environments of the peers, one for each, because their pins conflict with ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import platformdirs

__all__ = [
    "DATABROKER",
    "DATABROKER_2",
    "ENVIRONMENT",
    "PEERS",
    "TILED",
    "VIRTUALIZARR",
    "PeerError",
    "peer_python",
]

DATABROKER, DATABROKER_2, TILED, VIRTUALIZARR = (
    "databroker",
    "databroker 2",
    "tiled",
    "virtualizarr",
)


class PeerError(RuntimeError):
    """A peer cannot be installed or started, or did not answer."""


class PeerEnvironment(NamedTuple):
    """Packages of a peer's Python, and the variable that names a Python which has them."""

    packages: tuple[str, ...]
    variable: str
    script: str


PEERS = {
    DATABROKER: PeerEnvironment(
        (
            "databroker==1.2.5",
            "intake==0.6.4",
            "dask==2022.12.1",
            "xarray==2022.12.0",
            "pandas==1.5.3",
            "numpy==1.24.4",
            "h5py==3.10.0",
            "pymongo==4.3.3",
            "suitcase-mongo==0.7.0",
            "setuptools<81",  # some of these import pkg_resources
        ),
        "DASKBROKER_PEER_PYTHON",
        "peer.py",
    ),
    DATABROKER_2: PeerEnvironment(
        ("databroker[all]==2.0.2", "tiled==0.2.20", "httpx<1"),
        "DASKBROKER_DATABROKER2_PYTHON",
        "databroker2_peer.py",
    ),
    TILED: PeerEnvironment(
        ("tiled[server,client]==0.2.20", "bluesky-tiled-plugins==2.0.12"),
        "DASKBROKER_TILED_PYTHON",
        "tiled_peer.py",
    ),
    VIRTUALIZARR: PeerEnvironment(
        ("virtualizarr[hdf]", "obstore", "h5py", "hdf5plugin"),
        "DASKBROKER_VIRTUALIZARR_PYTHON",
        "virtualizarr_peer.py",
    ),
}
ENVIRONMENT = PEERS[DATABROKER].variable
PYTHONS = ("python3.11", "python3.10", "python3.9")
"""Pythons for databroker 1: NumPy 1.24 has no wheels for later ones."""


def peer_python(given: str | None = None, peer: str = DATABROKER) -> str:
    """Return the path of a Python that has a peer's packages.

    Parameters
    ----------
    given
        Path of such a Python. By default the peer's environment variable, or else an environment
        in the user's cache folder, which pip makes at first use, in some minutes.
    peer
        One of ``PEERS``.

    Raises
    ------
    PeerError
        If the environment cannot be made. The output of pip is on standard error.
    """
    packages, variable, _ = PEERS[peer]
    chosen = given or os.environ.get(variable)
    if chosen:
        return chosen
    mark = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    folder = Path(platformdirs.user_cache_dir("daskbroker", appauthor=False)) / f"peer-{mark}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        _make(folder, python, packages)
        complete.touch()
    return str(python)


def _make(folder: Path, python: Path, packages: Sequence[str]) -> None:
    print(f"making {folder} …", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([_base(), "-m", "venv", str(folder)], check=True)
        # Warnings of pip would hide its errors, so stderr is printed only if pip fails.
        subprocess.run([*install, *packages], check=True, stderr=subprocess.PIPE, text=True)
    except subprocess.CalledProcessError as error:
        print(error.stderr or "", file=sys.stderr, flush=True)
        lines = [line for line in (error.stderr or "").splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else str(error)
        raise PeerError(f"pip cannot install {packages[0]}: {reason}") from error


def _base() -> str:
    """Return a Python that is old enough for the packages of all peers."""
    if sys.version_info < (3, 12):
        return sys.executable
    for name in PYTHONS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise PeerError(
        f"the peer's packages need one of {', '.join(PYTHONS)} on the PATH; or name a Python "
        f"that has the packages by --peer-python or {ENVIRONMENT}"
    )
