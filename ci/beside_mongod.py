"""Run a command with a MongoDB server of its own.

``python ci/beside_mongod.py COMMAND...`` replaces ``MONGO`` in each argument by the URI of the
server, and ends with the exit status of the command. With ``--in-memory`` before the command the
server does not wait for a disk.
"""

from __future__ import annotations

import subprocess
import sys

from daskbroker.testing.mongod import mongod


def main(command: list[str]) -> int:
    """Run the command, and return its exit status."""
    in_memory = command[:1] == ["--in-memory"]
    command = command[in_memory:]
    with mongod(in_memory=in_memory) as server:
        return subprocess.call([part.replace("MONGO", server.uri) for part in command])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
