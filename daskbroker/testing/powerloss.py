"""Cut the power of a disk under an embedded store and check that every promise was kept.

``python -m daskbroker.testing.powerloss`` records all that a writer does to files: its writes,
syncs, renames and folders, those of SQLite included (:mod:`.call_recorder`; Linux, no compiler
needed). For many instants it then makes the states that a disk may be in if power is lost at them
(:mod:`.disk_states`): only what was synced, each unsynced block of 4 KiB by chance, with and
without unsynced names in folders. Each is opened and compared with what was promised then:

- of a run whose stop was inserted every document is there;
- of an open run all is there that was inserted ``daskbroker.sync-interval`` ago (with 0: all), and
  what is there is a prefix of the run;
- no run that has a stop lacks any document, promised or not;
- files that ``export`` has returned, and detector files of copied runs, are complete.

The writer makes short runs, pages, runs of many chunks, packs, and enough for several checkpoints;
it closes the store and opens it again, copies runs with detector files, and exports. In half of
the recordings one sync of the log fails, and the data it should have synced are lost.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np

from ..connect import connect
from ..core.errors import StoreError, StoreNotFound
from ..exporting.runs import export
from ..stores.embedded import events as embedded_events
from ..stores.embedded import log_sync
from ..work.copying import copy
from .call_recorder import Call, record_calls
from .compare import assert_documents_equal, expand_documents
from .disk_states import Disk, Loss
from .runs import RunBuilder

Documents = list[tuple[str, Any]]

LOSSES = (
    Loss(0.0, 0.0), Loss(0.0, 1.0), Loss(0.5, 0.0), Loss(0.5, 0.5), Loss(0.9, 0.0),
    Loss(0.9, 0.5), Loss(1.0, 0.0), Loss(1.0, 1.0),
)  # fmt: skip
KINDS = [(1.0, False), (1.0, True), (0.1, False), (0.1, True), (0.0, False), (0.0, True)]
"""Intervals of the writers, and whether a sync fails."""
FRAMES = 3
MARKS = "marks"
STORE, COPY, FILES, OUT = "new/deep/store", "copied/store", "copied/files", "out/exported"
DETECTOR = "old"


@dataclass(frozen=True, eq=False)
class Plan:
    """Plan of what a writer does.

    Attributes
    ----------
    runs
        Documents of each run.
    sessions
        Number of times that the store is opened.
    interval
        ``daskbroker.sync-interval``.
    failing
        Number of the sync of the log that fails; 0 if none fails.
    """

    runs: list[Documents]
    sessions: int
    interval: float
    failing: int

    @classmethod
    def drawn(cls, choose: random.Random, runs: int, interval: float, *, fails: bool) -> Plan:
        """Return a plan with runs of all forms, of which some have no stop."""
        made = [_run(number, choose) for number in range(runs)]
        return cls(made, 2, interval, choose.randrange(2, runs) if fails else 0)


def _run(number: int, choose: random.Random) -> Documents:
    uid = f"run-{number:04}"
    events = choose.choice([3, 10, 30, 300]) if number % 5 else 600
    builder = RunBuilder(uid, time=1e9 + number, sample=f"s{number}")
    keys = [f"k{index}" for index in range(8)]
    descriptor = builder.descriptor(dict.fromkeys(keys, 1.0))
    rows = [{key: float(index + n) for n, key in enumerate(keys)} for index in range(events)]
    form = choose.choice(["events", "events", "page", "pages"])
    if form == "events":
        for row in rows:
            builder.event(descriptor, row)
    else:
        size = 60 if form == "pages" else len(rows)
        for begin in range(0, len(rows), size):
            builder.event_page(descriptor, rows[begin : begin + size])
    if choose.random() < 0.85:
        builder.stop()
    return builder.documents


# -- the writer ------------------------------------------------------------------------------


class _Marks:
    """File of the calls that have returned, which is recorded with the other files."""

    def __init__(self, root: Path) -> None:
        self._handle = os.open(root / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, *words: Any) -> None:
        os.write(self._handle, (" ".join(map(str, words)) + "\n").encode())


def _write(root: Path, plan: Plan) -> None:
    mark = _Marks(root)
    vars(embedded_events)["PACK_BYTES"] = 100_000  # packs, without megabytes of small runs
    if plan.failing:
        _fail_a_sync(mark, plan.failing)
    settings = {"daskbroker.sync-interval": plan.interval, "daskbroker.seal-rows": 200}
    with dask.config.set(settings):
        for session in range(plan.sessions):
            with connect(root / STORE) as db:
                for number in range(session, len(plan.runs), plan.sessions):
                    for index, (name, doc) in enumerate(plan.runs[number]):
                        _insert(db, name, doc, run=number)
                        mark("run", number, index)
        _copy_and_export(root, mark)
    mark("end")


def _insert(db: Any, name: str, doc: Any, run: int) -> None:
    """Insert a document, again if the log could not be synced."""
    for _ in range(3):
        try:
            db.insert(name, doc)
            return
        except StoreError:
            continue
    raise SystemExit(f"run {run}: {name} could not be inserted")


def _copy_and_export(root: Path, mark: _Marks) -> None:
    folder = root / DETECTOR
    with connect(root / STORE) as db, connect(root / COPY) as into:
        run = RunBuilder("frames", time=2e9)
        resource = run.resource("NPY_SEQ", root=str(folder), resource_path="img")
        descriptor = run.descriptor({"n": 1})
        for index in range(FRAMES):
            run.datum(resource, file_number=index)
            run.event(descriptor, {"n": index})
        run.stop()
        for name, doc in run.documents:
            _insert(db, name, doc, run=-1)
        report = copy(db(uid={"$in": ["frames", "run-0001", "run-0002"]}), into, files=root / FILES)
        if report.failed:
            raise SystemExit(f"copying failed: {report.failed}")
        mark("copied", *(uid for uid in report.copied if into[uid].stop is not None))
        for format in ("jsonl", "parquet"):
            for path in export([db["frames"], db["run-0001"]], root / OUT, format):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                mark("exported", path.relative_to(root), digest)


def _fail_a_sync(mark: _Marks, number: int) -> None:
    """Let one sync of the log fail as on a real disk: what was written is dropped."""
    count = 0
    sound = log_sync.fdatasync

    def sync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            mark("lost", os.readlink(f"/proc/self/fd/{handle}"))
            raise OSError(errno.EIO, "the disk failed")
        sound(handle)

    log_sync.fdatasync = sync


# -- what was promised -----------------------------------------------------------------------


@dataclass
class Promised:
    """What was promised at an instant, by the calls that had returned.

    Attributes
    ----------
    inserted
        ``{number of a run: times at which its inserts had returned, in order}``.
    copied
        Uids of copied runs.
    exported
        ``{path: digest}``.
    """

    inserted: dict[int, list[float]] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    exported: dict[str, str] = field(default_factory=dict)

    def note(self, call: Call) -> None:
        """Note a mark."""
        kind, *words = call.data.decode().split()
        if kind == "run":
            self.inserted.setdefault(int(words[0]), []).append(call.when)
        elif kind == "copied":
            self.copied += words
        elif kind == "exported":
            self.exported[words[0]] = words[1]


@dataclass
class Counts:
    """Counts over all checked states."""

    states: int = 0
    runs: int = 0
    events: int = 0
    beyond: int = 0
    """Documents that were inserted, and not promised yet, and are lost."""
    stake: float = 0.0
    """Age of the oldest of them, in seconds."""


def check_state(place: Path, plan: Plan, promised: Promised, now: float, counts: Counts) -> None:
    """Compare what survived with what was promised.

    Raises
    ------
    AssertionError
        If a promise was broken; the message names the run or the file.
    """
    there: dict[str, Documents] = {}
    try:
        with connect(place / STORE, create=False) as db:
            for header in db:
                there[header.uid] = list(header.documents(fill=False))
                events = sum(name == "event" for name, _ in there[header.uid])
                rows = sum(plan.events.rows for plan in header.plans())
                assert rows == events, f"{header.uid}: {rows} rows, {events} events"
                counts.events += events
    except StoreNotFound:
        assert not promised.inserted, "there is no store"
    counts.states += 1
    counts.runs += len(there)
    for number, documents in enumerate(plan.runs):
        uid = documents[0][1]["uid"]
        times = promised.inserted.get(number, [])
        _check_run(uid, documents, there.get(uid, []), times, plan, now, counts)
    if promised.copied:
        _check_copies(place, promised.copied)
    for path, digest in promised.exported.items():
        found = hashlib.sha256((place / path).read_bytes()).hexdigest()
        assert found == digest, f"{path} is not what was exported"


def _check_run(
    uid: str,
    documents: Documents,
    there: Documents,
    times: list[float],
    plan: Plan,
    now: float,
    counts: Counts,
) -> None:
    parts, singles, texts = _singles(plan, uid)
    # What is there is its beginning; comparing value by value takes most of the time.
    same = list(map(_text, there)) == texts[: len(there)]
    if there and there[-1][0] == "stop":
        if not same or len(there) < len(texts):
            assert_documents_equal(documents, there)
        return
    assert documents[-1][0] != "stop" or len(times) < len(documents), f"{uid}: its stop is lost"
    if not same:
        assert_documents_equal(singles[: len(there)], there)
    held = 0
    for part, when in zip(parts, times, strict=False):
        held += len(part)
        if len(there) < held:
            counts.beyond += 1
            counts.stake = max(counts.stake, now - when)
            kept = plan.interval > 0 and now - when <= plan.interval * log_sync.MOST_INTERVALS
            assert kept, f"{uid}: lost, {now - when:.3f} s after it was inserted"


@lru_cache(maxsize=1000)
def _singles(plan: Plan, uid: str) -> tuple[list[Documents], Documents, list[str]]:
    """Return a run's documents by inserted document, one by one, and as JSON text."""
    documents = next(run for run in plan.runs if run[0][1]["uid"] == uid)
    parts = [list(expand_documents([pair])) for pair in documents]
    singles = [one for part in parts for one in part]
    return parts, singles, list(map(_text, singles))


def _text(pair: tuple[str, Mapping[str, Any]]) -> str:
    return json.dumps(pair, sort_keys=True, default=dict)


def _check_copies(place: Path, copied: list[str]) -> None:
    with connect(place / COPY, create=False) as db:
        for uid in copied:
            assert db[uid].stop is not None, f"{uid}: its copy is lost"
            assert list(db[uid].documents(fill=False))
    files = sorted((place / FILES).rglob("*.npy"))
    assert len(files) == FRAMES, f"{len(files)} of {FRAMES} detector files are there"
    for number, file in enumerate(files):
        assert np.load(file)[0, 0] == number, f"{file} is not what was copied"


# -- all together ----------------------------------------------------------------------------


def replay(
    calls: list[Call],
    root: Path,
    plan: Plan,
    cuts: int,
    choose: random.Random,
    counts: Counts,
    losses: Sequence[Loss],
) -> None:
    """Make states at some instants and check each.

    Raises
    ------
    SystemExit
        If a check fails; the message has the instant and what survived.
    """
    wanted = {len(calls) - 1, *(choose.randrange(len(calls)) for _ in range(cuts - 1))}
    disk, promised = Disk(root), Promised()
    for index, call in enumerate(calls):
        if call.path == str(root / MARKS):
            if call.kind == "write" and call.data.startswith(b"lost "):
                disk.give_up(call.data.decode().split(maxsplit=1)[1].rstrip())
            elif call.kind == "write":
                promised.note(call)
        else:
            disk.apply(call)
        if index not in wanted:
            continue
        for loss in losses:
            with tempfile.TemporaryDirectory(prefix="daskbroker-power-") as folder:
                disk.write_state(Path(folder), loss, choose)
                try:
                    check_state(Path(folder), plan, promised, call.when, counts)
                except Exception as error:  # whatever it is, it is no answer
                    raise SystemExit(
                        f"power lost at call {index:,} of {len(calls):,} ({call.kind} of "
                        f"{call.path}), {loss}: {type(error).__name__}: {error}"
                    ) from error


def check_writer(
    plan: Plan,
    cuts: int,
    choose: random.Random,
    counts: Counts,
    losses: Sequence[Loss] = LOSSES,
) -> list[Call]:
    """Record a writer, cut the power at some instants, and check the states; return the calls.

    The last instant is the end of the writer.

    Raises
    ------
    SystemExit
        If a promise was broken.
    """
    root, calls = _record(plan)
    replay(calls, root, plan, cuts, choose, counts, losses)
    return calls


def _record(plan: Plan) -> tuple[Path, list[Call]]:
    """Return the folder of a writer, which no longer exists, and the calls made below it."""
    with tempfile.TemporaryDirectory(prefix="daskbroker-powerloss-") as folder:
        root = Path(folder).resolve()
        (root / DETECTOR).mkdir()
        for number in range(FRAMES):
            frame = np.full((50, 50), number)
            np.save(root / DETECTOR / f"img_{number}.npy", frame)
        return root, record_calls(root, lambda: _write(root, plan))


def main(arguments: list[str] | None = None) -> None:
    """Record writers, make and check states, and print their number."""
    parser = argparse.ArgumentParser(
        prog="python -m daskbroker.testing.powerloss",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=40, help="runs of each writer (40)")
    parser.add_argument("--cuts", type=int, default=40, help="instants in each recording (40)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--short", action="store_true", help="two writers of 8 runs, 4 instants")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    choose = random.Random(seed)
    runs, cuts = (8, 4) if options.short else (options.runs, options.cuts)
    kinds = [(0.1, True), (0.0, False)] if options.short else KINDS
    sys.stdout.write(f"seed {seed}\n")
    counts = Counts()
    for interval, fails in kinds:
        plan = Plan.drawn(choose, runs, interval, fails=fails)
        calls = check_writer(plan, cuts, choose, counts)
        kinds_of_calls = Counter(call.kind for call in calls)
        told = ", ".join(f"{n:,} {kind}" for kind, n in kinds_of_calls.most_common())
        sys.stdout.write(f"interval {interval} s{', a failed sync' * fails}: {told}\n")
    sys.stdout.write(
        f"{counts.states:,} states of {len(kinds)} writers ({len(LOSSES)} at each instant), with "
        f"{counts.runs:,} runs and {counts.events:,} events: every promise was kept. Of what was "
        f"inserted last, and not promised yet, the oldest that was lost was {counts.stake:.2f} s "
        "old\n"
    )


if __name__ == "__main__":
    main()
