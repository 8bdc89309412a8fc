"""apstools: lists, tables, plots and files of runs."""

from __future__ import annotations

import databroker
import h5py
import numpy as np
import pytest
from apstools.callbacks import NXWriter, SpecWriterCallback, SpecWriterCallback2
from apstools.utils import (
    copy_filtered_catalog,
    db_query,
    findCatalogsInNamespace,
    getCatalog,
    getDatabase,
    getDefaultCatalog,
    getDefaultDatabase,
    getRunData,
    getRunDataValue,
    getStreamValues,
    listRunKeys,
    listruns,
    plotxy,
    replay,
    summarize_runs,
)
from apstools.utils.catalog import quantify_md_key_use
from apstools.utils.list_runs import TableStyle


def test_getCatalog(beamline):
    assert len(getCatalog("beamline")) == 4
    assert getCatalog(beamline.v1) == beamline.v2
    assert getDefaultCatalog().v2[-1].metadata["start"] == beamline.db[-1].start
    assert len(getDatabase(catalog_name="beamline")) == 4


def test_findCatalogsInNamespace(beamline):
    assert findCatalogsInNamespace() == {}
    assert getDefaultDatabase() is None


def test_listruns(beamline):
    text = str(listruns(cat=beamline.v2, table_style=TableStyle.pyRestTable))
    assert text.count("scan") >= 2
    assert "count" in text
    oldest = listruns(cat=beamline.v2, num=2, reverse=False, table_style=TableStyle.pandas)
    assert oldest["scan_id"].tolist() == [1, 2]
    newest = listruns(cat=beamline.v2, num=2, keys="scan_id sample", table_style=TableStyle.pandas)
    assert newest["scan_id"].tolist() == [4, 3]
    assert newest["sample"].tolist() == ["gold", "gold"]


def test_listruns_that_are_searched_for(beamline):
    given = {"cat": beamline.v2, "table_style": TableStyle.pandas}
    assert listruns(sample="gold", **given)["scan_id"].tolist() == [4, 3]
    assert listruns(ids=[2, -1], **given)["scan_id"].tolist() == [2, 4]
    assert listruns(since="2001", until="2002", **given).empty
    by_sample = listruns(sortby="sample", reverse=False, keys=["sample"], **given)
    assert by_sample["sample"].tolist() == ["gold", "gold", "silver", "silver"]


def test_getRunData(beamline):
    table = getRunData(2, db=beamline.v2)
    assert table["motor"].tolist() == pytest.approx(np.linspace(-1, 1, 11))
    assert table.index.tolist() == list(range(1, 12))
    again = getRunData(2, db=beamline.v2, use_v1=False)
    assert again["det"].tolist() == table["det"].tolist()
    assert len(getRunData(-1, db=beamline.v2, stream="baseline")) == 2
    assert len(getRunData(-1, db=beamline.v2, query={"sample": "silver"})) == 11
    with pytest.raises(AttributeError, match="No such stream"):
        getRunData(2, db=beamline.v2, stream="nosuch")


def test_getRunDataValue(beamline):
    assert getRunDataValue(4, "motor", db=beamline.v2) == 1
    assert getRunDataValue(4, "motor", db=beamline.v2, idx="mean") == 0.5
    assert getRunDataValue(4, "motor", db=beamline.v2, idx="all").tolist() == [0, 0.5, 1]


def test_listRunKeys(beamline):
    assert set(listRunKeys(4, db=beamline.v2)) == {"time", "det", "motor", "motor_setpoint"}
    found = listRunKeys(4, "MOT", db=beamline.v2, use_v1=False)
    assert sorted(found) == ["motor", "motor_setpoint"]


def test_getStreamValues(beamline):
    frame = getStreamValues(4, "motor1", db=beamline.v2)
    assert list(frame.index) == ["time", "motor1", "motor1_setpoint"]
    assert len(frame.columns) == 2


def test_plotxy(beamline):
    found = plotxy([2, 4], "motor", "det", cat=beamline.v2)
    assert list(found) == [2, 4]
    assert found[2]["max_y"] == beamline.db[2].table()["det"].compute().max()
    assert found[2]["centroid"] == pytest.approx(0, abs=1e-9)


def test_replay(beamline):
    documents = []
    replay([beamline.v1[2], beamline.v2[1]], lambda name, doc: documents.append((name, doc)))
    starts = [doc["scan_id"] for name, doc in documents if name == "start"]
    assert starts == [1, 2]
    assert sum(name == "event" for name, _ in documents) == 3 + 2 + 11 + 2
    replay(beamline.v1[-1])  # a BestEffortCallback


def test_SpecWriterCallback(beamline, tmp_path):
    one, two = SpecWriterCallback(filename=str(tmp_path / "one.dat")), SpecWriterCallback2()
    two.newfile(tmp_path / "two.dat")
    for scan_id in (1, 2):
        for name, doc in beamline.v1[scan_id].documents():
            one.receiver(name, doc)
            two.receiver(name, doc)
    for file in ("one.dat", "two.dat"):
        text = (tmp_path / file).read_text()
        assert text.count("#S ") == 2
        assert "#L motor" in text


def test_NXWriter(beamline, tmp_path):
    writer = NXWriter()
    writer.file_name = tmp_path / "run.hdf"
    writer.warn_on_missing_content = False
    for name, doc in beamline.v1[2].documents():
        writer.receiver(name, doc)
    writer.wait_writer()
    with h5py.File(tmp_path / "run.hdf") as file:
        values = file["entry/instrument/bluesky/streams/primary/motor/value"][:]
        assert values.tolist() == beamline.db[2].table()["motor"].compute().tolist()
        assert file["entry/title"][()].decode()


def test_db_query_and_copies(beamline):
    assert len(db_query(beamline.v2, {"sample": "silver"})) == 2
    assert len(db_query(beamline.v2, {"since": "2020", "plan_name": "scan"})) == 2
    target = databroker.temp()
    copy_filtered_catalog(beamline.v1, target, {"plan_name": "scan"})
    assert [run.start["scan_id"] for run in target()] == [4, 2]
    assert len(target[2].table()) == 11


def test_summaries(beamline, capsys):
    summarize_runs(db=beamline.v1)
    assert "TOTAL 4" in " ".join(capsys.readouterr().out.split())
    quantify_md_key_use(key="sample", db=beamline.v2)
    assert "silver 2" in " ".join(capsys.readouterr().out.split())
    quantify_md_key_use(catalog_name="beamline", query={"sample": "gold"})
    assert "scan 1" in " ".join(capsys.readouterr().out.split())
