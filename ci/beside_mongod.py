"""Run a command beside a MongoDB server of its own.

``python ci/beside_mongod.py COMMAND...`` puts the server's URI in place of ``MONGO`` in every
argument, and ends as the command does. With ``--in-memory`` before it the server does not wait for
a disk.
"""

from __future__ import annotations

import subprocess
import sys

from daskbroker.testing.mongod import mongod


def main(command: list[str]) -> int:
    """Exit status of the command."""
    in_memory = command[:1] == ["--in-memory"]
    command = command[in_memory:]
    with mongod(in_memory=in_memory) as server:
        return subprocess.call([part.replace("MONGO", server.uri) for part in command])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
