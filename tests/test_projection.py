"""What is read, and what is not: recorded at the reader, not guessed from time."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import pytest

from daskbroker.stores.embedded.reader import EmbeddedReader
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all

ROWS, PAGES = 2000, 4


@pytest.fixture
def header(db):
    run = RunBuilder()
    keys = dict.fromkeys("abcdefgh", 0.5)
    descriptor = run.descriptor(keys)
    for page in range(PAGES):
        first = page * ROWS
        numbers = np.arange(first, first + ROWS)
        run.add(
            "event_page",
            {
                "descriptor": descriptor,
                "uid": [f"e{n}" for n in numbers],
                "seq_num": numbers + 1,
                "time": 1e9 + numbers,
                "data": dict.fromkeys(keys, numbers * 1.0),
                "timestamps": dict.fromkeys(keys, 1000000000.0 + numbers),
                "filled": {},
            },
        )
    insert_all(db, run.documents)
    return db[-1]


@pytest.fixture
def reads(monkeypatch):
    """Every read of a chunk: its key and columns."""
    made = []
    original = EmbeddedReader.read

    def read(self, key, columns=None):
        made.append((key, columns))
        return original(self, key, columns)

    monkeypatch.setattr(EmbeddedReader, "read", read)
    return made


@pytest.fixture
def table(header):
    import dask

    with dask.config.set({"daskbroker.partition-size": "1 kB"}):
        yield header.table()


def test_planning_and_len_read_nothing(header, table, reads):
    assert len(table) == ROWS * PAGES
    assert table.divisions == (1, 2001, 4001, 6001, 8000)
    assert table.npartitions == PAGES
    assert reads == []


def test_one_column_reads_that_column(table, reads):
    assert table["c"].sum().compute() == sum(range(ROWS * PAGES))
    assert len(reads) == PAGES
    assert {column for _, columns in reads for column in columns} == {"data:c"}


def test_a_range_of_seq_num_reads_its_chunks(table, reads):
    assert len(table.loc[2100:2200].compute()) == 101
    assert len(reads) == 1


def test_a_range_of_time_reads_its_chunks(table, reads):
    since = pd.Timestamp(1e9 + 6500, unit="s", tz="UTC")
    assert len(table[table["time"] > since].compute()) == 1499
    assert len(reads) == 1


def test_an_index_of_time_needs_no_read_to_be_built(table, reads):
    indexed = table.set_index("time")
    assert indexed.npartitions == PAGES
    assert indexed.divisions[0] == pd.Timestamp(1e9, unit="s", tz="UTC")
    assert reads == []
    since, until = (pd.Timestamp(1e9 + second, unit="s", tz="UTC") for second in (2100, 2200))
    assert len(indexed["c"].loc[since:until].compute()) == 101
    assert len(reads) == 1


def test_a_dataset_reads_its_index_and_what_is_asked(header, reads):
    with dask.config.set({"daskbroker.loaded-size": 0}):
        dataset = header.dataset(chunks=None)
    assert {column for _, columns in reads for column in columns} <= {"seq_num", "time"}
    reads.clear()
    assert dataset["d"][2100:2200].values[0] == 2100
    assert [columns for _, columns in reads] == [("data:d",)]
