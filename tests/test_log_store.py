"""The example of a store: opened by its scheme wherever a place is named, and safe as it says."""

from __future__ import annotations

import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys

import dask
import pytest
from distributed import Client

import daskbroker
from daskbroker.core.documents import pack
from daskbroker.core.errors import (
    ConfigError,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreVersion,
)
from daskbroker.stores.openers import schemes
from daskbroker.stores.record_file import FRAME
from daskbroker.testing import external_run, make_run, stream_datum_run
from daskbroker.testing.base import check_run, insert_all
from daskbroker.testing.processes import Program

pytestmark = pytest.mark.usefixtures("log_package")


@pytest.fixture
def uri(tmp_path):
    return f"log://{tmp_path / 'store'}"


@pytest.fixture
def log(tmp_path):
    """Path of the file."""
    return tmp_path / "store" / "documents.log"


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )


# -- found by its scheme ---------------------------------------------------------------------


def test_connect_gives_one_broker(uri):
    with daskbroker.connect(uri) as db:
        assert daskbroker.connect(uri) is db
        assert db.uri == uri
        assert "log" in schemes()


def test_the_command_line(uri):
    docs = make_run(3, scan_id=42)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs)
    listed = run_python("-m", "daskbroker", "ls", "--db", uri)
    assert listed.returncode == 0, listed.stderr
    assert "42" in listed.stdout
    assert docs[0][1]["uid"][:8] in listed.stdout
    absent = run_python("-m", "daskbroker", "ls", "--db", f"{uri}-absent")
    assert absent.returncode != 0
    assert "does not exist" in absent.stderr
    assert not os.path.exists(f"{uri}-absent".removeprefix("log://"))


def test_a_configuration_file(uri, tmp_path, monkeypatch):
    (tmp_path / "beamline.yml").write_text(f"uri: {uri}\ntimezone: Asia/Tokyo\n")
    monkeypatch.setenv("DASKBROKER_PATH", str(tmp_path))
    with daskbroker.connect("beamline") as db:
        insert_all(db, make_run(2))
        assert db.timezone == "Asia/Tokyo"
        assert pickle.loads(pickle.dumps(db)) is db
    with daskbroker.connect(tmp_path / "beamline.yml", mode="r") as db:
        assert len(db) == 1


@pytest.fixture
def client(cluster, log_package):
    """Workers that have the package too."""

    def install(folder):
        sys.path.append(folder)

    def remove(folder):
        sys.path.remove(folder)

    with Client(cluster) as client, dask.config.set(scheduler="dask.distributed"):
        client.wait_for_workers(2, timeout=30)
        client.run(install, str(log_package))
        yield client
        client.run(remove, str(log_package))


def test_workers_read_it(uri, client):
    """By path and offset, each its own part; and the rows that wait come with the plan."""
    with (
        dask.config.set({"daskbroker.seal-bytes": 2000, "daskbroker.partition-size": 1}),
        daskbroker.connect(uri) as db,
    ):
        insert_all(db, make_run(200, stop=False))
        header = db[-1]
        table, dataset = header.table(), header.dataset(chunks=20)
        assert table.npartitions > 5
        with dask.config.set(scheduler="synchronous"):
            frame, loaded = table.compute(), dataset.compute()
        assert frame.index.tolist() == list(range(1, 201))
        assert table.compute().equals(frame)
        assert dataset.compute().identical(loaded)
        uids = client.submit(lambda header: [h.uid for h in header.db()], header).result()
        assert uids == [header.uid]


def test_an_unknown_scheme_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no store opens lag://.*file, mongodb.*log"):
        daskbroker.connect("lag:///data")


@pytest.mark.parametrize(
    "opener", ["no_such_module:open", "log_store:no_such_function"], ids=["module", "function"]
)
def test_an_opener_that_cannot_be_imported(opener, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="no store opens broken://"):
        daskbroker.connect("broken:///data")
    information = tmp_path / "broken-1.0.dist-info"  # installed while the process runs
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[daskbroker.stores]\nbroken = {opener}\n")
    with pytest.raises(ConfigError, match=rf"broken:// cannot be imported from '{opener}'"):
        daskbroker.connect("broken:///data")


def test_a_relative_path_is_refused():
    with pytest.raises(ConfigError, match="log:///path"):
        daskbroker.connect("log://data")


def test_only_what_is_there_is_opened(uri, log):
    for options in ({"create": False}, {"mode": "r"}):
        with pytest.raises(StoreNotFound, match=re.escape(str(log))):
            daskbroker.connect(uri, **options)
    assert not log.parent.exists()


# -- what it promises ------------------------------------------------------------------------


def test_a_reader_refuses_to_write(uri):
    docs = make_run(3)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs)
        with daskbroker.connect(uri, mode="r") as reader:
            check_run(reader[-1], docs)
            for act in (lambda: insert_all(reader, make_run(1)), reader.seal):
                with pytest.raises(StoreReadOnly, match="read only"):
                    act()


def test_two_processes_append_to_one_log(uri, tmp_path):
    """Each sees what the other has written, and the same document is stored once."""
    docs = make_run(40, stop=False)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs[:10])
        script = (
            "import pickle, sys, daskbroker\n"
            "with daskbroker.connect(sys.argv[1]) as db:\n"
            "    for name, doc in pickle.loads(open(sys.argv[2], 'rb').read()):\n"
            "        db.insert(name, doc)\n"
        )
        (tmp_path / "documents").write_bytes(pickle.dumps(docs))
        other = Program(script, uri, tmp_path / "documents")
        insert_all(db, docs)
        assert other.communicate()[1] == ""
        check_run(db[-1], docs)


def test_what_was_inserted_survives_a_kill(uri, log):
    script = (
        "import sys, daskbroker\n"
        "from daskbroker.testing import make_run\n"
        "db = daskbroker.connect(sys.argv[1])\n"
        "for name, doc in make_run(100_000, uid='killed', stop=False):\n"
        "    db.insert(name, doc)\n"
        "    if name == 'event':\n"
        "        print(doc['seq_num'], flush=True)\n"
    )
    writer = Program(script, uri)
    for line in writer.stdout:
        if int(line) == 50:
            os.kill(writer.pid, signal.SIGKILL)
            break
    said = [int(line) for line in writer.stdout]
    writer.kill()
    last = max([50, *said])
    with daskbroker.connect(uri) as db:
        numbers = db["killed"].table().compute().index.tolist()
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= last


@pytest.mark.parametrize("left", [3, 8, 20, 200])
def test_half_a_record_is_as_none(uri, log, left):
    docs = make_run(3)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs[:3])
        whole = log.stat().st_size
        db.insert(*docs[3])
    os.truncate(log, min(whole + left, log.stat().st_size - 1))
    with daskbroker.connect(uri) as db:
        check_run(db[-1], docs[:3])
        insert_all(db, docs[3:])
        check_run(db[-1], docs)
    with daskbroker.connect(uri) as db:
        check_run(db[-1], docs)


def test_no_room_leaves_the_store_as_it_was(uri, log):
    docs = make_run(3)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs[:3])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 20, hard))
        try:
            with pytest.raises(StoreFull, match=re.escape(str(log))):
                db.insert(*docs[3])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        check_run(db[-1], docs[:3])
        insert_all(db, docs[3:])
        check_run(db[-1], docs)


def test_damage_is_told_with_file_and_place(uri, log):
    with daskbroker.connect(uri) as db:
        insert_all(db, make_run(3))
        table = db[-1].table()
        data = bytearray(log.read_bytes())
        place = data.rindex(b"ARROW1") - 200  # in the chunk
        data[place] ^= 1
        log.write_bytes(data)
        with pytest.raises(StoreDamaged, match=rf"{re.escape(str(log))}, from byte [\d,]+: "):
            table.compute()


def test_a_newer_format_is_refused(uri, log):
    with daskbroker.connect(uri):
        pass
    note = pack({"is": "log", "format": 2, "id": "newer"})
    log.write_bytes(FRAME.pack(len(note), 0) + note)
    with pytest.raises(StoreVersion, match="is of format 2"):
        daskbroker.connect(uri)


def test_a_folder_that_was_replaced_is_opened_anew(uri, log):
    with daskbroker.connect(uri) as db:
        insert_all(db, make_run(3))
        os.rename(log.parent, log.parent.with_name("before"))
        with daskbroker.connect(uri) as other:
            assert other is not db
            assert len(other) == 0


@pytest.mark.parametrize("how", ["moved", "a copy"])
def test_nothing_is_written_or_read_once_the_log_is_not_in_its_place(uri, log, how):
    docs = make_run(3)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs[:3])
        db.seal()
        table = db[-1].table()
        aside = log.with_name("aside")
        os.rename(log, aside)
        if how == "a copy":
            shutil.copy(aside, log)
        before = [path.read_bytes() for path in sorted(log.parent.iterdir())]
        for call in (
            lambda: insert_all(db, docs[3:4]),
            lambda: db.insert(*docs[-1]),
            lambda: list(db()),
            lambda: db.seal(),
            table.compute,
        ):
            with pytest.raises(StoreError, match=re.escape(str(log))):
                call()
        assert [path.read_bytes() for path in sorted(log.parent.iterdir())] == before
        os.replace(aside, log)
        insert_all(db, docs)
        check_run(db[-1], docs)


def test_a_forked_child_reads_and_inserts(uri):
    docs = make_run(6)
    with daskbroker.connect(uri) as db:
        insert_all(db, docs[:4])
        child = os.fork()
        if child == 0:
            try:
                insert_all(db, docs[4:])
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        check_run(db[-1], docs)


def test_references_travel_with_a_copy(uri, tmp_path):
    """To an embedded store and back."""
    runs = [make_run(3), external_run(2), stream_datum_run()]
    back = f"log://{tmp_path / 'back'}"
    with (
        daskbroker.connect(uri) as db,
        daskbroker.connect(tmp_path / "embedded") as other,
        daskbroker.connect(back) as again,
    ):
        for docs in runs:
            insert_all(db, docs)
        daskbroker.copy(db(), other)
        daskbroker.copy(other(), again)
        for docs in runs:
            check_run(again[docs[0][1]["uid"]], docs)
