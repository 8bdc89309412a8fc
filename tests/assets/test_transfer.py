"""Detector files that travel along with copies and exports."""

from __future__ import annotations

import os
import shutil
import stat
import threading

import h5py
import numpy as np
import pytest

import daskbroker
from daskbroker.assets.access import FileAccess
from daskbroker.assets.files.resolving import resolve
from daskbroker.assets.transfer import FileTransfer
from daskbroker.core.errors import BadQuery, FillError
from daskbroker.exporting.runs import export
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, datum_run, image_claim, squares_run, stream_run
from daskbroker.testing.files import frames, write_hdf5, write_npys, write_tiffs
from daskbroker.testing.runs import RunBuilder
from daskbroker.work.copying import copy
from daskbroker.work.ingest import ingest


def npy_run(folder):
    data = frames(3, SHAPE)
    write_npys(folder / "f", data)
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim()})
    resource = run.resource("NPY_SEQ", root=str(folder), resource_path="f")
    for index in range(3):
        run.event(descriptor, {"img": run.datum(resource, index=index)})
    return run.stop(), data


def tiff_run(folder):
    data = frames(3, SHAPE)
    write_tiffs(folder / "t%20 ü", data)
    (folder / "t%20 ü" / "other.tif").write_bytes(b"of another run")
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim((1, *SHAPE), external="STREAM:")})
    resource = run.stream_resource(
        "img",
        mimetype="multipart/related;type=image/tiff",
        uri=(folder / "t%20 ü").as_uri().replace("file://", "file://localhost") + "/",
        parameters={"template": "img_{:05d}.tif", "chunk_shape": [1, *SHAPE]},
    )
    run.stream_datum(resource, descriptor, (0, 3))
    return run.stop(), data


@pytest.fixture
def into(tmp_path):
    with daskbroker.connect(tmp_path / "other") as broker:
        yield broker


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("make", [datum_run, stream_run, npy_run, tiff_run])
def test_a_copy_does_without_the_original_files(db, into, tmp_path, old, make):
    docs, data = make(old)
    insert_all(db, docs)
    new = tmp_path / "new"
    report = copy(db, into, files=new)
    assert report.failed == {}
    assert report.files == len([p for p in new.rglob("*") if p.is_file()]) > 0
    assert not list(new.rglob("other.tif"))
    db_copy = into[-1]
    shutil.rmtree(old)
    image = db_copy.dataset()["img"].values
    np.testing.assert_array_equal(image.reshape(data.shape), data)
    resources = [d for n, d in db_copy.documents(fill=False) if n.endswith("resource")]
    assert all(str(new) in f"{d.get('root')} {d.get('uri')}" for d in resources)


PLACES = {
    "uri": (
        {"uri": "file://localhost{old}/a%20b.h5", "mimetype": "application/x-hdf5"},
        {"uri": "file://localhost{new}{old}/a%20b.h5"},
    ),
    "uri of a folder": (
        {"uri": "file:{old}/t/", "mimetype": "multipart/related;type=image/tiff"},
        {"uri": "file://localhost{new}{old}/t/"},
    ),
    "root": (
        {"spec": "AD_HDF5_SWMR_STREAM", "root": "{old}", "resource_path": "a b.h5"},
        {"root": "{new}", "resource_path": "{below}/a b.h5", "path_semantics": "posix"},
    ),
    "path alone": (
        {"spec": "AD_HDF5_SWMR_STREAM", "resource_path": "{old}/a b.h5"},
        {"root": "{new}", "resource_path": "{below}/a b.h5", "path_semantics": "posix"},
    ),
    "both": (
        {
            "uri": "file://localhost{old}/a%20b.h5",
            "mimetype": "application/x-hdf5",
            "root": "/elsewhere",
            "resource_path": "other.h5",
            "path_semantics": "windows",
        },
        {
            "uri": "file://localhost{new}{old}/a%20b.h5",
            "root": "{new}",
            "resource_path": "{below}/a b.h5",
            "path_semantics": "posix",
        },
    ),
    "of no file": ({"spec": "SIMULATED", "root": "", "resource_path": ""}, {}),
}


@pytest.mark.parametrize(("given", "changed"), PLACES.values(), ids=PLACES)
def test_a_carried_stream_resource_is_the_same_but_for_its_place(tmp_path, old, given, changed):
    (old / "a b.h5").write_bytes(b"frames")
    (old / "t").mkdir()
    (old / "t" / "0.tif").write_bytes(b"frames")
    new = tmp_path / "new"
    places = {"old": old, "new": new, "below": str(old).lstrip("/")}
    resource = {
        "uid": "s",
        "run_start": "run-1",
        "data_key": "img",
        "parameters": {"dataset": "/entry/data", "chunk_shape": [1, 2], "extra": {"a": None}},
        "resource_kwargs": {"frame_per_point": 1},
        "unknown": ["to", {"us": 1}],
        **{key: text.format(**places) for key, text in given.items()},
    }
    (carried,) = FileTransfer(new, FileAccess()).carry([("stream_resource", resource)])
    moved = {key: text.format(**places) for key, text in changed.items()}
    assert carried == ("stream_resource", {**resource, **moved})
    assert resolve(carried[1]).kwargs == resolve(resource).kwargs
    copied = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    assert len(copied) == bool(changed)


def test_again_and_after_an_interruption(db, into, tmp_path, old):
    insert_all(db, npy_run(old)[0])
    new = tmp_path / "new"
    assert copy(db, into, files=new).files == 3
    assert copy(db, into, files=new, verify=True).skipped == [db[-1].uid]
    files = sorted(p for p in new.rglob("*.npy"))
    files[1].unlink()
    files[2].write_bytes(b"half")  # not one of ours: those are renamed when they are whole
    with daskbroker.connect(tmp_path / "third") as third:
        report = copy(db, third, files=new)
        assert (report.files, report.failed) == (2, {})
        np.testing.assert_array_equal(third[-1].dataset()["img"].values, frames(3, SHAPE))


def test_a_damaged_copy_is_not_put_in_place(db, into, tmp_path, old, monkeypatch):
    insert_all(db, datum_run(old)[0])
    sound = os.fsync

    def damage(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode):  # folders are synced too
            os.pwrite(handle, b"xxxx", 100)
        sound(handle)

    monkeypatch.setattr(os, "fsync", damage)
    report = copy(db, into, files=tmp_path / "new")
    monkeypatch.undo()
    assert "differs from what was written" in report.failed[db[-1].uid]
    assert [p for p in (tmp_path / "new").rglob("*") if p.is_file()] == []
    assert into[-1].stop is None
    assert copy(db, into, files=tmp_path / "new").failed == {}
    assert into[-1].stop == db[-1].stop


def test_a_copy_that_was_made_without_files_is_told(db, into, tmp_path, old):
    insert_all(db, datum_run(old)[0])
    copy(db, into)
    report = copy(db, into, files=tmp_path / "new")
    assert "other files" in report.failed[db[-1].uid]


def test_missing_and_forbidden_files(db, into, tmp_path, old):
    docs, _ = datum_run(old)
    insert_all(db, docs)
    guarded = daskbroker.DataBroker(
        db.header_source, db.event_sources, readable_roots=[tmp_path / "elsewhere"]
    )
    report = copy(guarded, into, files=tmp_path / "new")
    assert "readable" in report.failed[db[-1].uid]
    free = daskbroker.DataBroker(db.header_source, db.event_sources)
    (old / "a.h5").unlink()
    report = copy(free, into, files=tmp_path / "new")
    assert "a.h5" in report.failed[db[-1].uid]


@pytest.mark.parametrize("offset", [18, 824], ids=["RuntimeError", "KeyError"])
def test_a_damaged_file_fails_its_run_only(db, into, tmp_path, old, offset):
    docs, _ = datum_run(old)
    body = bytearray((old / "a.h5").read_bytes())
    body[offset] ^= (
        64  # in the superblock, or a group: the file opens, and its objects cannot be listed
    )
    (old / "a.h5").write_bytes(body)
    sound = squares_run()
    insert_all(db, [*docs, *sound])
    report = copy(db, into, files=tmp_path / "new")
    assert report.copied == [sound[0][1]["uid"]]
    assert "a.h5" in report.failed[docs[0][1]["uid"]]


def test_computed_resources_have_no_files(db, into, tmp_path):
    insert_all(db, squares_run())
    assert copy(db, into, files=tmp_path / "new").failed == {}
    assert not (tmp_path / "new").exists()


def test_files_that_hdf5_files_link_to(db, into, tmp_path, old):
    data = frames(5, SHAPE)
    (old / "raw").mkdir()
    write_hdf5(old / "raw" / "part.h5", data, "/frames")
    with h5py.File(old / "a.h5", "w") as file:
        layout = h5py.VirtualLayout(shape=data.shape, dtype=data.dtype)
        layout[:] = h5py.VirtualSource("raw/part.h5", "/frames", shape=data.shape)
        file.create_virtual_dataset("/entry/data/data", layout)
    docs, _ = datum_run(old)
    insert_all(db, docs)
    assert copy(db, into, files=tmp_path / "new").files == 2
    shutil.rmtree(old)
    np.testing.assert_array_equal(into[-1].dataset()["img"].values[:, 0], data)


def test_absolute_links_are_refused(db, into, tmp_path, old):
    with h5py.File(old / "a.h5", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink(str(old / "b.h5"), "/frames")
    docs, _ = datum_run(old)
    insert_all(db, docs)
    assert "b.h5" in copy(db, into, files=tmp_path / "new").failed[db[-1].uid]


def test_export_with_files(db, into, tmp_path, old):
    docs, data = stream_run(old)
    insert_all(db, docs)
    assert db[-1].dataset()["img"].values.any()  # from here on this process has the file open
    list(export(db, tmp_path / "out", files=tmp_path / "out" / "files"))
    shutil.rmtree(old)
    ingest(into, [tmp_path / "out"])
    np.testing.assert_array_equal(into[-1].dataset()["img"].values, data)
    with pytest.raises(BadQuery, match="jsonl"):
        list(export(db, tmp_path / "out", "parquet", files=tmp_path / "files"))
    with pytest.raises(FillError, match=r"s\.h5"):
        list(export(db, tmp_path / "again", files=tmp_path / "again"))


def test_a_copy_has_mode_and_times_of_its_file(db, into, tmp_path, old):
    docs, _ = stream_run(old)
    insert_all(db, docs)
    (source,) = [path for path in old.rglob("*") if path.is_file()]
    source.chmod(0o640)
    os.utime(source, ns=(10**18 + 1, 10**18 + 2))
    copy(db, into, files=tmp_path / "new")
    (target,) = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    for path in (source, target):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_mtime_ns == 10**18 + 2
    assert target.read_bytes() == source.read_bytes()


def test_commands(db, tmp_path, old, run_command):
    insert_all(db, datum_run(old)[0])
    db.close()
    for words in (
        ("copy", tmp_path / "store", tmp_path / "other", "--files", tmp_path / "new"),
        ("export", tmp_path / "out", "--db", tmp_path / "store", "--files", tmp_path / "out"),
    ):
        done = run_command(*words)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "new").rglob("a.h5"))) == 1
    assert len(list((tmp_path / "out").rglob("a.h5"))) == 1


def _loop(folder):
    os.symlink(folder / "loop", folder / "loop")
    return folder / "loop"


def _file(folder):
    (folder / "file").write_text("x")
    return folder / "file"


NO_PLACES = {
    "a file": _file,
    "below a file": lambda folder: _file(folder) / "sub",
    "a loop of links": _loop,
    "a name too long": lambda folder: folder / ("x" * 300),
    "a null character": lambda folder: f"{folder}/a\0b",
    "no folder to write": lambda folder: "/proc/none",
}


@pytest.mark.parametrize("place", NO_PLACES)
def test_a_root_that_can_be_no_folder(db, into, tmp_path, old, place):
    docs, _ = npy_run(old)
    insert_all(db, docs)
    root = NO_PLACES[place](tmp_path)
    with pytest.raises(
        FillError, match=r"resource .* of run .*: .* cannot be copied below"
    ) as told:
        list(export([db[-1]], tmp_path / "out", files=root))
    assert repr(str(root)) in str(told.value)
    report = copy(db, into, files=root)
    assert len(report.failed) == 1
    assert into[-1].stop is None  # to be gone on with
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("place", ["a loop of links", "a name too long", "below a file"])
def test_a_source_that_can_be_no_file(db, tmp_path, old, place):
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim()})
    resource = run.resource(
        "NPY_SEQ", root="/", resource_path=str(NO_PLACES[place](tmp_path)).lstrip("/")
    )
    run.event(descriptor, {"img": run.datum(resource, index=0)})
    insert_all(db, run.stop())
    with pytest.raises(FillError, match="resource"):
        list(export([db[-1]], tmp_path / "out", files=tmp_path / "new"))
    with pytest.raises(FillError, match="'img'"):
        np.asarray(db[-1].dataset()["img"])


def test_threads_copy_one_file_at_once(db, tmp_path, old):
    docs, _ = datum_run(old)
    insert_all(db, docs)
    problems = []

    def work(number):
        try:
            list(export([db[-1]], tmp_path / f"out-{number}", files=tmp_path / "new"))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert not list((tmp_path / "new").rglob("*.part"))
