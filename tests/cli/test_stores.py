"""Commands on whole stores, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pymongo
import pytest
import suitcase.mongo_normalized

import daskbroker
from daskbroker.core.errors import ClaimWarning
from daskbroker.stores.mongodb.sealed_rows import SEALED_MARK
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.claim_runs import LEGACY, claim_run

OLD = """
metadatastore:
  module: databroker.headersource.mongo
  class: MDS
  config: {host: mongo, port: 27017, database: mds, mongo_user: me, mongo_pwd: s3cret}
assets:
  module: databroker.assets.mongo
  class: Registry
  config: {host: mongo, port: 27017, database: assets}
"""


@pytest.fixture
def store(tmp_path):
    """Three runs, the last one open with its events in the journal."""
    with daskbroker.connect(tmp_path / "store") as db:
        for number in range(3):
            insert_all(db, make_run(4, scan_id=number, uid=f"run-{number}", stop=number < 2))
    return tmp_path / "store"


@pytest.fixture
def home(tmp_path):
    """Return the environment of a user with configurations of each version, and a broken one."""
    folder = tmp_path / "home/.config/databroker"
    folder.mkdir(parents=True)
    (folder / "old.yml").write_text(OLD)
    (folder / "broken.yml").write_text("a: [1, s3cret")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "here.yml").write_text("uri: ../store\ntimezone: Europe/Berlin\n")
    (mine / "old.yml").write_text("uri: ../other\n")
    return {"HOME": str(tmp_path / "home"), "DASKBROKER_PATH": str(mine), "XDG_CONFIG_HOME": ""}


def test_config_lists_what_can_be_opened(run, home):
    done = run("config", **home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["here", "daskbroker"],
        ["old", "daskbroker"],
        ["old", "databroker"],
    ]
    assert "mongodb://***@mongo:27017/mds" in lines[2]
    assert "hidden" in lines[2]
    assert "broken.yml" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_config_shows_where_it_looks(run, home):
    folders = run("config", "--folders", **home).stdout.splitlines()
    assert folders[0] == home["DASKBROKER_PATH"]
    assert any(line.startswith(f"{home['HOME']}/.config/databroker") for line in folders)


def test_every_command_takes_a_name(run, store, home):
    assert run("ls", "--db", "here", **home).stdout.splitlines()[1].split()[-1] == "run-2"
    assert "3 runs" in run("info", "here", **home).stdout
    assert "3 runs" in run("info", DASKBROKER_URI="here", **home).stdout


def test_seal(run, store):
    def waiting():
        with daskbroker.connect(store, mode="r") as db:
            plan = db["run-2"].es_given_stream("primary").chunks_given_header("run-2")
            return plan.token

    before = waiting()
    done = run("seal", store, "scan_id=0")
    assert "0 chunks made of 1 run in " in done.stdout
    assert waiting() == before
    done = run("seal", "--db", store)
    assert "1 chunk made of 3 runs" in done.stdout, done.stderr
    assert "0 chunks made of 3 runs" in run("seal", store).stdout


def test_a_folder_keeps_no_journal(run, store):
    done = run("seal", store, "--keep-journal")
    assert done.returncode == 1
    assert "MongoDB" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_index_of_a_folder_has_nothing_to_make(run, store):
    assert "0 indexes made" in run("index", store).stdout


def test_copy(run, store, tmp_path):
    target = tmp_path / "target"
    done = run("copy", store, target, "scan_id=1")
    assert "1 run (7 documents) copied" in done.stdout, done.stderr
    done = run("copy", store, target)
    assert "2 runs (13 documents) copied, 1 there already" in done.stdout
    with daskbroker.connect(store) as db, daskbroker.connect(target) as there:
        assert [h.uid for h in there] == [h.uid for h in db]
        for header in db:
            assert_documents_equal(header.documents(), there[header.uid].documents())


def test_a_copy_of_nothing_leaves_no_store(run, store, tmp_path):
    target, kept = tmp_path / "target", tmp_path / "kept"
    kept.mkdir()
    for folder in (target, kept):
        done = run("copy", store, folder, "scan_id=99")
        assert "removed the new store, as no run was stored in it" in done.stdout, done.stderr
    assert not target.exists()
    assert not list(kept.iterdir())


@pytest.mark.parametrize(("target", "text"), [("", "into itself"), ("sub", "is inside of")])
def test_a_copy_into_the_source_is_refused(run, store, target, text):
    done = run("copy", store, Path(store, target))
    assert done.returncode == 1
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(store) in done.stderr
    assert "scan_id" not in done.stderr  # the list of its runs
    assert not Path(store, "sub").exists()


def test_copy_says_what_failed(run, store, tmp_path):
    with daskbroker.connect(tmp_path / "target") as db:
        insert_all(db, make_run(4, uid="run-0", sample="another"))
    done = run("copy", store, tmp_path / "target")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert done.stderr.startswith("failed: run-0: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "nowhere/at/all"),
        ("copy", "nowhere", "target"),
        ("seal", "mongodb://me:s3cret@host"),
        ("info", "redis://me:s3cret@host/0"),
        ("index", "nowhere.yml"),
    ],
    ids=" ".join,
)
def test_errors_are_one_line_without_secrets(run, tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "s3cret" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# -- MongoDB ---------------------------------------------------------------------------------


@pytest.fixture
def old_database(mongo_database):
    """Two runs as databroker wrote them, without indexes."""
    serializer = suitcase.mongo_normalized.Serializer(mongo_database, mongo_database)
    for number in range(2):
        for name, doc in make_run(4, scan_id=number, uid=f"run-{number}"):
            serializer(name, doc)
    serializer._metadatastore_db.client.close()
    serializer._asset_registry_db.client.close()
    return mongo_database


def journalled(uri):
    with pymongo.MongoClient(uri) as client:
        events = client.get_default_database()["event"]
        return events.count_documents({"descriptor": {"$ne": SEALED_MARK}})


def test_seal_makes_an_old_database_columnar(run, old_database, store, tmp_path):
    done = run("seal", old_database, "scan_id=0")
    assert "1 chunk made of 1 run in " in done.stdout, done.stderr
    assert journalled(old_database) == 4
    assert "1 chunk made of 2 runs" in run("seal", "--db", old_database).stdout
    assert journalled(old_database) == 0
    assert "0 chunks made of 2 runs" in run("seal", old_database).stdout
    done = run("copy", old_database, tmp_path / "folder")
    assert "2 runs (14 documents) copied" in done.stdout, done.stderr


def test_seal_can_keep_the_journal(run, old_database):
    done = run("seal", old_database, "--keep-journal")
    assert "2 chunks made of 2 runs" in done.stdout, done.stderr
    assert journalled(old_database) == 8
    assert "0 chunks made" in run("seal", old_database, "--keep-journal").stdout


def test_index_makes_what_is_missing_once(run, old_database):
    done = run("index", old_database)
    assert "event.descriptor" in done.stdout, done.stdout + done.stderr
    assert "\n0 indexes" not in done.stdout
    assert run("index", old_database).stdout.startswith("0 indexes made")


def test_a_server_that_does_not_answer_is_one_line(run):
    done = run("info", "mongodb://me:s3cret@127.0.0.1:9/db?serverSelectionTimeoutMS=200")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "s3cret" not in done.stderr


def test_seal_and_index_look_into_detector_files(run, tmp_path):
    """Plain seal does not; what was found is remembered, so the second time there is nothing."""
    docs, _ = claim_run(tmp_path, [1, 8, 6], **LEGACY)
    (tmp_path / "more").mkdir()
    more, _ = claim_run(tmp_path / "more", [1, 6, 8])
    store = tmp_path / "store"
    with daskbroker.connect(store) as db:
        for pair in docs:
            db.insert(*pair)
    uid = docs[0][1]["uid"]
    assert "detector" not in run("seal", store).stdout
    with daskbroker.connect(store, mode="r") as db:
        (source,) = db.event_sources
        assert source.store.list_peeks([uid]) == []
    assert "1 detector keys looked into" in run("seal", store, "--peek").stdout
    assert "0 detector keys looked into" in run("seal", store, "--peek").stdout
    with daskbroker.connect(store) as db:
        for pair in more:
            db.insert(*pair)
    assert "detector" not in run("index", store, "--no-peek").stdout
    assert "1 detector keys looked into" in run("index", store).stdout
    (tmp_path / "a.h5").unlink()
    with daskbroker.connect(store, mode="r") as db, pytest.warns(ClaimWarning, match="8, 6"):
        assert db[uid].dataset()["img"].shape == (4, 1, 6, 8)
