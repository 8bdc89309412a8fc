"""Run a command beside a MongoDB server of its own.

``python ci/beside_mongod.py COMMAND...`` puts the server's URI in place of ``MONGO`` in every
argument, and ends as the command does.
"""

from __future__ import annotations

import subprocess
import sys

from daskbroker.testing.mongod import mongod


def main(command: list[str]) -> int:
    """Exit status of the command."""
    with mongod() as server:
        return subprocess.call([part.replace("MONGO", server.uri) for part in command])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
