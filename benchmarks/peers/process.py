"""The peer as a process that is asked for things."""

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
"""Seconds after which a peer that does not answer is ended."""


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
        try:
            self._process = subprocess.Popen(
                [python, "-W", "ignore", str(Path(__file__).with_name(script))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},  # nobody's configuration
            )
        except OSError as error:
            raise PeerError(f"{python} cannot be run: {error.strerror}") from error

    def ask(self, do: str, **arguments: Any) -> Timed:
        """Let it do something; what came out, and how long that alone took.

        Raises
        ------
        PeerError
            If it failed, which it tells, died, or did not answer in time; then it is ended, and
            its own words are on standard error.
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
        """Whether there is something to read, or the end of it, within the time."""
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
    """The peers by name, each started when it is asked for first.

    Parameters
    ----------
    databroker_python
        A Python that has databroker; by default as :func:`peer_python` says.

    Attributes
    ----------
    missing
        Why a peer cannot be had, by its name.
    """

    def __init__(self, databroker_python: str | None = None) -> None:
        self._given = {DATABROKER: databroker_python}
        self._started: dict[str, Peer] = {}
        self._versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def __getitem__(self, name: str) -> Peer:
        """A peer that runs.

        Raises
        ------
        PeerError
            If it cannot be installed or started; it is not tried again.
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
            # Of two peers that have a package in common, the first one's version is told.
            self._versions = peer.ask("versions").value | self._versions
        except PeerError:
            peer.close()
            raise
        return peer

    def versions(self) -> dict[str, str]:
        """Versions of the peers that were started, and of the packages that matter for them."""
        return self._versions

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *exception: object) -> None:
        for peer in self._started.values():
            peer.close()
