"""Bad places to store: full, read only, newer, no store at all."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest

import daskbroker
from daskbroker.core.errors import (
    StoreDamaged,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreVersion,
)
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.processes import Program

FULL = """
import resource, signal, sys
import daskbroker
from daskbroker.core.errors import StoreFull
from daskbroker.testing import assert_documents_equal, make_run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
db = daskbroker.connect(sys.argv[1])
docs = make_run(2000, keys={"x": ["y" * 500] * 2000})
for name, doc in docs[:10]:
    db.insert(name, doc)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
stored = docs[:10]
try:
    for pair in docs[10:]:
        db.insert(*pair)
        stored.append(pair)
except StoreFull as error:
    print("full:", error)
assert_documents_equal(stored, db[-1].documents())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for pair in docs[len(stored):]:
    db.insert(*pair)
assert_documents_equal(docs, db[-1].documents())
print("went on")
"""


def test_no_space_left(tmp_path):
    printed = ran(FULL, tmp_path / "store")
    assert "full: no space left" in printed
    assert "went on" in printed


TMPFS = """
import os, sys
import dask, daskbroker
from daskbroker.core.errors import StoreFull
from daskbroker.testing import assert_documents_equal, make_run
folder, ballast = sys.argv[1], os.path.join(sys.argv[1], "ballast")
dask.config.set({"daskbroker.seal-rows": 400})
docs = make_run(keys={"x": [os.urandom(300).hex() for _ in range(6000)]})
stored = []
with daskbroker.connect(os.path.join(folder, "store")) as db:
    try:
        for pair in docs:
            db.insert(*pair)
            stored.append(pair)
    except StoreFull as error:
        print("full:", error)
    assert_documents_equal(stored, db[-1].documents())
with daskbroker.connect(os.path.join(folder, "store"), mode="r") as db:
    assert_documents_equal(stored, db[-1].documents())
os.unlink(ballast)
with daskbroker.connect(os.path.join(folder, "store")) as db:
    for pair in docs:
        db.insert(*pair)
    assert_documents_equal(docs, db[-1].documents())
print("went on")
"""


@contextmanager
def mounted(folder, size):
    """A file system of its own at this folder; the test is skipped where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("no file system can be mounted here; the limit of a file's size does as well")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def ran(script, folder):
    """What a script prints that is run on a folder, in a process of its own."""
    program = Program(script, folder)
    printed, errors = program.communicate()
    assert program.returncode == 0, errors
    return printed


def test_a_file_system_that_is_full(tmp_path):
    with mounted(tmp_path, "48m"):
        (tmp_path / "ballast").write_bytes(bytes(47_500_000))
        printed = ran(TMPFS, tmp_path)
    assert "full: no space left" in printed
    assert "went on" in printed


SMALL = """
import os, sys
import daskbroker
from daskbroker.core.errors import StoreFull
from daskbroker.testing import make_run
docs = make_run(keys={"x": [os.urandom(150).hex() for _ in range(20_000)]})
place = os.path.join(sys.argv[1], "store")
stored = 0
with daskbroker.connect(place) as db:
    try:
        for pair in docs:
            db.insert(*pair)
            stored += 1
    except StoreFull as error:
        print("full:", error)
    assert list(db[-1].documents()) == docs[:stored]
with daskbroker.connect(place) as db:
    assert list(db[-1].documents()) == docs[:stored]
    assert not list(daskbroker.check(db))
print(stored * 300)
"""


def test_a_small_file_system_is_not_filled_by_the_log(tmp_path):
    """SQLite's log would grow to 16 MB, and could not be copied once it has filled the disk."""
    with mounted(tmp_path, "8m"):
        *_, full, nbytes = ran(SMALL, tmp_path).splitlines()
    assert "full: no space left" in full
    assert int(nbytes) > 3_000_000  # with a log that fills the disk it is 450,000


REUSED = """
import os, sys
import daskbroker
from daskbroker.core.errors import StoreFull
from daskbroker.testing import make_run
folder, kind = sys.argv[1].split(":")
place = os.path.join(folder, "store")
first = make_run(keys={"x": [os.urandom(150).hex() for _ in range(2_000)]})
with daskbroker.connect(place) as db:
    for pair in first:
        db.insert(*pair)
log = place + "/daskbroker.sqlite-wal"
if kind == "event":
    docs = make_run(keys={"x": [os.urandom(150).hex() for _ in range(4_000)]}, stop=False)
else:
    docs = [pair for _ in range(4_000) for pair in make_run(0)[:1]]
stored = []
with daskbroker.connect(place) as db:
    for pair in docs[:200]:
        db.insert(*pair)
        stored.append(pair)
    nbytes = os.path.getsize(log)
    with open(os.path.join(folder, "ballast"), "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    try:
        for pair in docs[200:]:
            db.insert(*pair)
            stored.append(pair)
    except StoreFull as error:
        print("full:", error)
    assert os.path.getsize(log) < nbytes + 8192
with daskbroker.connect(place) as db:
    uids = {doc["uid"] for name, doc in stored if name == "start"}
    assert uids | {first[0][1]["uid"]} == {h.uid for h in db}
    assert list(db[first[0][1]["uid"]].documents()) == first
    if kind == "event":
        assert list(db[stored[0][1]["uid"]].documents()) == stored
    assert not list(daskbroker.check(db))
print(len(stored))
"""


@pytest.mark.parametrize("kind", ["event", "start"])
def test_the_log_is_used_again_once_the_disk_is_full(tmp_path, kind):
    """The database has room of its own, so what is in the log can be copied there."""
    with mounted(tmp_path, "32m"):
        *_, full, stored = ran(REUSED, f"{tmp_path}:{kind}").splitlines()
    assert "full: no space left" in full
    assert int(stored) > 400  # without that hardly more than 200


EXPORTED = """
import os, shutil, sys
import daskbroker
from daskbroker.core.errors import StoreFull
from daskbroker.testing import make_run
folder, formats = sys.argv[1].split(":")
keys = {"text": [os.urandom(200).hex() for _ in range(200)], "x": [0.5] * 200,
        "a": [[0.5 + n] * 1000 for n in range(200)]}
with daskbroker.temp() as db:
    for pair in make_run(keys=keys):
        db.insert(*pair)
    options = {"csv": {"arrays": "drop"}, "references": {"arrays": "drop"}}
    for format in formats.split(","):
        target = os.path.join(folder, format)
        for room in (0, 4, 16, 64, 90, 160, 256):
            with open(os.path.join(folder, "ballast"), "wb") as file:
                space = os.statvfs(folder)
                file.truncate(0)
                file.write(bytes(space.f_bavail * space.f_frsize - room * 1024))
            try:
                db[-1].export(target, format, **options.get(format, {}))
            except StoreFull as error:
                assert str(error).startswith(f"no space left for the export {target}/"), error
                assert "make room on that disk, and try again" in str(error)
                assert "store" not in str(error)
                print(format, "full")
            else:
                print(format, "exported")
                shutil.rmtree(target)
            files = [name for _, _, names in os.walk(folder) for name in names]
            assert files == ["ballast"], files
            os.unlink(os.path.join(folder, "ballast"))
print("ended")
"""


@pytest.mark.parametrize(
    "formats", ["netcdf", "nexus", "jsonl,csv,parquet,zarr", "references,icechunk"]
)
def test_an_export_to_a_full_file_system(tmp_path, formats):
    """HDF5 died of a segmentation fault when it could not write its metadata."""
    with mounted(tmp_path, "3m"):
        *printed, end = ran(EXPORTED, f"{tmp_path}:{formats}").splitlines()
    assert end == "ended"
    for name in formats.split(","):
        assert printed.count(f"{name} full") >= 3


def test_no_room_to_seal_is_no_failure_of_an_insert(tmp_path, monkeypatch, caplog):
    """What is in the journal is stored; sealing is tried again later."""

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    documents = make_run(keys={"x": ["y" * 5000] * 100}, stop=False)
    with dask.config.set({"daskbroker.seal-rows": 30}), daskbroker.connect(tmp_path) as db:
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "daskbroker"):
            patch.setattr("daskbroker.stores.embedded.sealing.os.fsync", full)
            for name, doc in documents[:72]:
                db.insert(name, doc)
            with pytest.raises(StoreFull, match="no space left for the store at"):
                db.seal()
        assert [record.args[1] for record in caplog.records] == [30, 60]
        assert not list(tmp_path.rglob("*.p*"))
        assert_documents_equal(documents[:72], db[-1].documents())
        for name, doc in documents[72:]:
            db.insert(name, doc)
        assert len(list(tmp_path.rglob("*.parquet"))) == 1
        assert_documents_equal(documents, db[-1].documents())


READER = """
import os, sys
import daskbroker
from daskbroker.core.errors import DaskbrokerError
from daskbroker.testing import make_run

with daskbroker.temp() as db:  # all imports are made while everything can still be read
    for name, doc in make_run(2):
        db.insert(name, doc)
    db[-1].table().compute()
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
with daskbroker.connect(sys.argv[1], mode="r") as db:
    for line in sys.stdin:
        rows = [len(h.table().compute()) for h in db]
        documents = sum(1 for h in db for _ in h.documents())
        print(rows, documents, flush=True)
try:
    with daskbroker.connect(sys.argv[1]) as db:
        db.insert(*make_run(1)[0])
except DaskbrokerError as error:
    print(error)
"""


@pytest.fixture
def foreign():
    """A store that its reader, another user or this one, may not write to."""
    folder = Path(tempfile.mkdtemp(prefix="daskbroker-test-"))
    folder.chmod(0o755)
    yield folder / "store"
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written(foreign):
    large = make_run(keys={"x": [[0.5] * 500] * 50})
    with daskbroker.connect(foreign) as db:
        for name, doc in large:
            db.insert(name, doc)
    if os.getuid() != 0:
        for path in (*foreign.rglob("*"), foreign):
            path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", READER, str(foreign)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as reader:
        answers = []

        def ask():
            reader.stdin.write("again\n")
            reader.stdin.flush()
            answers.append(reader.stdout.readline().strip())

        ask()
        if os.getuid() == 0:  # the owner writes while the other reads
            with daskbroker.connect(foreign) as db:
                for name, doc in make_run(3):
                    db.insert(name, doc)
                ask()
            ask()
        rest, problems = reader.communicate()
    assert not problems
    assert answers[0] == "[50] 53"
    assert set(answers[1:]) <= {"[3, 50] 59"}
    assert "cannot be written; mode='r' opens it to read" in rest


def test_read_only_mode(tmp_path):
    documents = make_run(2)
    with daskbroker.connect(tmp_path) as db:
        for name, doc in documents:
            db.insert(name, doc)
    with daskbroker.connect(tmp_path, mode="r") as db:
        assert_documents_equal(documents, db[-1].documents())
        with pytest.raises(StoreReadOnly, match="read only"):
            db.insert(*make_run(1)[0])


def test_newer_format(tmp_path):
    daskbroker.connect(tmp_path).close()
    with sqlite3.connect(tmp_path / "daskbroker.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreVersion, match=r"format 99.*newer daskbroker"):
        daskbroker.connect(tmp_path)


def test_file_that_is_no_store(tmp_path):
    (tmp_path / "daskbroker.sqlite").write_bytes(b"not a database, but some other file" * 50)
    with pytest.raises(StoreDamaged, match=str(tmp_path)):
        daskbroker.connect(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(StoreNotFound, match="absent"):
        daskbroker.connect(tmp_path / "absent", create=False)


def test_missing_chunk_file_is_named(tmp_path):
    with daskbroker.connect(tmp_path) as db:
        for name, doc in make_run(keys={"x": [[0.5] * 500] * 50}):
            db.insert(name, doc)
        (file,) = (tmp_path / "chunks").rglob("*.parquet")
        file.unlink()
        with pytest.raises(StoreDamaged, match=file.name):
            db[-1].table().compute()


def test_a_clock_that_goes_backwards(tmp_path, monkeypatch):
    """Nothing that is stored depends on the time of the machine; nor is anything swept by it."""
    now = [2e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    runs = [make_run(keys={"x": [[0.5] * 2000] * 8}) for _ in range(3)]
    with dask.config.set({"daskbroker.seal-rows": 3}), daskbroker.connect(tmp_path) as db:
        for documents in runs:
            for pair in documents:
                now[0] -= 86_400
                db.insert(*pair)
            db.seal()
        now[0] = 3e9
        db.seal()
        for documents in runs:
            assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())
