"""A loss of power takes nothing that was promised; a sync that is left out would be noticed.

``python -m daskbroker.testing.powerloss`` is the full number of writers, instants and states.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from daskbroker.testing.call_recorder import Call
from daskbroker.testing.disk_states import Disk, Loss

CHANGED_WRITERS = """
import json, multiprocessing, os, random, sys
from daskbroker.assets import transfer
from daskbroker.core import durable_files
from daskbroker.stores.embedded import database, log_sync, packing, sealing
from daskbroker.testing.powerloss import LOSSES, Counts, Plan, check_writer

nothing = lambda *a: None

def problem(writer):
    exec(writer["change"], globals())
    choose = random.Random(5)
    plan = Plan.drawn(choose, 6, writer["interval"], fails=writer["fails"])
    try:
        check_writer(plan, writer["cuts"], choose, Counts(), LOSSES[:1])
    except SystemExit as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(pool.map(problem, json.loads(sys.argv[1]), chunksize=1)))
"""
"""Prints what is noticed of each writer, as JSON. Each is changed in a forked process of its own,
so that the modules are imported once for all."""

NOT_WRITTEN_AGAIN = """
def forget(self):
    self._trouble, self._synced, self._since = None, self._written, None
log_sync.LogSync._write_again = forget
"""

WRITERS = {
    change: {"change": change, "interval": 0.1, "fails": False, "cuts": 1}
    for change in (
        "sealing.sync_file = nothing",
        "packing.sync_file = nothing",
        "packing.publish_file = os.replace",
        "sealing.publish_file = os.replace",
        "durable_files.sync_file = nothing",  # of an export
        "durable_files.DurableFolders.make = lambda s, f: f.mkdir(parents=True, exist_ok=True)",
        "database.make_folder = lambda f: f.mkdir(parents=True, exist_ok=True)",
        "transfer.sync_file = nothing",
        "transfer.sync_folder = nothing",
    )
}
NOT_SYNCED = {**WRITERS["sealing.sync_file = nothing"], "cuts": 30}
NOT_SYNCED["change"] = "log_sync.fdatasync = nothing"
FORGETFUL = {"change": NOT_WRITTEN_AGAIN, "interval": 0, "fails": True, "cuts": 60}


@pytest.fixture(scope="module")
def noticed():
    """Return what is noticed of each changed writer, or None, by its change."""
    writers = [*WRITERS.values(), NOT_SYNCED, FORGETFUL]
    command = [sys.executable, "-c", CHANGED_WRITERS, json.dumps(writers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    changes = [writer["change"] for writer in writers]
    return dict(zip(changes, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_the_short_form():
    command = [sys.executable, "-m", "daskbroker.testing.powerloss", "--short"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 states of 2 writers" in done.stdout
    assert "every promise was kept" in done.stdout


@pytest.mark.parametrize("change", WRITERS, ids=lambda change: change.partition(" ")[0])
def test_a_sync_that_is_left_out_is_noticed(change, noticed):
    assert "power lost at call" in noticed[change]


def test_a_log_that_is_not_synced_is_noticed(noticed):
    assert "its stop is lost" in noticed[NOT_SYNCED["change"]]


def test_a_log_that_is_not_written_again_after_a_failure_is_noticed(noticed):
    assert "power lost at call" in noticed[NOT_WRITTEN_AGAIN]


# -- the model of a disk ---------------------------------------------------------------------

ORDER = iter(range(1, 10**6))


def call(kind, path, inode=0, **more):
    began = next(ORDER)
    return Call(kind, path, inode, began, next(ORDER), 0.0, **more)


@pytest.fixture
def disk(tmp_path):
    """A disk, and a function that makes calls on it and gives what is left of it."""
    root = tmp_path / "root"
    made = Disk(root)

    def after(*calls, bytes=0.0, names=0.0):
        for kind, path, *rest in calls:
            more = dict(rest[1]) if len(rest) > 1 else {}
            if "other" in more:
                more["other"] = str(root / more["other"])
            made.apply(call(kind, str(root / path), rest[0] if rest else 0, **more))
        target = tmp_path / f"state-{next(ORDER)}"
        made.write_state(target, Loss(bytes, names), random.Random(0))
        return {
            str(path.relative_to(target)): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file()
        }

    return after


def test_only_synced_bytes_under_synced_names_are_left(disk):
    write = {"data": b"abc", "offset": 0}
    assert disk(("create", "a", 1), ("write", "a", 1, write), ("sync", "a", 1)) == {}
    assert disk(names=1.0) == {"a": b"abc"}
    assert disk(("sync", "")) == {"a": b"abc"}
    more = {"data": b"X" * 5000, "offset": 1}
    assert disk(("write", "a", 1, more)) == {"a": b"abc"}
    assert disk(bytes=1.0) == {"a": b"a" + b"X" * 5000}


def test_a_file_in_a_folder_whose_name_is_not_synced_is_lost(disk):
    assert disk(("mkdir", "f"), ("create", "f/a", 1), ("sync", "f/a", 1), ("sync", "f")) == {}
    assert disk(("sync", "")) == {"f/a": b""}


def test_a_rename_counts_when_the_folder_is_synced(disk):
    new = {"data": b"new", "offset": 0}
    disk(("create", "a", 1), ("sync", "a", 1), ("sync", ""))
    disk(("create", "b", 2), ("write", "b", 2, new), ("sync", "b", 2))
    assert disk(("rename", "b", 0, {"other": "a"})) == {"a": b""}
    assert disk(("sync", "")) == {"a": b"new"}
