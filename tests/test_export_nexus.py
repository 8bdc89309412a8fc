"""A run as a NeXus file, opened by h5py, nexusformat and silx."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import silx.io
from nexusformat.nexus import nxload
from silx.io import nxdata

import daskbroker
from daskbroker.core.documents import ALL
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, datum_run, image_claim, squares_run, stream_run
from daskbroker.testing.files import frames, write_hdf5

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:nexusformat.*")


def scan(**start):
    """A scan of one motor, with a dark stream, configuration and odd names."""
    run = RunBuilder(
        "nexus-run",
        scan_id=7,
        plan_name="scan",
        motors=["motor"],
        detectors=["det"],
        sample={"name": "Ag", "temperature": 295.5, "parts": {"a": [1]}},
        **{"hints": {"dimensions": [[["motor"], "primary"]]}, **start},
    )
    keys = {
        "det": {"source": "PV:d", "dtype": "number", "shape": [], "units": "counts"},
        "motor": {"source": "PV:m", "dtype": "number", "shape": [], "units": "mm"},
        "twin": {"source": "PV:t", "dtype": "number", "shape": []},
        "label": "a", "img": [[1, 2], [3, 4]], "odd name/1": 0.5, "ragged": [1.0],
    }  # fmt: skip
    descriptor = run.descriptor(
        keys,
        object_keys={"det": ["det", "twin", "img", "ragged"], "motor": ["motor"]},
        hints={"det": {"fields": ["det", "twin"]}, "motor": {"fields": ["motor"]}},
        configuration={"det": {
            "data": {"exposure": 0.5, "mode": "fast"}, "timestamps": {},
            "data_keys": {
                "exposure": {"source": "x", "units": "s", "dtype": "number", "shape": []},
            },
        }},
    )  # fmt: skip
    dark = run.descriptor({"level": 0.5}, "data")
    for n in range(5):
        row = {"det": n * 1.5, "motor": n / 2, "label": f"ü{n}", "img": [[n, 0], [0, n]]}
        run.event(descriptor, {**row, "twin": -1.0, "odd name/1": 2.5, "ragged": [1.0] * n})
    run.event(dark, {"level": 9.5})
    return run.stop()


def exported(db, documents, tmp_path, **options):
    insert_all(db, documents)
    (path,) = db[documents[0][1]["uid"]].export(tmp_path / "scan.nxs", **options)
    return path


def text(dataset):
    return dataset.asstr()[()]


def test_what_h5py_finds(db, tmp_path):
    documents = scan()
    with h5py.File(exported(db, documents, tmp_path)) as file:
        entry = file[file.attrs["default"]]
        assert entry.attrs["NX_class"] == "NXentry"
        assert text(entry["entry_identifier"]) == "nexus-run"
        assert text(entry["title"]) == "Ag"
        assert text(entry["start_time"]).startswith("20")
        assert (text(entry["plan_name"]), entry["scan_id"][()]) == ("scan", 7)
        assert json.loads(text(entry["start/data"])) == json.loads(json.dumps(documents[0][1]))
        sample = entry["sample"]
        assert (sample.attrs["NX_class"], text(sample["name"])) == ("NXsample", "Ag")
        assert sample["temperature"][()] == 295.5
        assert json.loads(text(sample["parts"])) == {"a": [1]}
        primary = entry["primary"]
        assert primary["det"][:].tolist() == [0, 1.5, 3, 4.5, 6]
        assert primary["label"].asstr()[:].tolist() == [f"ü{n}" for n in range(5)]
        assert primary["img"].shape == (5, 2, 2)
        assert primary["odd_name_2F1"].attrs["daskbroker_name"]
        assert primary["ragged_length"][:].tolist() == [0, 1, 2, 3, 4]
        assert entry["data_2/level"][:].tolist() == [9.5]
        detector, motor = entry["instrument/det"], entry["instrument/motor"]
        assert (detector.attrs["NX_class"], motor.attrs["NX_class"]) == (
            "NXdetector",
            "NXpositioner",
        )
        assert detector["det"] == primary["det"]
        assert detector["data"] == primary["img"]
        assert motor["value"].attrs["units"] == "mm"
        assert (detector["exposure"][()], text(detector["mode"])) == (0.5, "fast")
        assert detector["exposure"].attrs["units"] == "s"
        time = primary["time"]
        assert (time.attrs["units"], time.attrs["start"]) == ("s", text(entry["start_time"]))
        given = [doc["time"] for name, doc in documents if name == "event"][:5]
        expected = np.array(given) - documents[0][1]["time"]
        np.testing.assert_allclose(time[:], expected, atol=1e-5)


def test_nexusformat_finds_the_default_plot(db, tmp_path):
    root = nxload(exported(db, scan(), tmp_path))
    data = root.plottable_data
    assert data.nxsignal.nxname == "det"
    assert [axis.nxname for axis in data.nxaxes] == ["motor"]
    assert data.nxsignal.nxdata.tolist() == [0, 1.5, 3, 4.5, 6]
    assert data.nxaxes[0].nxdata.tolist() == [0, 0.5, 1, 1.5, 2]
    assert data.nxsignal.attrs["units"] == "counts"
    assert data.attrs["auxiliary_signals"] == "twin" or list(data.attrs["auxiliary_signals"]) == [
        "twin"
    ]
    assert type(root.entry.instrument.det).__name__ == "NXdetector"
    assert type(root.entry.sample).__name__ == "NXsample"


def test_nexusformat_validates_it_and_silx_plots_it(db, tmp_path):
    """By the base classes of NeXus: no error, whatever fields of ours they do not define."""
    frames_run, _ = datum_run(tmp_path)
    bare = RunBuilder("texts", plan_name="count")
    bare.event(bare.descriptor({"label": "a"}), {"label": "ü"})
    for number, documents in enumerate((scan(), frames_run, bare.stop(), make_run(0, uid="none"))):
        path = exported(db, documents, tmp_path / str(number))
        with nxload(path) as root:
            assert root["entry"].check(level="error")[1] == 0
        with silx.io.open(str(path)) as file:
            found = {
                name: nxdata.NXdata(group)
                for name, group in file["entry"].items()
                if group.attrs.get("NX_class") == "NXdata"
            }
            assert {name: data.issues for name, data in found.items()} == {
                name: [] for name in found
            }
            plot = nxdata.get_default(file)
            if number == 0:
                assert plot.signal[()].tolist() == [0, 1.5, 3, 4.5, 6]
                assert plot.axes[0][()].tolist() == [0, 0.5, 1, 1.5, 2]
                assert found["primary"].signal_name.startswith("det")
            elif number == 1:
                assert found["primary"].signal[()].shape[0] == 5
    with h5py.File(tmp_path / "2" / "scan.nxs") as file:
        assert file["entry/primary"].attrs["NX_class"] == "NXcollection"


def clashing(**start):
    """A grid of 2 by 2 points whose names are the same once they are NeXus', in two streams."""
    hints = {"dimensions": [[["m+"], "primary"], [["m-"], "primary"]], **start.pop("hints", {})}
    run = RunBuilder(motors=["m+", "m-"], hints=hints, **start)
    values = {"a+b": 1.0, "a-b": 2.0, "a b": 3.0, "img": 4.0, "img_1": 5.0}
    about = {
        "object_keys": {"d+": ["a+b", "a-b", "img"], "d-": ["a b", "img_1"], "m": ["m+", "m-"]},
        "hints": {"d+": {"fields": ["a-b", "a+b"]}, "d-": {"fields": ["a b"]}},
        "configuration": {
            device: {"data": {"a b": gain, "a-b": -gain}, "timestamps": {}, "data_keys": {}}
            for device, gain in (("d+", 10.0), ("d-", 20.0))
        },
    }
    for stream in ("primary", "baseline"):
        descriptor = run.descriptor({**values, "m+": 0.5, "m-": 0.5}, stream, **about)
        for n in range(4):
            row = {**values, "m+": float(n // 2), "m-": 10.0 + n % 2}
            run.event(descriptor, {name: value + n / 8 for name, value in row.items()} | row)
    return run.stop()


@pytest.mark.parametrize("shape", [None, [2, 2]])
def test_names_that_become_equal_stay_apart(db, tmp_path, shape):
    start = {} if shape is None else {"shape": shape, "hints": {"gridding": "rectilinear"}}
    with h5py.File(exported(db, clashing(**start), tmp_path)) as file:
        entry = file["entry"]

        def shown(group):
            named = {k: v.attrs.get("daskbroker_name", k) for k, v in entry[group].items()}
            return {name: np.ravel(entry[group][k])[0] for k, name in named.items()}

        values = {"a+b": 1, "a-b": 2, "a b": 3, "img": 4, "img_1": 5, "m+": 0, "m-": 10}
        for stream in ("primary", "baseline"):
            assert {k: v for k, v in shown(stream).items() if k in values} == values
        plot = entry["data"]
        signals = [plot.attrs["signal"], *plot.attrs["auxiliary_signals"]]
        assert [plot[name].attrs["daskbroker_name"] for name in signals] == ["a-b", "a+b", "a b"]
        assert [np.ravel(plot[name])[0] for name in signals] == [2, 1, 3]
        axes = [plot[name[:-8]] for name in plot.attrs if name.endswith("_indices")]
        found = {axis.attrs["daskbroker_name"]: axis[0] for axis in axes}
        assert found == {"m+": 0, "m-": 10}
        devices = {
            group.attrs.get("daskbroker_name", name): name
            for name, group in entry["instrument"].items()
        }
        assert list(devices) == ["d+", "d-", "m"]
        found = [
            (field.attrs.get("daskbroker_name", name), np.ravel(field)[0])
            for name, field in entry[f"instrument/{devices['d+']}"].items()
            if name != "data"
        ]
        of_device = [("a+b", 1), ("a-b", 2), ("img", 4), ("a b", 10), ("a-b", -10)]
        assert sorted(found) == sorted(of_device)
        found = {np.ravel(field)[0] for field in entry[f"instrument/{devices['d-']}"].values()}
        assert found == {3, 5, 20, -20}


def test_defaults_lead_to_numbers_that_can_be_plotted(db, tmp_path):
    """As a viewer follows them, also without hints; of text alone there is no plot."""
    bare, texts = RunBuilder("bare"), RunBuilder("texts")
    bare.event(bare.descriptor({"note": "a"}, "a-first"), {"note": "ü"})
    descriptor = bare.descriptor({"label": "a", "x": 0.5, "y": 1.5}, "b-second")
    for n in range(3):
        bare.event(descriptor, {"label": "a", "x": n * 0.5, "y": 1.5})
    texts.event(texts.descriptor({"label": "a"}), {"label": "b"})
    for documents, expected in (
        (bare.stop(), "/entry/b_second/x"),
        (scan(), "/entry/data/det"),
        (clashing(), "/entry/data/a_b_2"),
        (texts.stop(), None),
    ):
        with h5py.File(exported(db, documents, tmp_path)) as file:
            found = file
            while found is not None and found.attrs.get("NX_class") != "NXdata":
                found = found.get(found.attrs["default"]) if "default" in found.attrs else None
            if expected is None:
                assert found is None
                continue
            signal = found[found.attrs["signal"]]
            assert f"{found.name}/{found.attrs['signal']}" == expected
            axes = found.attrs["axes"].tolist()
            assert len(axes) == signal.ndim
            assert found[axes[0]].shape == signal.shape[:1]


def test_a_grid_is_a_map(db, tmp_path):
    hints = {"gridding": "rectilinear", "dimensions": [[["y"], "primary"], [["x"], "primary"]]}
    run = RunBuilder(
        shape=[2, 3], extents=[[0, 1], [0, 2]], snaking=[False, True], hints=hints,
        motors=["y", "x"],
    )  # fmt: skip
    descriptor = run.descriptor({"y": 0.5, "x": 0.5, "det": 0.5})
    for y, x in ((0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)):
        run.event(descriptor, {"y": float(y), "x": float(x), "det": 10.0 * y + x})
    data = nxload(exported(db, run.stop(), tmp_path)).plottable_data
    assert data.nxsignal.nxdata.tolist() == [[0, 1, 2], [10, 11, 12]]
    assert [axis.nxname for axis in data.nxaxes] == ["y", "x"]
    assert data.nxaxes[1].nxdata.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("make", [datum_run, stream_run])
def test_frames_are_linked_or_copied(db, tmp_path, make, fill):
    documents, data = make(tmp_path)
    path = exported(db, documents, tmp_path, fill=fill)
    with h5py.File(path) as file:
        link = file["entry/primary"].get("img", getlink=True)
        assert isinstance(link, h5py.ExternalLink) == (not fill)
        assert (file["entry/primary/img"][()].reshape(-1, *SHAPE) == data.reshape(-1, *SHAPE)).all()
    root = nxload(path)
    assert root["entry/primary/img"].nxvalue.size == data.size


def test_frames_in_several_files_are_several_links(db, tmp_path):
    data = frames(4, SHAPE)
    run = RunBuilder(detectors=["cam"])
    descriptor = run.descriptor({"img": image_claim((1, *SHAPE))}, object_keys={"cam": ["img"]})
    for part in range(2):
        write_hdf5(tmp_path / f"{part}.h5", data[2 * part : 2 * part + 2])
        resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path=f"{part}.h5")
        for point in range(2):
            datum = run.datum(resource, point_number=point)
            run.event(descriptor, {"img": datum}, filled={"img": False})
    with h5py.File(exported(db, run.stop(), tmp_path)) as file:
        camera = file["entry/instrument/cam"]
        assert (camera["img_0"][()] == data[:2]).all()
        assert (camera["img_1"][()] == data[2:]).all()


def test_what_cannot_be_linked_is_said(db, tmp_path):
    insert_all(db, squares_run())
    with pytest.warns(
        daskbroker.ExportWarning, match=r"stream 'primary': .*'img'.*'SQUARES'.*fill="
    ):
        db[-1].export(tmp_path / "scan.nxs")
    with h5py.File(tmp_path / "scan.nxs") as file:
        assert "x" in file["entry/primary"]
        assert "img" not in file["entry/primary"]


def test_frames_alone_are_the_default_plot(db, tmp_path):
    documents, data = stream_run(tmp_path, with_events=False)
    path = exported(db, documents, tmp_path)
    plot = nxload(path).plottable_data
    assert plot.nxsignal.nxname == "img"
    with h5py.File(path) as file:
        assert file["entry/data"].attrs["axes"].tolist() == ["time", ".", "."]
        assert (file["entry/data/img"][()].reshape(data.shape) == data).all()
    (tmp_path / "s.h5").unlink()
    db[-1].export(path)
    with h5py.File(path) as file:
        assert file["entry/data"].attrs["signal"] == "img"


def test_the_stream_of_the_plot_is_that_of_the_devices(db, tmp_path):
    run = RunBuilder(motors=["m"])
    baseline = run.descriptor({"m": 0.5}, "baseline", object_keys={"m": ["m"]})
    run.event(baseline, {"m": 7.5})
    primary = run.descriptor({"m": 0.5, "d": 0.5}, object_keys={"m": ["m"], "d": ["d"]})
    for n in range(3):
        run.event(primary, {"m": n * 1.0, "d": 0.5})
    with h5py.File(exported(db, run.stop(), tmp_path)) as file:
        assert file["entry/instrument/m/value"][:].tolist() == [0, 1, 2]
        assert file["entry/baseline/m"][:].tolist() == [7.5]


def test_files_that_may_not_be_read_are_not_linked(db, tmp_path):
    documents, _ = datum_run(tmp_path)
    insert_all(db, documents)
    roots = [str(tmp_path / "roots")]
    closed = daskbroker.DataBroker(db.header_source, db.event_sources, readable_roots=roots)
    with pytest.warns(
        daskbroker.ExportWarning, match="cannot be linked.*outside the readable roots"
    ):
        closed[-1].export(tmp_path / "scan.nxs")
    with h5py.File(tmp_path / "scan.nxs") as file:
        assert file["entry/primary"].get("img", getlink=True) is None


def test_files_that_are_elsewhere_are_linked_all_the_same(db, tmp_path):
    documents, _ = datum_run(tmp_path)
    (tmp_path / "a.h5").unlink()
    path = exported(db, documents, tmp_path)
    with h5py.File(path) as file:
        link = file["entry/primary"].get("img", getlink=True)
        assert link.filename == str(tmp_path / "a.h5")
    assert nxload(path).entry.primary["x"].nxvalue.size == 5


def test_runs_of_many_kinds(db, tmp_path):
    keys = {
        "maps": [{"a": 1}, {}],
        "flags": [True, False],
        "gap": [None, 1],
        "half": ["\ud800", "b"],
    }
    insert_all(db, make_run(keys=keys))
    insert_all(db, make_run(2, stop=False, uid="open-run", sample="text"))
    insert_all(db, RunBuilder("no-streams").stop())
    insert_all(db, make_run(1, uid="milliseconds", time=1760000000123.0))
    insert_all(db, [d for d in make_run(1, uid="no-events") if d[0] != "event"])
    paths = db().export(tmp_path / "out", "nexus")
    assert len(paths) == 5
    for path in paths:
        nxload(path)
    with h5py.File(next(path for path in paths if path.stem == "open-run")) as file:
        assert "end_time" not in file["entry"]
        assert text(file["entry/sample/name"]) == "text"


def test_descriptors_of_many_streams_are_read_once(db, tmp_path, monkeypatch):
    insert_all(db, make_run(2, streams=[f"stream {number}" for number in range(20)]))
    store, asked = db.event_sources["embedded"].store, []
    listed = store.list_descriptors
    monkeypatch.setattr(
        store, "list_descriptors", lambda *args: asked.append(args[1:]) or listed(*args)
    )
    db[-1].export(tmp_path / "run.nxs")
    everything = [args for args in asked if args in ((), (ALL,))]
    assert len(everything) <= 4
    assert len(asked) - len(everything) == 20  # one for each Dataset
