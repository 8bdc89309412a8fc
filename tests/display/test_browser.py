"""What a browser shows of runs: its text, as it was looked at in docs/images."""

from __future__ import annotations

import numpy as np
import pytest

from ci.browser import seen, selected
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all

EVIL = "<script>document.title = 'got you'; it.textContent = 'gone'</script><b>&amp;\u202e"
UID = "3f1c9a52-77aa-4e6f-9b7e-1d2c3b4a5e6f"


@pytest.fixture
def shown(db):
    """A scan, as a RunEngine describes it, and a run of evil texts that is open."""
    run = RunBuilder(
        uid=UID, time=1_760_000_000.0, scan_id=7, plan_name="scan", sample="Ag-3", num_points=11,
        motors=["m1"], detectors=["det"], hints={"dimensions": [[["m1"], "primary"]]},
    )  # fmt: skip
    volts = {"source": "PV:det", "dtype": "number", "shape": [], "units": "V"}
    descriptor = run.descriptor(
        {"m1": 0.5, "det": volts},
        object_keys={"m1": ["m1"], "det": ["det"]},
        hints={"m1": {"fields": ["m1"]}, "det": {"fields": ["det"]}},
        configuration={"det": {"data": {"det_gain": 7}, "timestamps": {}, "data_keys": {}}},
    )
    for x in np.linspace(-1, 1, 11):
        run.event(descriptor, {"m1": x, "det": np.exp(-x * x)})
    documents = [*run.stop(), *make_run(1, stop=False, time=1.77e9, scan_id=8, plan_name=EVIL)]
    insert_all(db, documents)
    return db


TABLE = [
    "scan_id time plan sample motors points duration status uid",
    r"8 2026-02-02 02:40:00+00:00 <script>document.title = 'got you'; it.textContent = 'gone'… "
    "open",
    f"7 2025-10-09 08:53:20+00:00 scan Ag-3 m1 11 1.62 s success {UID}",
]


def test_lists(shown, tmp_path):
    title, *lines = seen(shown()._repr_html_(), tmp_path)
    assert title == "<Results of all runs: 2 runs>"
    lines[1] = lines[1].rpartition(" ")[0]
    assert lines == TABLE
    assert seen(shown(scan_id=7)._repr_html_(), tmp_path)[1:] == [TABLE[0], TABLE[2]]


def test_a_uid_is_copied_whole(shown, tmp_path):
    assert selected(shown(scan_id=7)._repr_html_(), tmp_path, ".uid") == UID


def test_the_page_of_a_run(shown, tmp_path):
    html = shown[7]._repr_html_()
    folded = [
        f"scan 7 {UID} success",
        "time 2025-10-09 08:53:20+00:00, 1.62 s",
        "sample Ag-3",
        "motors m1",
        "detectors det",
        "points 11",
        "det (V) over m1",
        "primary 11 rows, 2 data keys",
        "key role units dtype device",
        "m1 motor number m1",
        "det detector V number det",
        "configuration 1 key",
        "start 9 keys",
        "stop 6 keys",
    ]
    assert seen(html, tmp_path) == folded
    opened = seen(html, tmp_path, opened=True)
    assert opened[: len(folded) - 2] == folded[:-2]
    for line in ("det_gain: 7", "time: 2025-10-09 08:53:20+00:00", "motors: ['m1']"):
        assert line in opened


def test_a_document(shown, tmp_path):
    html = shown[8].start._repr_html_()
    assert seen(html, tmp_path) == [
        f"uid: {shown[8].uid}",
        "time: 2026-02-02 02:40:00+00:00",
        "scan_id: 8",
        f"plan_name: {EVIL}".replace("\u202e", "\\u202e"),
    ]
