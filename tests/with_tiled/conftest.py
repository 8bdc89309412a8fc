from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager

import httpx
import pytest

KEY = "abc123"


@contextmanager
def running(command, url, **environment):
    """A server that answers; ended with the block."""
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, process.stdout.read()
                try:
                    httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def free_port():
    def find():
        with socket.socket() as some:
            some.bind(("127.0.0.1", 0))
            return some.getsockname()[1]

    return find
