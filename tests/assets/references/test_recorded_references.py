"""Recorded runs of others, filled: through a root map, by a computing handler, from files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from daskbroker.core.errors import FillError
from daskbroker.testing.base import insert_all
from daskbroker.testing.files import write_hdf5, write_tiffs
from daskbroker.work.ingest import ingest
from daskbroker.work.recordings import read_recording

CORPORA = Path(os.environ.get("DASKBROKER_CORPORA", Path(__file__).parents[4] / "shared/corpora"))

pytestmark = pytest.mark.skipif(
    not CORPORA.exists(), reason="recorded runs are not part of the repository"
)


@pytest.mark.parametrize("name", ["simple_catalog", "another_simple_catalog"])
def test_packed_runs_with_a_hash_for_a_root(db, name):
    folder = CORPORA / "databroker-pack" / name
    ingest(db, [folder])
    catalog = yaml.safe_load((folder / "catalog.yml").read_text())
    for source in catalog["sources"].values():
        for root, target in source["args"]["root_map"].items():
            db.root_map[root] = str(folder / target)
    (header,) = db(detectors="img")
    (path,) = folder.glob("external_files/*/*.npy")
    expected = np.load(path)[None]
    np.testing.assert_array_equal(np.stack(header.table().compute()["img"].tolist()), expected)
    np.testing.assert_array_equal(header.dataset()["img"].values, expected)
    events = [doc for name, doc in header.documents() if name == "event"]
    np.testing.assert_array_equal(events[0]["data"]["img"], expected[0])


class NewtonRings:
    """What the tutorials' simulated beamline computes: rings between a lens and a plate."""

    def __init__(self, path, radius, wave_number):
        self.radius, self.wave_number = radius, wave_number

    def __call__(self, gap):
        x, y = np.meshgrid(np.linspace(-5, 5, 128), np.linspace(-5, 5, 128))
        return np.cos(self.wave_number * (gap + (x**2 + y**2) / (2 * self.radius))) ** 2


def test_computed_resources_of_the_tutorials(db):
    ingest(db, [CORPORA / "bluesky-tutorials"])
    db.register_handler("newton", NewtonRings)
    runs = [h for h in db if any(name == "datum" for name, _ in h.documents(fill=False))]
    assert len(runs) == 7
    for header in runs:
        documents = list(header.documents(fill=False))
        kwargs = {doc["datum_id"]: doc["datum_kwargs"] for n, doc in documents if n == "datum"}
        ids = [
            doc["data"]["ns_image"]
            for n, doc in documents
            if n == "event" and "ns_image" in doc["data"]
        ]
        (resource,) = (doc for name, doc in documents if name == "resource")
        handler = NewtonRings("", **resource["resource_kwargs"])
        expected = np.stack([handler(**kwargs[datum_id]) for datum_id in ids])
        image = header.dataset()["ns_image"]
        assert image.dims == ("time", "x", "y")
        np.testing.assert_array_equal(image.values, expected)
        filled = [doc["data"]["ns_image"] for doc in _events(header)]
        np.testing.assert_array_equal(np.stack(filled), expected)


def _events(header):
    return [doc for name, doc in header.stream("primary") if name == "event"]


@pytest.fixture
def detector(tmp_path):
    """The files that the templates of bluesky-tiled-plugins refer to."""
    one = np.arange(3, dtype=np.float64)
    two = np.arange(3 * 13 * 17, dtype=np.int64).reshape(3, 13, 17)
    write_hdf5(tmp_path / "dataset.h5", one, "/entry/data/data_1")
    write_hdf5(tmp_path / "dataset.h5", two, "/entry/data/data_2")
    three = (np.arange(3 * 10 * 15) % 251).astype(np.uint8).reshape(3, 10, 15)
    write_tiffs(tmp_path / "tiff_files", three)
    more = np.arange(5 * 13 * 17, dtype=np.int64).reshape(5, 13, 17) + 10_000
    write_hdf5(tmp_path / "dataset_part2.h5", more, "/entry/data/data_2")
    return {"det-key1": one[:, None], "det-key2": two[:, None], "det-key3": three[:, None]}, more


def recorded(db, folder, name):
    path = CORPORA / "bluesky-tiled-plugins" / name
    items = list(read_recording(path, define={"root_path": str(folder)}))
    insert_all(db, [(item.name, item.doc) for item in items])
    return db[items[0].run]


@pytest.mark.parametrize("folder", ["", "from_databroker_v2.0.0rc1/"])
def test_stream_resources_and_tiffs(db, tmp_path, detector, folder):
    header = recorded(db, tmp_path, f"{folder}external_assets.json")
    expected, _ = detector
    found = set()
    for stream in header.streams:
        dataset = header.dataset(stream)
        for key in expected.keys() & set(dataset.variables):
            found.add(key)
            np.testing.assert_array_equal(dataset[key].values, expected[key])
    assert found == set(expected)


@pytest.mark.parametrize("folder", ["", "from_databroker_v2.0.0rc1/"])
def test_a_stream_key_that_datums_refer_to(db, tmp_path, detector, folder):
    header = recorded(db, tmp_path, f"{folder}external_assets_legacy.json")
    expected = detector[0]["det-key2"]
    for peek in (None, True):  # whose datums have more keywords than the place of a frame
        np.testing.assert_array_equal(header.dataset(peek=peek)["det-key2"].values, expected)
    np.testing.assert_array_equal(np.stack(header.table().compute()["det-key2"].tolist()), expected)


def test_a_second_file_for_the_same_events_is_the_one_that_counts(db, tmp_path, detector):
    header = recorded(db, tmp_path, "external_assets_single_key_two_files.json")
    np.testing.assert_array_equal(header.dataset()["det-key2"].values, detector[1][:, None])


def test_shapes_that_are_declared_wrong(db, tmp_path, detector):
    header = recorded(db, tmp_path, "from_bluesky_external_assets_with_wrong_shape.json")
    dataset = header.dataset()
    np.testing.assert_array_equal(dataset["det-key1"].values, detector[0]["det-key1"][..., None])
    for key, shapes in (("det-key2", "130, 170"), ("det-key3", "1, 1, 1")):
        with pytest.raises(FillError, match=shapes):
            dataset[key].compute()
