"""The peer as a process that is asked for things."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness import Timed
from benchmarks.peers.environment import DATABROKER, PEERS, peer_python

__all__ = ["Peer", "Peers"]


class Peer:
    """Other programs in their own Python; see ``peer.py`` for what databroker does.

    Parameters
    ----------
    python
        Of their environment.
    script
        What it runs, beside this file.
    """

    def __init__(self, python: str, script: str = "peer.py") -> None:
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(Path(__file__).with_name(script))],
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


class Peers:
    """The peers by name, each started when it is asked for first.

    Parameters
    ----------
    databroker_python
        A Python that has databroker; by default as :func:`peer_python` says.
    """

    def __init__(self, databroker_python: str | None = None) -> None:
        self._given = {DATABROKER: databroker_python}
        self._started: dict[str, Peer] = {}

    def __getitem__(self, name: str) -> Peer:
        if name not in self._started:
            python = peer_python(self._given.get(name), name)
            self._started[name] = Peer(python, PEERS[name].script)
        return self._started[name]

    def versions(self) -> dict[str, str]:
        """Of the peers that were started, and of what matters beside them."""
        found: dict[str, str] = {}
        for peer in self._started.values():
            found = peer.ask("versions").value | found
        return found

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *exception: object) -> None:
        for peer in self._started.values():
            peer.close()
