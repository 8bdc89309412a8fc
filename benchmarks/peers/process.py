"""A peer as a process to which requests are sent."""

from __future__ import annotations

import json
import selectors
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness import Timed
from benchmarks.peers.environment import DATABROKER, PEERS, PeerError, peer_python

__all__ = ["Peer", "Peers"]

ANSWER_WITHIN = 180.0
"""Seconds to wait for an answer of a peer before it is killed."""


class Peer:
    """Another program in a Python of its own; ``peer.py`` has the requests to databroker.

    Parameters
    ----------
    python
        Python of its environment.
    script
        Name of the file that it runs, beside this one.
    """

    def __init__(self, python: str, script: str = "peer.py") -> None:
        try:
            self._process = subprocess.Popen(
                [python, "-W", "ignore", str(Path(__file__).with_name(script))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # without the user's configuration of databroker and Tiled
                env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
            )
        except OSError as error:
            raise PeerError(f"{python} cannot be run: {error.strerror}") from error

    def ask(self, do: str, **arguments: Any) -> Timed:
        """Send a request, and return its result and the time that the peer measured.

        Raises
        ------
        PeerError
            If the request failed, the peer died, or it did not answer in time and was killed. Its
            own output is on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise PeerError(f"it had ended before it was asked to {do}") from None
        if not self._answers():
            self._process.kill()
            raise PeerError(f"no answer within {ANSWER_WITHIN:g} s when it was asked to {do}")
        answer = self._process.stdout.readline()
        if not answer:
            raise PeerError(f"it died when it was asked to {do}")
        found = json.loads(answer)
        if "error" in found:
            raise PeerError(f"it failed when it was asked to {do}: {found['error']}")
        return Timed(**found)

    def _answers(self) -> bool:
        """Wait for output of the process or its end, and return whether that came in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            return bool(selector.select(ANSWER_WITHIN))

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=ANSWER_WITHIN)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Peers:
    """The peers by name, each started at its first use.

    Parameters
    ----------
    databroker_python
        A Python that has databroker; by default the one of :func:`peer_python`.

    Attributes
    ----------
    missing
        Why a peer cannot be used, by its name.
    """

    def __init__(self, databroker_python: str | None = None) -> None:
        self._given = {DATABROKER: databroker_python}
        self._started: dict[str, Peer] = {}
        self._versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def __getitem__(self, name: str) -> Peer:
        """Return a running peer.

        Raises
        ------
        PeerError
            If it cannot be installed or started. That is tried only once.
        """
        if name in self.missing:
            raise PeerError(self.missing[name])
        if name not in self._started:
            try:
                self._started[name] = self._start(name)
            except PeerError as error:
                self.missing[name] = str(error)
                raise
        return self._started[name]

    def _start(self, name: str) -> Peer:
        peer = Peer(peer_python(self._given.get(name), name), PEERS[name].script)
        try:
            # If two peers share a package, the version of the first one is kept.
            self._versions = peer.ask("versions").value | self._versions
        except PeerError:
            peer.close()
            raise
        return peer

    def versions(self) -> dict[str, str]:
        """Return the versions of the peers that were started and of their main packages."""
        return self._versions

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *exception: object) -> None:
        for peer in self._started.values():
            peer.close()
