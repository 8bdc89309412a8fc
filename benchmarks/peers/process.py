"""The peer as a process that is asked for things."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness import Timed

__all__ = ["Peer"]


class Peer:
    """databroker and suitcase-mongo in their own Python; see ``peer.py`` for what they do.

    Parameters
    ----------
    python
        Of their environment.
    """

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("peer.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},  # nobody's configuration
        )

    def ask(self, do: str, **arguments: Any) -> Timed:
        """Let it do something; what came out, and how long that alone took.

        Raises
        ------
        RuntimeError
            If it died; the reason is on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peer died when it was asked to {do}")
        return Timed(**json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
