"""polartools: tables, metadata, images, exports."""

from __future__ import annotations

import databroker
import numpy as np
import pandas as pd
import pytest
from polartools import load_data, manage_database, process_images


def test_load_table(beamline):
    table = load_data.load_table(2, beamline.v2)
    assert table["motor"].tolist() == pytest.approx(np.linspace(-1, 1, 11))
    again = load_data.load_table(2, beamline.v2, use_db_v1=False, query={"sample": "silver"})
    assert again["det"].tolist() == table["det"].tolist()
    assert len(load_data.load_table(2, beamline.v2, stream="baseline")) == 2
    with pytest.raises(ValueError, match="does not exist in scan 2"):
        load_data.load_table(2, beamline.v2, stream="nosuch")


def test_load_catalog(beamline):
    catalog = load_data.load_catalog("beamline", query={"sample": "gold"})
    assert len(catalog) == 2
    assert "AD_EIGER_APSPolar" in catalog.handler_registry


def test_db_query(beamline):
    assert len(load_data.db_query(beamline.v2, {"since": "2020", "sample": "silver"})) == 2


def test_show_meta(beamline, capsys):
    load_data.show_meta(scans=[2], scans_to=4, db=beamline.v2, query={"plan_name": "scan"})
    load_data.show_meta(2, db=beamline.v2, meta_keys=["scan_id", "sample", "exit_status", "time"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "gold success" in shown


def test_collect_meta(beamline):
    found = load_data.collect_meta([2, -1], ["sample", "exit_status"], db=beamline.v2)
    assert found[2]["sample"][0] == "silver"
    assert found[-1]["exit_status"] == [None, "success"]


def test_lookup_position(beamline, capsys):
    load_data.lookup_position(beamline.v2, 2, "motor1")
    assert "motor1_setpoint" in capsys.readouterr().out


def test_load_images(beamline):
    image = np.asarray(process_images.load_images([3], beamline.v2, "img"))
    assert image.shape == beamline.frames.shape[2:]
    assert image.tolist() == beamline.frames.mean(axis=(0, 1)).tolist()


def test_to_csv_json(beamline, tmp_path):
    manage_database.to_csv_json(beamline.v2, str(tmp_path / "out"), {"plan_name": "scan"})
    frame = pd.read_csv(tmp_path / "out" / "scan_2_primary.csv")
    assert len(frame) == 11
    assert (tmp_path / "out" / "scan_4_meta.json").exists()


def test_to_databroker_and_back(beamline, tmp_path, monkeypatch):
    monkeypatch.setenv("DASKBROKER_PATH", str(tmp_path))
    manage_database.to_databroker(beamline.v2, str(tmp_path / "pack"), {"sample": "gold"})
    assert len(list((tmp_path / "pack" / "documents").glob("*.msgpack"))) == 2
    manage_database.from_databroker_inplace(str(tmp_path / "pack"), "packed", databroker.catalog)
    assert (tmp_path / "databroker_unpack_packed.yml").exists()
    manage_database.remove_catalog("packed", databroker.catalog)
    assert not (tmp_path / "databroker_unpack_packed.yml").exists()
