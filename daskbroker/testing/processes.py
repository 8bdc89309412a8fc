"""Other processes for tests: forked from a server that has imported daskbroker once.

A process of its own takes two seconds of a core to import what a store and its views need, and most
tests with several processes much less for all the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

PROCESSES = multiprocessing.get_context("forkserver")
"""Context whose processes have nothing of this one but its ``sys.path`` and folder.

They know of no broker, connection, thread or setting of it. The environment is the one in which
the first of them was started.
"""
PROCESSES.set_forkserver_preload(
    [
        "daskbroker.broker",
        "daskbroker.stores.embedded.opening",
        "daskbroker.stores.mongodb.opening",
        "daskbroker.testing.base",
        "daskbroker.connect",
        # What is imported late: by the first document, view and computation.
        "event_model",
        "daskbroker.work.reprocess",
        "distributed",
    ]
)


class Program:
    """The text of a Python program, run in a process as ``python -c`` runs it.

    It ends without what is registered by :mod:`atexit`.

    Parameters
    ----------
    text
        The program.
    *arguments
        Its ``sys.argv[1:]``.

    Attributes
    ----------
    stdin, stdout, stderr
        Text pipes to and from it.
    """

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO

    def __init__(self, text: str, *arguments: object) -> None:
        (given, stdin), (stdout, out), (stderr, err) = (PROCESSES.Pipe(False) for _ in range(3))
        theirs = (given, out, err)
        self._process = PROCESSES.Process(target=_run, args=(text, [*map(str, arguments)], theirs))
        self._process.start()
        self.stdin = os.fdopen(os.dup(stdin.fileno()), "w")
        self.stdout, self.stderr = (os.fdopen(os.dup(end.fileno())) for end in (stdout, stderr))
        for end in (*theirs, stdin, stdout, stderr):
            end.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; None while the program runs."""
        return self._process.exitcode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Close its stdin, and wait until it ends; the rest of its stdout and stderr.

        Raises
        ------
        TimeoutError
            If it has not ended in time; it is killed then.
        """
        self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            self._process.join(timeout)
            in_time = self.returncode is not None
            self._process.kill()
        self.kill()
        if not in_time:
            raise TimeoutError(f"a program has not ended within {timeout:g} s")
        return said[0].result(), said[1].result()

    def kill(self) -> None:
        """End the program if it still runs, and close the pipes."""
        self._process.kill()
        self._process.join()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


def _run(text: str, arguments: list[str], ends: tuple[Any, ...]) -> None:
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering=1, closefd=False) for number, mode in enumerate("rww")
    )
    sys.argv = ["-c", *arguments]
    exec(compile(text, "<program>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
