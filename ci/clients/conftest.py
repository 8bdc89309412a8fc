"""A store with runs of a RunEngine, which clients open by the name ``beamline``."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import daskbroker
import daskbroker.compat

daskbroker.compat.install()

from bluesky import RunEngine  # noqa: E402
from bluesky.plans import count, scan  # noqa: E402
from bluesky.preprocessors import SupplementalData  # noqa: E402
from ophyd.sim import SynSignalWithRegistry, det, motor, motor1  # noqa: E402

from daskbroker.testing.mongod import mongod  # noqa: E402

NAME = "beamline"
IN_PLACE = """
import sys
import daskbroker.compat
daskbroker.compat.install()
from importlib import import_module
module, *sys.argv = sys.argv[1:]
import_module(module).main()
"""


@pytest.fixture(scope="session")
def server():
    """Return the URI of a MongoDB server."""
    with mongod(in_memory=True) as running:
        yield running.uri


@pytest.fixture(scope="session", params=["embedded", "mongodb"])
def beamline(request, tmp_path_factory):
    """Return a store of four runs: a count, a scan, frames in files, and a scan of another sample.

    ``db`` is the broker, ``frames`` has the values of the third run, and ``folder`` its files.
    """
    folder = tmp_path_factory.mktemp(request.param)
    place = str(folder / "store")
    if request.param == "mongodb":
        place = f"{request.getfixturevalue('server')}/clients"
    configured = folder / "configured"
    configured.mkdir()
    (configured / f"{NAME}.yml").write_text(f"uri: {place}\n")
    before = os.environ.get("DASKBROKER_PATH")
    os.environ["DASKBROKER_PATH"] = str(configured)
    db = daskbroker.connect(place)
    engine = RunEngine({})
    engine.subscribe(db.insert)
    engine.preprocessors.append(SupplementalData(baseline=[motor1]))
    values = itertools.count(1)
    (folder / "files").mkdir()
    camera = SynSignalWithRegistry(
        func=lambda: np.full((4, 5), float(next(values))),
        name="img",
        save_path=str(folder / "files"),
    )
    engine(count([det], 3, md={"sample": "silver", "purpose": "alignment"}))
    engine(scan([det], motor, -1, 1, 11, md={"sample": "silver", "title": "a peak"}))
    engine(count([camera], 2, md={"sample": "gold"}))
    engine(scan([det], motor, 0, 1, 3, md={"sample": "gold"}))
    # The camera takes one more frame when it is created.
    frames = np.stack([np.full((4, 5), 2.0), np.full((4, 5), 3.0)])
    yield SimpleNamespace(db=db, folder=folder, frames=frames, v1=db.v1, v2=db.v2)
    db.close()
    if before is None:
        del os.environ["DASKBROKER_PATH"]
    else:
        os.environ["DASKBROKER_PATH"] = before


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """Return ``command(module, *args)``, which runs ``main`` of a module in a process."""
    folder = tmp_path_factory.mktemp("commands")

    def run(module, *args):
        words = [sys.executable, "-c", IN_PLACE, module, module, *map(str, args)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
