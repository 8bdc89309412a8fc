from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager

import httpx
import pytest

KEY = "abc123"


@contextmanager
def running(command, url, **environment):
    """A server that answers; ended with the block."""
    # It writes a line for each request, and would stop at a full pipe that nobody reads.
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            for _ in range(600):
                assert process.poll() is None, output.seek(0) or output.read()
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
