"""One flipped bit anywhere in a chunk: the same values, or an error that says where."""

from __future__ import annotations

import collections
import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from itertools import islice

import dask
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from distributed import Client

import daskbroker
from daskbroker.core.chunks import from_ipc, to_ipc
from daskbroker.core.errors import ConfigError, StoreDamaged, StoreError, StoreVersion
from daskbroker.core.layouts import cells
from daskbroker.stores.embedded import chunk_files, events
from daskbroker.stores.embedded.chunk_files import MAGIC, read_file
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all

ROWS = 400
LARGE = make_run(
    keys={
        "x": [row / 7 for row in range(ROWS)],
        "a.b": list(range(ROWS)),
        "state": ["on" if row % 3 else "off" for row in range(ROWS)],
        "gaps": [None if row % 5 else 0.25 for row in range(ROWS)],
        "mixed": [row if row % 2 else row + 0.5 for row in range(ROWS)],
        "pair": [[float(row), 0.5] for row in range(ROWS)],
        "some": [list(range(row % 3)) for row in range(ROWS)],
        "object": [{"n": row} for row in range(ROWS)],
    },
    uid="large-run",
)
SMALL = make_run(20, uid="small-run")
READS = {
    "table": lambda header: header.table().compute(),
    "column": lambda header: header.table()[["x"]].compute(),
    "dataset": lambda header: header.dataset().compute(),
    "documents": lambda header: list(header.documents()),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of a Parquet file, and a pack."""
    folder = tmp_path_factory.mktemp("sound") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "PACK_BYTES", 0)
        with daskbroker.connect(folder) as db:
            insert_all(db, LARGE + SMALL)
    return folder


@pytest.fixture
def copy(store, tmp_path):
    """The store's files again, to damage."""
    return shutil.copytree(store, tmp_path / "store")


@pytest.fixture
def parquet(copy):
    """The Parquet file of the copy."""
    return next(copy.rglob("*.parquet"))


def without_checksums(data):
    """A file's bytes as earlier versions wrote them."""
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert data[footer - len(MAGIC) : footer] == MAGIC
    metadata = pq.read_metadata(pa.BufferReader(data))
    last = metadata.row_group(0).column(metadata.num_columns - 1)
    begin = last.dictionary_page_offset if last.has_dictionary_page else last.data_page_offset
    return data[: begin + last.total_compressed_size] + data[footer:]


def replace_file(path, data):
    """Put another file in a file's place, as `cp --preserve=timestamps` may leave it."""
    new = path.with_name("new")
    new.write_bytes(data)
    os.replace(new, path)
    replace_file.count += 1
    os.utime(path, ns=(replace_file.count, replace_file.count))


replace_file.count = 0


def flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def assert_same(expected, received):
    if isinstance(expected, list):
        assert_documents_equal(expected, received)
    elif isinstance(expected, xr.Dataset):
        assert repr(expected.to_dict()) == repr(received.to_dict())
    else:
        assert expected.dtypes.equals(received.dtypes)
        assert repr(expected.reset_index().to_dict()) == repr(received.reset_index().to_dict())


def footer_of(data):
    return range(8 * (len(data) - 8 - int.from_bytes(data[-8:-4], "little")), 8 * len(data))


@pytest.mark.parametrize("old", [False, True], ids=["checksums", "page checksums only"])
@pytest.mark.parametrize("where", ["anywhere", "footer"])
def test_a_flipped_bit_in_a_file_is_an_error_or_changes_nothing(copy, parquet, old, where):
    data = without_checksums(parquet.read_bytes()) if old else parquet.read_bytes()
    places = range(8 * len(data)) if where == "anywhere" else footer_of(data)
    found = collections.Counter()
    with daskbroker.connect(copy, mode="r") as db:
        replace_file(parquet, data)
        sound = {name: read(db["large-run"]) for name, read in READS.items()}
        for bit in random.Random(f"{old}{where}").sample(places, 10):
            for name, read in READS.items():
                replace_file(parquet, flip(data, bit))
                try:
                    received = read(db["large-run"])
                except StoreDamaged as error:
                    found["damaged"] += 1
                    for part in ("run 'large-run'", "stream 'primary'", str(parquet)):
                        assert part in str(error)
                except StoreVersion:
                    # Of a kind of column that nobody knows; only a checksum tells it from a newer.
                    assert old
                    found["damaged"] += 1
                else:
                    found["sound"] += 1
                    assert_same(sound[name], received)
    assert found["damaged"] > 5


@pytest.mark.parametrize("old", [False, True], ids=["checksums", "page checksums only"])
def test_many_flipped_bits(parquet, old):
    data = without_checksums(parquet.read_bytes()) if old else parquet.read_bytes()
    choose = random.Random(old)
    selections = (None, ["seq_num", "data:x"], ["data:mixed", "data:some"], ["data:state"])
    replace_file(parquet, data)
    sound = [cells_of(read_file(parquet, columns)) for columns in selections]
    places = choose.sample(range(8 * len(data)), 60) + choose.sample(footer_of(data), 60)
    damaged = 0
    for bit in places:
        for columns, expected in zip(selections, sound, strict=True):
            replace_file(parquet, flip(data, bit))
            try:
                assert cells_of(read_file(parquet, columns, ROWS)) == expected
            except StoreDamaged as error:
                assert str(parquet) in str(error)
                damaged += 1
            except StoreVersion:
                assert old
                damaged += 1
    assert damaged > 100


def cells_of(table):
    """What documents are made of."""
    return {name: cells(table, name) for name in table.column_names}


@pytest.mark.parametrize("kind", ["pack", "SQLite"])
def test_a_flipped_bit_in_a_small_chunk_is_an_error(store, tmp_path, kind):
    if kind == "SQLite":
        folder = tmp_path / "store"
        with daskbroker.connect(folder) as db:
            insert_all(db, SMALL)
        path = folder / "daskbroker.sqlite"
        with sqlite3.connect(path) as connection:
            ((data,),) = connection.execute("SELECT body FROM chunk_body")
        connection.close()
    else:
        folder = shutil.copytree(store, tmp_path / "store")
        path = next(folder.rglob("*.arrow"))
        data = path.read_bytes()
    for bit in random.Random(kind).sample(range(8 * len(data)), 60):
        if kind == "pack":
            replace_file(path, flip(data, bit))
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("UPDATE chunk_body SET body = ?", (flip(data, bit),))
            connection.close()
        with daskbroker.connect(folder) as db:
            for read in READS.values():
                with pytest.raises(
                    StoreDamaged, match="a chunk is damaged: its checksum is wrong"
                ) as caught:
                    read(db["small-run"])
                for part in ("run 'small-run'", "stream 'primary'", str(path)):
                    assert part in str(caught.value)


MANY_READS = {
    **READS,
    "documents of a stream": lambda header: list(header.stream("primary")),
    "documents of a search": lambda header: list(header.db(uid=header.uid).documents()),
    "some fields": lambda header: list(header.documents(fields=["x"])),
    "after the first": lambda header: list(islice(header.documents(), 2, None)),
}


@pytest.mark.parametrize("size", [1, 2000], ids=["small chunks", "files"])
@pytest.mark.parametrize("read", MANY_READS.values(), ids=MANY_READS)
def test_a_flipped_bit_in_one_of_many_chunks_is_an_error(tmp_path, read, size):
    """Whoever reads them one after the other; what comes before is given out."""
    run = make_run(keys={"x": [[row / 7] * size for row in range(60)]}, uid="long-run")
    with daskbroker.connect(tmp_path) as db:
        for begin in range(0, 60, 10):
            insert_all(db, run[begin + bool(begin) * 2 : begin + 12])
            db.seal()
    if size == 1:
        with sqlite3.connect(tmp_path / "daskbroker.sqlite") as connection:
            ((number, body),) = connection.execute("SELECT id, body FROM chunk_body WHERE id = 4")
            body = flip(body, 4 * len(body))
            connection.execute("UPDATE chunk_body SET body = ? WHERE id = ?", (body, number))
        connection.close()
    else:
        damage(next(tmp_path.rglob("primary-1-30-*10.parquet")), "data:x")
    with daskbroker.connect(tmp_path) as db:
        with pytest.raises(StoreDamaged, match=r"run 'long-run', stream 'primary': .*checksum"):
            read(db["long-run"])
        documents, found = db["long-run"].documents(), []
        with pytest.raises(StoreDamaged, match="run 'long-run', stream 'primary'"):
            found.extend(documents)
        assert 12 <= len(found) <= 32
        assert_documents_equal(run[: len(found)], found)


@pytest.mark.parametrize("column", ["data:x", "ts:y", "seq_num", "time"])
def test_a_column_without_its_metadata(tmp_path, column):
    """As in a file that another tool has read and written."""
    folder = tmp_path / "store"
    with daskbroker.connect(folder) as db:
        insert_all(db, SMALL)
    with sqlite3.connect(folder / "daskbroker.sqlite") as connection:
        ((body,),) = connection.execute("SELECT body FROM chunk_body")
        table = from_ipc(body)
        place = table.schema.get_field_index(column)
        bare = table.schema.set(place, table.schema.field(place).remove_metadata())
        lost = to_ipc(pa.table(table.columns, bare))
        connection.execute("UPDATE chunk_body SET body = ?", (lost,))
    connection.close()
    reads = READS if column == "data:x" else {"documents": READS["documents"]}
    with daskbroker.connect(folder) as db:
        for name, read in reads.items():
            whose = "" if name == "dataset" else "run 'small-run', stream 'primary': .*"
            with pytest.raises(StoreDamaged, match=rf"{whose}column '{column}' of a chunk"):
                read(db["small-run"])


def damage(parquet, column):
    """Flip a bit in the middle of a column's pages; what is checked must not depend on it."""
    metadata = pq.read_metadata(parquet)
    place = pq.read_schema(parquet).names.index(column)
    pages = metadata.row_group(0).column(place)
    middle = pages.data_page_offset + pages.total_compressed_size // 2
    replace_file(parquet, flip(parquet.read_bytes(), 8 * middle))


def test_only_what_is_read_is_checked(copy, parquet):
    damage(parquet, "data:x")
    with daskbroker.connect(copy) as db:
        table = db["large-run"].table()
        assert table["a.b"].sum().compute() == sum(range(ROWS))
        with pytest.raises(StoreDamaged, match=r"run 'large-run'.*checksum of column 'data:x'"):
            table[["x", "a.b"]].compute()


def test_a_table_of_many_runs_names_the_damaged_one(copy, parquet):
    damage(parquet, "data:x")
    with daskbroker.connect(copy) as db, pytest.raises(StoreDamaged, match="run 'large-run'"):
        db().table()[["x"]].compute()


@pytest.fixture
def checks(monkeypatch):
    """How many bytes of columns were compared with their checksums, since it was asked last."""
    seen = []
    check = chunk_files._check

    def counted(data, footer, places):
        seen.append(len(places))
        check(data, footer, places)

    monkeypatch.setattr(chunk_files, "_check", counted)

    def checks():
        count = sum(seen)
        seen.clear()
        return count

    return checks


def test_first_is_once_for_each_column_of_a_file(parquet, checks):
    replace_file(parquet, parquet.read_bytes())
    read_file(parquet, ["data:x"])
    assert checks() == 1
    read_file(parquet, ["data:x", "data:pair", "seq_num"])
    assert checks() == 2
    read_file(parquet, ["data:x", "data:pair"])
    assert checks() == 0
    replace_file(parquet, parquet.read_bytes())
    read_file(parquet, ["data:x"])
    assert checks() == 1


def test_always_and_never(parquet, checks):
    with dask.config.set({"daskbroker.verify": "always"}):
        read_file(parquet, ["data:x"])
        read_file(parquet, ["data:x"])
        assert checks() == 2
    damage(parquet, "data:x")
    with dask.config.set({"daskbroker.verify": "never"}):
        read_file(parquet, ["data:a.b"])
        assert checks() == 0
    with pytest.raises(StoreDamaged, match="the checksum of column 'data:x' is wrong"):
        read_file(parquet, ["data:x"])


def test_a_failed_check_is_made_again(parquet):
    damage(parquet, "data:x")
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="'data:x'"):
            read_file(parquet, ["data:x"])


def test_other_values_of_the_setting_are_refused(copy):
    refused = pytest.raises(ConfigError, match="first, always, never")
    with dask.config.set({"daskbroker.verify": "sometimes"}), refused:
        daskbroker.connect(copy)
    with (
        daskbroker.connect(copy) as db,
        dask.config.set({"daskbroker.verify": True}),
        pytest.raises(ConfigError, match="first, always, never"),
    ):
        db["large-run"].table().compute()


def test_a_forked_child_checks_by_itself(parquet, checks):
    read_file(parquet, ["data:x"])
    checks()
    child = os.fork()
    if not child:
        read_file(parquet, ["data:x"])
        os._exit(checks())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


TOO_MANY_OPEN_FILES = """
import os, resource, sys
import daskbroker
from daskbroker import check
from daskbroker.core.errors import StoreDamaged, StoreError

with daskbroker.connect(sys.argv[1]) as db:
    reads = [db(uid=uid).documents for uid in ("large-run", "small-run")]
    before = [list(read()) for read in reads]
    assert not list(check(db))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest number that is free is the first one that cannot be opened.
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    for read in reads:
        try:
            print(len(list(read(errors="skip"))))
        except StoreError as error:
            print(isinstance(error, StoreDamaged), "too many open files" in str(error).lower())
    try:
        print(*check(db))
    except StoreError as error:
        print(isinstance(error, StoreDamaged), "too many open files" in str(error).lower())
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [list(read()) for read in reads] == before
"""


def test_a_process_with_too_many_open_files_finds_no_damage(copy):
    """Else errors="skip" would leave out what is sound.

    It is a process of its own, as threads of this one close files at any time.
    """
    command = [sys.executable, "-c", TOO_MANY_OPEN_FILES, str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False True\n" * 3


def test_a_file_that_memory_is_too_small_for_is_no_damage(copy, monkeypatch):
    def fail(path):
        raise OSError(f"Memory mapping file failed: {os.strerror(errno.ENOMEM)}")

    with daskbroker.connect(copy) as db, monkeypatch.context() as patch:
        patch.setattr(chunk_files.pa, "memory_map", fail)
        with pytest.raises(StoreError, match="memory") as caught:
            list(db["large-run"].documents())
        assert not isinstance(caught.value, StoreDamaged)


def test_other_readers_of_parquet_read_the_files(parquet):
    assert pq.read_table(parquet).column("data:a.b").to_pylist() == list(range(ROWS))
    assert pq.ParquetFile(parquet, page_checksum_verification=True).read().num_rows == ROWS


def test_on_worker_processes(copy, parquet, cluster):
    damage(parquet, "data:x")
    with daskbroker.connect(copy) as db, Client(cluster), dask.config.set(scheduler=None):
        header = db["large-run"]
        assert len(header.table()[["a.b"]].compute()) == ROWS
        for read in READS.values():
            with pytest.raises(StoreDamaged, match=r"run 'large-run', stream 'primary'.*parquet"):
                read(header)
