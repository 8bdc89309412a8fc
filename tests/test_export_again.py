"""Exports that were interrupted go on, and files are compared with what was written to them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import h5py
import pyarrow.parquet as pq
import pytest
import xarray as xr
from typer.testing import CliRunner

import daskbroker
from daskbroker.cli import app
from daskbroker.core.errors import StoreError
from daskbroker.core.unfinished import remove_unfinished, unfinished
from daskbroker.exporting import folder_exports
from daskbroker.exporting.runs import export
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run
from daskbroker.testing.processes import Program
from daskbroker.work.ingest import ingest

JOURNAL = ".daskbroker-export.jsonl"
FORMATS = ("jsonl", "parquet", "netcdf", "zarr", "csv", "nexus", "references", "icechunk")


def kinds_run(uid="kinds", rows=5):
    """Columns of every kind."""
    run = RunBuilder(uid)
    row = {"x": 0.5, "n": 1, "label": "ü", "on": True, "gap": 1, "no": 0.5, "half": "a"}
    row |= {"v": [0.5, 0.5], "ragged": [1, 2], "lie": 1, "flag": True, "texts": ["a", "b"]}
    descriptor = run.descriptor(row)
    for n in range(rows):
        run.event(
            descriptor,
            {
                **row, "x": float("nan") if n == 1 else n / 2, "gap": None if n % 2 else n,
                "no": None, "half": "\ud800" if n == 3 else "", "ragged": list(range(n % 3)),
                "lie": n if n % 2 else "text", "flag": None if n == 2 else n % 2 == 0,
                "label": f"größe {n}",
            },
        )  # fmt: skip
    return run.stop()


def states(folder):
    """What tells each file from one that replaced it."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != JOURNAL
    }


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_goes_on_where_it_was_interrupted(db, tmp_path, format):
    for number in range(3):
        insert_all(db, make_run(3, number=number, uid=f"run-{number}"))
    insert_all(db, make_run(3, number=3, stop=False, uid="open-run"))
    out = tmp_path / "out"

    def after(count):
        """Runs, the next of which fails."""
        for number, header in enumerate(list(db())[::-1]):
            if number == count:
                raise KeyboardInterrupt
            yield header

    with pytest.raises(KeyboardInterrupt):
        list(export(after(2), out, format))
    first = states(out)
    assert first
    assert not any("run-2" in name for name in first)
    written = db().export(out, format, resume=True)
    assert {name: states(out)[name] for name in first} == first
    told = [str(path.relative_to(out)) for path in written]
    assert len(told) == 2
    assert any("run-2" in name for name in told)
    assert any("open-run" in name for name in told)
    (again,) = db().export(out, format, resume=True)
    assert "open-run" in str(again)  # which may have more events by now
    insert_all(
        db, [("stop", {"uid": "s", "run_start": "open-run", "time": 2e9, "exit_status": "success"})]
    )
    assert len(db().export(out, format, resume=True)) == 1
    assert db().export(out, format, resume=True) == []
    # another way of exporting, a file that is gone, a journal that was cut off
    with (out / JOURNAL).open("a") as file:
        file.write('{"run": "run-1')
    gone = next(path for path in sorted(out.rglob("*run-1*")) if path.name != JOURNAL)
    gone.rename(tmp_path / "gone")
    (found,) = db().export(out, format, resume=True)
    assert "run-1" in str(found)
    assert db().export(out, format, resume=True) == []
    if format in ("parquet", "netcdf", "zarr", "csv", "nexus"):
        assert len(db().export(out, format, resume=True, stream="primary")) == 4
    assert not list(out.rglob("*.part"))


def test_a_killed_export_leaves_whole_files_and_goes_on(tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    with daskbroker.connect(store) as db:
        for number in range(20):
            insert_all(db, make_run(20, number=number, uid=f"run-{number}"))
    script = """
        import sys, daskbroker
        with daskbroker.connect(sys.argv[1]) as db:
            db().export(sys.argv[2], "netcdf", resume=True)
    """
    process = Program(textwrap.dedent(script), store, out)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.nc"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    whole = states(out)
    there = [name for name in whole if name.endswith(".nc")]
    assert 3 <= len(there) < 20
    for name in there:
        xr.load_datatree(out / name, engine="h5netcdf")
    with daskbroker.connect(store) as db:
        again = db().export(out, "netcdf", resume=True)
    assert len(again) in (20 - len(there), 21 - len(there))  # the last one may not be noted
    assert len(list(out.glob("*.nc"))) == 20


KILLED = """
    import os, pathlib, signal, stat, sys
    import daskbroker

    out, sync = pathlib.Path(sys.argv[2]), os.fsync

    def die(file):
        if stat.S_ISREG(os.fstat(file).st_mode):
            os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    with daskbroker.connect(sys.argv[1]) as db:
        (header,) = db()
        for format in sys.argv[3:]:
            child = os.fork()
            if not child:
                os.fsync = die  # the file is whole then, but has not got its name
                files = {"files": out / "files"} if format == "jsonl files" else {}
                header.export(out / format, format.split()[0], arrays="drop", **files)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL, format
"""


def test_what_killed_exports_leave_is_removed(tmp_path):
    """By the next export into the folder, of every format; not what others are still writing."""
    out, here = tmp_path / "out", tmp_path / "here"
    documents, _ = datum_run(tmp_path)
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, documents)
    formats = [*FORMATS, "jsonl files"]
    call = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED)]
    done = subprocess.run(
        [*call, tmp_path / "store", out, *formats], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    left = {path.relative_to(out).parts[0] for path in out.rglob("*.part")}
    assert left == {*formats, "files"}
    with daskbroker.connect(tmp_path / "store") as db:
        for format in formats:
            files = {"files": out / "files"} if format == "jsonl files" else {}
            db[-1].export(out / format, format.split()[0], arrays="drop", **files)
    assert not list(out.rglob("*.part"))

    here.mkdir()
    own = unfinished(here / "a.nc")
    gone = own.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")  # no process has this number
    machine = own.name.split(".")[2].split("-")[0]
    elsewhere = own.name.replace(machine, "0" * 16)
    kept = [own.name, elsewhere, ".mine.part", "b.zarr", unfinished(here / "c.zarr", "old").name]
    former = gone.replace(".part", ".old")  # its target is not there
    for name in (*kept, gone, former):
        (here / name).mkdir()
        (here / name / "file").touch()
    remove_unfinished(here)
    assert not (here / gone).exists()
    assert all((here / name).exists() for name in (*kept, former))
    (here / "a.nc").touch()
    for path in (here / elsewhere, here / elsewhere / "file"):
        os.utime(path, (0, 0))
    remove_unfinished(here)
    assert sorted(path.name for path in here.iterdir()) == sorted({"a.nc", *kept} - {elsewhere})


def test_the_command_line_goes_on(db, tmp_path):
    insert_all(db, make_run(3, uid="run-0"))
    call = ["export", str(tmp_path / "out"), "--db", str(db.uri), "--resume", "--no-verify"]
    for count in (1, 0):
        done = CliRunner().invoke(app, [*call, "--json"])
        assert done.exit_code == 0, done.output
        assert len(json.loads(done.stdout)["files"]) == count


# -- read back -------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("format", [format for format in FORMATS if format != "icechunk"])
def test_what_is_whole_passes(db, tmp_path, format, fill):
    if fill and format in ("csv", "references"):
        return
    insert_all(db, kinds_run())
    insert_all(db, datum_run(tmp_path)[0])
    insert_all(db, RunBuilder("no-streams").stop())
    insert_all(db, [d for d in make_run(1, uid="no-events") if d[0] != "event"])
    assert db().export(tmp_path / "out", format, fill=fill, arrays="drop")


@pytest.mark.parametrize("format", ["netcdf", "zarr"])
def test_text_that_files_do_not_hold_comes_back(db, tmp_path, format):
    texts = ["a\0b", "größe", ""]
    insert_all(db, make_run(keys={"odd": texts, "usual": ["a", "b", ""]}))
    (path,) = db[-1].export(tmp_path, format, stream="primary")
    (uid,) = ingest(db, [path]).runs
    assert db[uid].dataset()["odd"].values.tolist() == texts
    assert db[uid].dataset()["usual"].values.tolist() == ["a", "b", ""]


def spoil_text(path):
    path.write_bytes(path.read_bytes().replace(b"label", b"level"))


def spoil_parquet(path):
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame.loc[4, "label"] = "größe 5"
    pq.write_table(table.from_pandas(frame, table.schema), path)


def spoil_hdf5(name):
    def spoil(path):
        with h5py.File(path, "r+") as file:
            file[name][4] = "größe 5"

    return spoil


def spoil_zarr(path):
    data = xr.load_dataset(path, group="primary", engine="zarr")
    data["label"][4] = "größe 5"
    data[["label"]].to_zarr(path, group="primary", mode="a", zarr_format=2)


SPOILED = {
    "jsonl": (spoil_text, "its text"),
    "csv": (spoil_text, "its text"),
    "parquet": (spoil_parquet, "row group 0"),
    "netcdf": (spoil_hdf5("primary/label"), "the variable 'label' of '/primary'"),
    "zarr": (spoil_zarr, "the variable 'label' of '/primary'"),
    "nexus": (spoil_hdf5("entry/primary/label"), "the field /entry/primary/label"),
}


@pytest.mark.parametrize("format", SPOILED)
def test_a_file_that_holds_something_else_gets_no_name(db, tmp_path, monkeypatch, format):
    """A disk that gives other bytes than it was given stands behind the closing of each file."""
    spoil, words = SPOILED[format]
    insert_all(db, kinds_run())
    module = {"jsonl": "jsonl", "netcdf": "datasets", "zarr": "datasets", "nexus": "nexus"}
    name = f"daskbroker.exporting.{module.get(format, 'tables')}"
    check = {
        "jsonl": "CheckedText.check", "csv": "CheckedText.check", "parquet": "_row_groups",
        "netcdf": "check_datasets", "zarr": "check_datasets", "nexus": "_read_back",
    }[format]  # fmt: skip
    owner = sys.modules[name]
    *above, last = check.split(".")
    for part in above:
        owner = getattr(owner, part)
    compare = getattr(owner, last)

    def spoiled(*args, **options):
        path = next(a for a in args if hasattr(a, "with_name") and a.name.endswith(".part"))
        spoil(path)
        return compare(*args, **options)

    monkeypatch.setattr(owner, last, spoiled)
    with pytest.raises(
        StoreError, match=rf"was read back, and {words} differs from what was written"
    ):
        db().export(tmp_path / "out", format, arrays="drop")
    assert states(tmp_path / "out") == {}
    assert db().export(tmp_path / "out", format, arrays="drop", verify=False)


def test_a_folder_that_cannot_be_replaced_is_the_one_that_was_there(db, tmp_path, monkeypatch):
    def refused(*names):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    insert_all(db, make_run(3))
    (path,) = db[-1].export(tmp_path / "out.zarr")
    before = {name: name.read_bytes() for name in path.rglob("*") if name.is_file()}
    monkeypatch.setattr(folder_exports, "publish_file", refused)
    with pytest.raises(StoreError, match=r"out\.zarr"):
        db[-1].export(tmp_path / "out.zarr")
    assert {name: name.read_bytes() for name in path.rglob("*") if name.is_file()} == before
    assert {name.name for name in tmp_path.iterdir()} == {"out.zarr", "store"}


def test_nothing_is_left_by_writes_that_end_after_the_error(tmp_path):
    """As the threads of Zarr's event loop go on when another one has failed."""
    writers = []

    def write_late(folder):
        for _ in range(3):
            time.sleep(0.05)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".zattrs").write_text("{}")

    def export():
        with folder_exports.replacing_folder(tmp_path / "run.zarr", (".zgroup",)) as folder:
            writers.append(threading.Thread(target=write_late, args=[folder]))
            writers[0].start()
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        export()
    writers[0].join()
    assert list(tmp_path.iterdir()) == []
