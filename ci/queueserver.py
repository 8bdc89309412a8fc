"""Check that plans of a real bluesky-queueserver, published by 0MQ, arrive in a store.

    python ci/queueserver.py PYTHON

PYTHON belongs to an environment with bluesky-queueserver and ophyd. redis-server must be on the
PATH.
"""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import daskbroker

STARTUP = """
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher
from bluesky.plans import count, scan
from ophyd.sim import det, motor

RE = RunEngine({})
RE.subscribe(Publisher("127.0.0.1:%d"))
"""
PERMISSIONS = """
user_groups:
  root: {allowed_plans: [null], allowed_devices: [null], allowed_functions: [null]}
  primary: {allowed_plans: [":.*"], allowed_devices: [":?.*:depth=5"], allowed_functions: [":.*"]}
"""
PLANS = {
    "count": """{"name": "count", "args": [["det"]], "kwargs": {"num": 3}}""",
    "scan": """{"name": "scan", "args": [["det"], "motor", -1, 1, 5]}""",
}
SECONDS = 120


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def until(what: str, done: Callable[[], object]) -> None:
    """Wait until a condition holds; ``what`` names it in the error if it never does."""
    deadline = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not in {SECONDS} s")
        time.sleep(0.5)


def main(python: str) -> None:
    """Start all processes, run the plans of the queue, and check the runs in the store."""
    bin_folder = Path(python).parent
    published, subscribed, redis, control, information = (free_port() for _ in range(5))
    with tempfile.TemporaryDirectory() as place, ExitStack() as ending:
        folder = Path(place)
        (folder / "startup.py").write_text(STARTUP % published)
        (folder / "permissions.yaml").write_text(PERMISSIONS)
        paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

        def start(name: str, *command: object, **more: dict[str, str]) -> subprocess.Popen:
            with open(folder / f"{name}.log", "w") as log:
                process = subprocess.Popen(
                    list(map(str, command)), stdout=log, stderr=log, cwd=folder, **more
                )
            ending.callback(end, process)
            return process

        def qserver(*words: str) -> dict:
            """Send a command to the manager, and return its answer."""
            command = [bin_folder / "qserver", "--zmq-control-addr", f"tcp://127.0.0.1:{control}"]
            done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
            _, _, answer = done.stdout.partition("MESSAGE: \n")
            return ast.literal_eval(answer) if answer.startswith("{") else {}

        start("redis", "redis-server", "--port", redis, "--save", "", "--bind", "127.0.0.1")
        proxy = (
            "from bluesky.callbacks.zmq import Proxy; Proxy('127.0.0.1:{}', '127.0.0.1:{}').start()"
        )
        start("proxy", python, "-c", proxy.format(published, subscribed))
        listener = start(
            "listen", sys.executable, "-u", "-m", "daskbroker", "listen",
            f"zmq://127.0.0.1:{subscribed}", "--db", folder / "store", "--spool", folder / "spool",
            env=paths,
        )  # fmt: skip
        start(
            "manager", bin_folder / "start-re-manager",
            "--startup-script", "startup.py", "--keep-re",
            "--redis-addr", f"localhost:{redis}", "--zmq-control-addr", f"tcp://127.0.0.1:{control}",
            "--zmq-info-addr", f"tcp://127.0.0.1:{information}",
            "--existing-plans-devices", "existing.yaml",
            "--update-existing-plans-devices", "ALWAYS",
            "--user-group-permissions", "permissions.yaml",
        )  # fmt: skip
        until("the listener", lambda: "connected" in (folder / "listen.log").read_text())
        until("the manager", lambda: qserver("status").get("manager_state") == "idle")
        qserver("environment", "open")
        until("the worker", lambda: qserver("status").get("worker_environment_exists"))
        for plan in PLANS.values():
            answer = qserver("queue", "add", "plan", plan)
            assert answer.get("success"), answer
        qserver("queue", "start")
        until("the plans", lambda: qserver("status").get("items_in_history") == len(PLANS))
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(SECONDS) == 0
        with daskbroker.connect(folder / "store", create=False, mode="r") as db:
            found = {h.start["plan_name"]: len(h.table().compute()) for h in db()}
            assert found == {"count": 3, "scan": 5}, found
            assert all(h.stop["exit_status"] == "success" for h in db())
        print(f"{len(PLANS)} plans of the queue are in the store: {found}")


def end(process: subprocess.Popen) -> None:
    """Terminate a process, and wait until it has ended."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
