"""The file of a spool: interrupts and failures in the middle of an append, and what moves it away.

What :meth:`Sender.put` has returned for is found by the process that comes after a kill.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest

from daskbroker.core.errors import ConfigError, StoreError, StoreFull, StoreUnavailable
from daskbroker.stores.spool import sender as sending
from daskbroker.stores.spool.entries import Entry
from daskbroker.stores.spool.file import SpoolFile, left_behind
from daskbroker.stores.spool.sender import Sender
from daskbroker.testing.interrupts import finalizers_unheard, interrupted_calls


def entry(number):
    return Entry("descriptor", [{"uid": str(number), "seq_num": number}], None)


def numbers(entries):
    return [row["seq_num"] for one in entries for row in one.rows]


def found(folder):
    """What the next process would send."""
    found = []
    for file in left_behind(folder, "store"):
        found += numbers(map(Entry.from_bytes, file.records()))
        file.close(remove=False)
    return found


class Store:
    """Takes entries, or refuses to, in place of a server."""

    def __init__(self):
        self.there, self.entries = True, []

    def __call__(self, entries):
        if not self.there:
            raise StoreUnavailable("away")
        self.entries += numbers(entries)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def sender(tmp_path, store):
    made = Sender(tmp_path / "spool", "store", store, 1000)
    yield made
    store.there = True
    made.close()


def killed(sender):
    """Leave the file as the death of the process would."""
    file, sender._file = sender._file, None
    file.close(remove=False)
    return found(file.path.parent)


def partly(write, error):
    """A write of which 7 bytes are done when an error comes."""

    def pwrite(handle, data, place):
        if not pwrite.done:
            pwrite.done = True
            write(handle, data[:7], place)
            raise error
        return write(handle, data, place)

    pwrite.done = False
    return pwrite


def left_with(sender, change, tmp_path):
    """Put three entries, change the file, and return what the next process sends."""
    sender._send.there = False
    for number in (1, 2, 3):
        sender.put(entry(number))
    file, sender._file = sender._file, None
    file.close(remove=False)
    body = bytearray(file.path.read_bytes())
    length = len(body) // 3
    file.path.write_bytes(change(body, length))
    store = Store()
    following = Sender(tmp_path / "spool", "store", store, 1000)
    following.flush()
    following.close()
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".refused"]
    return store.entries


def test_zeros_at_the_end_hide_nothing(sender, tmp_path):
    """As a file system leaves them of a file that grew when the power failed."""
    assert left_with(sender, lambda body, _: body + bytes(100), tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("place", [4, 30], ids=["checksum", "body"])
def test_a_flipped_bit_costs_one_record(sender, tmp_path, place, caplog):
    def flip(body, length):
        body[length + place] ^= 1
        return body

    assert left_with(sender, flip, tmp_path) == [1, 3]
    assert re.search(r"\d+ bytes of the spool .*cannot be read; its other events", caplog.text)


def test_damage_that_spans_records_ends_nothing(sender, tmp_path):
    def flip(body, length):
        body[4] ^= 1
        body[length + 30] ^= 1
        return body

    assert left_with(sender, flip, tmp_path) == [3]


def test_a_wrong_length_ends_the_file(sender, tmp_path):
    def flip(body, length):
        body[length] ^= 1
        return body

    assert left_with(sender, flip, tmp_path) == [1]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
        (OSError(errno.ENOSPC, "full"), StoreFull),
        (OSError(errno.EDQUOT, "over quota"), StoreFull),
        (OSError(errno.EIO, "input/output error"), StoreError),
    ],
    ids=["interrupt", "memory", "full", "quota", "io"],
)
def test_half_a_record_hides_nothing_that_comes_after_it(
    sender, store, tmp_path, monkeypatch, error, raised
):
    store.there = False
    sender.put(entry(1))
    monkeypatch.setattr(os, "pwrite", partly(os.pwrite, error))
    where = re.escape(str(tmp_path / "spool")) if issubclass(raised, StoreError) else "^$"
    with pytest.raises(raised, match=where):
        sender.put(entry(2))
    sender.put(entry(3))
    sender.put(entry(4))
    assert killed(sender) == [1, 3, 4]


def test_an_error_of_cutting_off_is_no_error_of_what_comes_after(sender, store, monkeypatch):
    store.there = False
    sender.put(entry(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", partly(os.pwrite, OSError(errno.EIO, "write")))
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "cut")))
        for number in (2, 3):
            with pytest.raises(StoreError, match="Errno 5"):
                sender.put(entry(number))
    sender.put(entry(4))
    assert killed(sender) == [1, 4]


@finalizers_unheard()
def test_interrupted_at_any_moment(tmp_path):
    """Signals at random times; what was put is sent, or is found, and other threads go on."""
    for seed in range(40):
        store = Store()
        folder = tmp_path / str(seed)
        store.there = seed % 2 == 0
        sender = Sender(folder, "store", store, 1000)
        calls = [lambda n=n, s=sender: s.put(entry(n)) for n in range(60)]
        done, interrupted = interrupted_calls(calls, seed, microseconds=3000)
        after = threading.Thread(target=sender.put, args=[entry(100)], daemon=True)
        after.start()
        after.join(20)
        assert not after.is_alive()
        wanted = {*done, 100}
        if store.there:
            sender.flush()
            assert wanted <= set(store.entries), (seed, interrupted)
            sender.close()
            assert not found(folder)
        else:
            assert wanted <= set(killed(sender)), (seed, interrupted)
            store.there = True
            sender.close()


def moved(folder):
    folder.rename(folder.with_name("aside"))


def replaced(folder):
    shutil.copytree(folder, folder.with_name("copy"))
    moved(folder)
    folder.with_name("copy").rename(folder)


CHANGES = [moved, shutil.rmtree, replaced]


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_is_gone_while_the_store_takes_events(sender, store, tmp_path, change):
    sender.put(entry(1))
    change(tmp_path / "spool")
    sender.put(entry(2))
    assert store.entries[:1] == [1]
    assert sender._file.is_in_place()
    sender.flush()
    # A copy is taken for the file of a dead process; to send its events again changes nothing.
    assert store.entries == ([1, 1, 2] if change is replaced else [1, 2])


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_is_gone_while_the_store_takes_nothing(sender, store, tmp_path, change):
    store.there = False
    sender.put(entry(1))
    change(tmp_path / "spool")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=r"moved, deleted or replaced; 1 events are in memory"):
        sender.put(entry(2))
    assert sorted(tmp_path.rglob("*")) == before
    store.there = True
    sender.put(entry(3))
    sender.flush()
    assert store.entries == ([1, 1, 3] if change is replaced else [1, 3])  # as above


def test_a_file_that_cannot_be_emptied_is_sent_again(sender, store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "cut")))
        sender.put(entry(1))
        sender.flush()
    assert found(tmp_path / "spool") == [1]
    sender.put(entry(2))
    sender.flush()
    assert store.entries == [1, 2]


def test_a_thread_that_does_not_begin_is_followed_by_another(sender, store, monkeypatch):
    def failing(error):
        return lambda *_: (_ for _ in ()).throw(error)

    with monkeypatch.context() as patch:
        patch.setattr(sending, "start_new_thread", failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sender.put(entry(1))
        patch.setattr(sending, "start_new_thread", failing(RuntimeError("too many")))
        sender.put(entry(2))
        with pytest.raises(StoreUnavailable, match=r"too many\. 2 events wait in .*\.spool"):
            sender.flush()
    sender.put(entry(3))
    sender.flush()
    assert store.entries == [1, 2, 3]


def test_a_thread_that_dies_is_followed_by_another(sender, store, monkeypatch):
    """Those that wait for it are told."""
    died = []
    monkeypatch.setattr(sys, "unraisablehook", died.append)
    with monkeypatch.context() as patch:
        patch.setattr(
            "daskbroker.stores.spool.sender.next_batch",
            lambda waiting, most_rows: (_ for _ in ()).throw(MemoryError),
        )
        sender.put(entry(1))
        with pytest.raises(StoreUnavailable, match=r"has ended\. 1 events wait in .*\.spool"):
            sender.flush()
    sender.put(entry(2))
    sender.flush()
    assert store.entries == [1, 2]
    assert [one.exc_type for one in died] == [MemoryError]


def test_what_the_dead_left_is_sent_by_a_later_flush_if_the_store_is_away(tmp_path):
    store = Store()
    dead = Sender(tmp_path, "store", store, 1000)
    store.there = False
    dead.put(entry(1))
    assert killed(dead) == [1]
    sender = Sender(tmp_path, "store", store, 1000)
    sender.put(entry(2))  # it does not wait for the store
    with pytest.raises(StoreUnavailable, match="away"):
        sender.flush()
    store.there = True
    sender.put(entry(3))
    sender.flush()
    assert sorted(store.entries) == [1, 2, 3]
    sender.close()
    dead.close()
    assert not found(tmp_path)


def test_what_the_dead_left_is_sent_once_and_removed(tmp_path):
    dead, store = Sender(tmp_path, "store", Store(), 1000), Store()
    dead._send.there = False
    dead.put(entry(1))
    assert killed(dead) == [1]
    sender = Sender(tmp_path, "store", store, 1000)
    for number in (2, 3):
        sender.put(entry(number))
    assert store.entries[:1] == [1]  # before the first one that this process takes
    sender.close()
    assert (store.entries, list(tmp_path.iterdir())) == ([1, 2, 3], [])
    dead._send.there = True
    dead.close()


PUT = """
import sys
from pathlib import Path
from daskbroker.stores.spool.sender import Entry, Sender

def send(entries):
    print(*(row["seq_num"] for one in entries for row in one.rows))

sender = Sender(Path(sys.argv[1]), "store", send, 1000)
sender.put(Entry("descriptor", [{"seq_num": 7}], None))
"""


def test_what_waits_at_the_end_of_a_process_is_sent(tmp_path):
    command = [sys.executable, "-c", PUT, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, list(tmp_path.iterdir())) == ("7\n", [])


def test_files_that_cannot_be_opened_are_named(tmp_path, caplog):
    """Such as those of another user."""
    (tmp_path / "store-other.spool").symlink_to("store-other.spool")
    sender = Sender(tmp_path, "store", Store(), 1000)
    sender.put(entry(1))
    sender.flush()
    sender.close()
    assert "store-other.spool" in caplog.text
    assert caplog.text.count("not sent now: [Errno 40]") == 1


def test_a_sender_that_is_closed_before_it_takes_an_entry_refuses_it(sender, store, monkeypatch):
    monkeypatch.setattr(Entry, "to_bytes", lambda _: sender.close())  # as another thread does
    with pytest.raises(StoreError, match="has been closed"):
        sender.put(entry(1))
    assert store.entries == []


@pytest.mark.parametrize(
    ("call", "number", "kind"),
    [
        ("open", errno.EIO, StoreError),
        ("open", errno.ENOSPC, StoreFull),
        ("open", errno.EMFILE, StoreError),
        ("open", errno.ENOMEM, StoreError),
        ("open", errno.EACCES, ConfigError),
        ("rename", errno.EIO, StoreError),
        ("fstat", errno.EIO, StoreError),
    ],
)
def test_a_file_that_cannot_be_made(tmp_path, monkeypatch, call, number, kind):
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *_: (_ for _ in ()).throw(OSError(number, "failed")))
        with pytest.raises(kind, match=str(tmp_path)):
            SpoolFile.new(tmp_path, "store")
    SpoolFile.new(tmp_path, "store").close(remove=True)
    assert not any(path.stat().st_size for path in tmp_path.iterdir())
