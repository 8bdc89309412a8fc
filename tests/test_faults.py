"""Bad places to store: full, read only, newer, no store at all."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

import daskbroker
from daskbroker.core.errors import (
    StoreDamaged,
    StoreNotFound,
    StoreReadOnly,
    StoreVersion,
)
from daskbroker.testing import assert_documents_equal, make_run

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
    command = [sys.executable, "-c", FULL, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "full: no space left" in done.stdout
    assert "went on" in done.stdout


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
