"""Five more clients: apsbits, bluesky-darkframes, hklpy2, nslsii, sixtools."""

from __future__ import annotations

import databroker
import h5py
import numpy as np
from apsbits.core.catalog_init import init_catalog
from bluesky_darkframes import DarkSubtraction
from hklpy2.run_utils import get_run_orientation, list_orientation_runs
from nslsii import configure_base
from ophyd.sim import det
from sixtools.AD_Handler import AreaDetector_HDF5SingleHandler_DataFrame as SixHandler

from daskbroker.testing import RunBuilder, make_run

ORIENTATION = {
    "e4cv": {
        "name": "e4cv",
        "sample_name": "si",
        "solver": {"name": "hkl_soleil", "geometry": "E4CV"},
    }
}


def test_apsbits(beamline):
    assert init_catalog({"DATABROKER_CATALOG": "beamline"}) == beamline.v2
    scratch = init_catalog({})
    for name, doc in make_run(3):
        scratch.v1.insert(name, doc)
    assert len(scratch[-1].primary.read()["time"]) == 3


def test_bluesky_darkframes(beamline):
    run = RunBuilder()
    claim = {"source": "x", "dtype": "array", "shape": [2, 2]}
    for stream, level in (("dark", 1.0), ("primary", 5.0)):
        descriptor = run.descriptor({"img": claim}, stream)
        run.event(descriptor, {"img": np.full((2, 2), level).tolist()})
    db = databroker.temp()
    for name, doc in run.stop():
        db.insert(name, doc)
    subtract, found = DarkSubtraction("img", pedestal=0), []
    for name, doc in db[-1].documents(fill=True):
        found.append(subtract(name, dict(doc)))
    light = found[-2][1]["data"]["img"]
    assert np.asarray(light).tolist() in ([[[4.0, 4.0], [4.0, 4.0]]], [[4.0, 4.0], [4.0, 4.0]])


def test_hklpy2(beamline):
    db = databroker.temp()
    for number in range(3):
        for name, doc in make_run(2, scan_id=number, diffractometers=ORIENTATION):
            db.insert(name, doc)
    assert get_run_orientation(db.v2[-1], name="e4cv")["sample_name"] == "si"
    frame = list_orientation_runs(db, limit=2)
    assert frame["scan_id"].tolist() == [2, 1]
    assert frame["geometry"].tolist() == ["E4CV", "E4CV"]


def test_nslsii(beamline):
    from bluesky import RunEngine
    from bluesky.plans import count

    engine, namespace = RunEngine({}), {}
    namespace["RE"] = engine
    before = len(beamline.db())
    db = databroker.temp()
    configure_base(
        namespace, db, bec=False, epics_context=False, magics=False, pbar=False, mpl=False
    )
    engine(count([det], 2))
    assert len(db[-1].table()) == 2
    assert len(beamline.db()) == before


def test_sixtools(tmp_path):
    with h5py.File(tmp_path / "table_000.h5", "w") as file:
        file["entry/data/data"] = np.arange(6.0).reshape(2, 3)
    run = RunBuilder()
    claim = {"source": "x", "dtype": "array", "shape": [2, 3], "external": "FILESTORE:"}
    descriptor = run.descriptor({"photons": claim})
    resource = run.resource(
        "AD_HDF5_SINGLE_DATAFRAME",
        root="/",
        resource_path=str(tmp_path).lstrip("/"),
        resource_kwargs={"template": "%s%s_%3.3d.h5", "filename": "table", "frame_per_point": 1},
    )
    datum = run.datum(resource, point_number=0)
    run.event(descriptor, {"photons": datum}, filled={"photons": False})
    db = databroker.temp()
    db.reg.register_handler("AD_HDF5_SINGLE_DATAFRAME", SixHandler)
    for name, doc in run.stop():
        db.insert(name, doc)
    (event,) = db[-1].events(fill=True)
    assert np.asarray(event["data"]["photons"]).reshape(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
