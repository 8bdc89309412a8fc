"""Let every system call fail, one after the other, and check that nothing is lost.

``python -m daskbroker.testing.faults`` runs small sessions: an embedded store that is written,
sealed, packed and closed; one with a spool; an export with copies of detector files; a store that
is checked, backed up, copied and reprocessed. It counts their calls, including those of SQLite:
writes, reads, syncs, renames, folders made, and files opened, removed, truncated and closed. Then
each session is run again for each call, which fails: either once, after which the refused step is
repeated, or from then on. The errors take turns; with ``--each-error`` every call has each of them.
A failure must raise a StoreError that names a path (FillError for detector files). Afterwards, in
another process, everything that was reported as stored must be there. ``--most 5`` takes five
failures of each kind of call, spread over the session; ``--sessions spool --kinds sync rename``
only some of them. All of them, some 7,500, take about 45 minutes of one processor; on a disk they
also wait for its syncs, so ``TMPDIR`` had better be a folder in memory.

It needs a C compiler (``cc``) and Linux: the calls are counted by a library that is loaded before
the C library.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import FillError, MissingTimeWarning, StoreError, UnknownReference
from .fault_sessions import SESSIONS, Session, small_sizes

KINDS = ("write", "sync", "rename", "mkdir", "open", "unlink", "truncate", "close", "read")
ERRORS = ("EIO", "ENOSPC", "EDQUOT")
LIBRARY = "DASKBROKER_FAILING_CALLS"
EVER = 10**9
MOST_ATTEMPTS = 3


class Fault(NamedTuple):
    """Call that is made to fail.

    Attributes
    ----------
    kind, number
        Kind of the call, and its number among the calls of this kind.
    error
        Name of the error that it returns.
    once
        Whether later calls succeed.
    """

    kind: str
    number: int
    error: str
    once: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.number}{'' if self.once else ' and later'}: {self.error}"


class Calls:
    """Library that counts calls and lets them fail, in a process that was started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[LIBRARY])

    def fail(self, folder: Path, fault: Fault | None) -> None:
        """Count calls below a folder from now on, and let those of a fault fail."""
        kind, number, last, code = -1, 0, 0, 0
        if fault is not None:
            kind, number = KINDS.index(fault.kind), fault.number
            last = number if fault.once else EVER
            code = getattr(errno, fault.error)
        self._library.failing_calls_arm(os.fsencode(folder), kind, number, last, code)

    def counts(self) -> dict[str, int]:
        """Return the number of calls of each kind."""
        return {kind: self._library.failing_calls_count(n) for n, kind in enumerate(KINDS)}


def build(folder: Path) -> Path:
    """Compile the library.

    Raises
    ------
    SystemExit
        If there is no compiler.
    """
    source = Path(__file__).with_name("failing_calls.c")
    library = folder / "failing_calls.so"
    compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1"]
    try:
        subprocess.run([*compiler, "-o", str(library), str(source), "-ldl"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"a C compiler is needed: {error}") from None
    return library


# -- one session -----------------------------------------------------------------------------


def _attempt(session: Session, folder: Path, *, once: bool) -> dict[str, Any]:
    """Do the steps of a session; return the steps done and the errors."""
    report: dict[str, Any] = {"done": [], "errors": 0, "wrong": []}
    for name, step in session.steps(folder):
        for _ in range(MOST_ATTEMPTS if once else 1):
            try:
                step()
            except (StoreError, FillError) as error:
                report["errors"] += 1
                if str(folder) not in str(error):
                    report["wrong"].append(f"{name}: no path in {error}")
            except UnknownReference as error:
                if once or not report["errors"]:  # otherwise what it refers to was refused
                    report["wrong"].append(f"{name}: {error}")
            except BaseException as error:
                report["wrong"].append(f"{name}: {type(error).__name__}: {error}")
            else:
                report["done"].append(name)
                break
        else:
            if once:
                report["wrong"].append(f"{name}: fails again and again")
    return report


def _in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the report of a forked child, which ends without closing anything."""
    return _reported(*_begun(work))


def _begun(work: Callable[[], dict[str, Any]]) -> tuple[int, int]:
    """Fork a child; return its process id and the pipe that it reports to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            report = work()
        except BaseException as error:
            report = {"done": [], "errors": 0, "wrong": [f"{type(error).__name__}: {error}"]}
        with os.fdopen(writing, "w") as pipe:
            json.dump(report, pipe)
        os._exit(0)
    os.close(writing)
    return child, reading


def _reported(child: int, reading: int) -> dict[str, Any]:
    """Return the report of such a child when it ends."""
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not text:
        return {"done": [], "errors": 0, "wrong": [f"a child ended with status {status:#x}"]}
    return dict(json.loads(text))


def _check(session: Session, folder: Path, done: Sequence[str]) -> Iterator[str]:
    """Return the errors in what a session has left behind."""
    try:
        yield from session.check(folder, done)
    except Exception as error:
        yield f"afterwards {type(error).__name__}: {error}"


def _one(calls: Calls, session: Session, fault: Fault) -> tuple[int, list[str]]:
    """Run a session in which a call fails; return the number of errors raised and what is wrong."""
    with tempfile.TemporaryDirectory(prefix="daskbroker-faults-") as name:
        folder = Path(name, "place")
        folder.mkdir()

        def work() -> dict[str, Any]:
            session.prepare(folder)
            calls.fail(folder, fault)
            report = _attempt(session, folder, once=fault.once)
            calls.fail(Path(name, "nowhere"), None)
            return report

        report = _in_child(work)
        wrong = list(report["wrong"])
        left = _in_child(lambda: {"wrong": list(_check(session, folder, report["done"]))})
        return report["errors"], wrong + left["wrong"]


def _count(calls: Calls, session: Session) -> dict[str, int]:
    """Return the number of calls of each kind in a session in which none fails."""
    with tempfile.TemporaryDirectory(prefix="daskbroker-faults-") as name:

        def work() -> dict[str, Any]:
            session.prepare(Path(name))
            calls.fail(Path(name), None)
            report = _attempt(session, Path(name), once=True)
            return {**report, "counts": calls.counts()}

        report = _in_child(work)
        wrong = report["wrong"] or list(_check(session, Path(name), report["done"]))
        if wrong or report["errors"]:
            raise SystemExit(f"{session.name}: without a fault: {wrong}")
        return dict(report["counts"])


# -- all of them -----------------------------------------------------------------------------


def _faults(
    counts: dict[str, int], errors: Sequence[str], most: int | None, *, each_error: bool
) -> list[Fault]:
    """Return the faults to try: all calls, or some of each kind, evenly spread."""
    found: list[Fault] = []
    for kind, count in counts.items():
        each = [
            (number, error, once)
            for number, error, once in product(range(1, count + 1), errors, (True, False))
            if each_error or error == errors[number % len(errors)]
        ]
        some = len(each) if most is None else min(most, len(each))
        found += (Fault(kind, *each[index * len(each) // some]) for index in range(some))
    return found


def _share(calls: Calls, session: Session, faults: Sequence[Fault]) -> dict[str, Any]:
    """Try a share of the faults and write what is wrong."""
    told = failed = 0
    for fault in faults:
        errors, wrong = _one(calls, session, fault)
        told, failed = told + bool(errors), failed + bool(wrong)
        for one in wrong:
            sys.stdout.write(f"{session.name}, {fault}: {one}\n")
        sys.stdout.flush()
    return {"total": len(faults), "told": told, "failed": failed}


def _drive(options: argparse.Namespace) -> None:
    calls = Calls()
    logging.disable()  # each failure would be a warning: thousands of them
    warnings.simplefilter("ignore", MissingTimeWarning)  # of the derived runs, in each session
    outcome = Counter(total=0, told=0, failed=0)
    for session in SESSIONS:
        if session.name in options.sessions:
            outcome.update(_drive_session(calls, session, options))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.stdout.write(f"{_told(outcome)}; {used.ru_utime + used.ru_stime:.0f} s of processors\n")
    if outcome["failed"]:
        raise SystemExit(1)


def _drive_session(calls: Calls, session: Session, options: argparse.Namespace) -> Counter[str]:
    counts = _count(calls, session)
    counts = {kind: count for kind, count in counts.items() if kind in options.kinds and count}
    faults = _faults(counts, options.errors, options.most, each_error=options.each_error)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    sys.stdout.write(f"{session.name}: {listed}; {len(faults)} faults\n")
    sys.stdout.flush()  # or children would write it too
    gc.freeze()  # or each child would copy all of the heap
    working = [
        _begun(partial(_share, calls, session, faults[number :: options.jobs]))
        for number in range(options.jobs)
    ]
    outcome: Counter[str] = Counter()
    for report in [_reported(*child) for child in working]:
        if report.get("wrong"):
            raise SystemExit(f"{session.name}: {report['wrong'][0]}")
        outcome.update(report)
    sys.stdout.write(f"{session.name}: {_told(outcome)}\n")
    return outcome


def _told(outcome: Counter[str]) -> str:
    return (
        f"{outcome['total']} faults, {outcome['told']} of them told of, "
        f"{outcome['failed']} with a wrong outcome"
    )


def _error_name(given: str) -> str:
    """Return the name of an error that is given by its name or number."""
    name = errno.errorcode.get(int(given), "") if given.isdecimal() else given
    if name not in errno.errorcode.values():
        raise argparse.ArgumentTypeError(f"there is no error {given!r}; give a name such as EIO")
    return name


def main(arguments: list[str] | None = None) -> None:
    """Run the sessions with faults; the process starts itself again with the library."""
    parser = argparse.ArgumentParser(
        prog="python -m daskbroker.testing.faults", description=__doc__
    )
    names = [session.name for session in SESSIONS]
    parser.add_argument("--most", type=int, help="maximum number of faults per kind of call")
    parser.add_argument("--each-error", action="store_true", help="every call with each error")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="number of sessions at a time (all processors)",
    )
    parser.add_argument(
        "--errors",
        nargs="+",
        type=_error_name,
        default=list(ERRORS),
        metavar="ERRNO",
        help=f"names or numbers of errors ({' '.join(ERRORS)})",
    )
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--sessions", nargs="+", default=names, choices=names)
    options = parser.parse_args(arguments)
    if LIBRARY in os.environ:
        with small_sizes():
            _drive(options)
        return
    with tempfile.TemporaryDirectory(prefix="daskbroker-faults-") as folder:
        library = str(build(Path(folder)))
        command = [sys.executable, "-m", __spec__.name, *(arguments or sys.argv[1:])]
        env = {**os.environ, "LD_PRELOAD": library, LIBRARY: library}
        raise SystemExit(subprocess.run(command, env=env, check=False).returncode)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
