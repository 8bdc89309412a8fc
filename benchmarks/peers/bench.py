"""What the workloads beside peers are made on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.harness import Sizes
from benchmarks.peers.environment import DATABROKER
from benchmarks.peers.process import Peer, Peers
from daskbroker import DataBroker

__all__ = ["Bench"]


@dataclass(frozen=True)
class Bench:
    """Everything that a workload is made on.

    Attributes
    ----------
    sizes
        How large.
    folder
        For files of documents.
    server
        URI of a MongoDB server, without a database.
    peers
        Other programs by name.
    """

    sizes: Sizes
    folder: Path
    server: str
    peers: Peers

    @property
    def peer(self) -> Peer:
        """Writes with suitcase-mongo, reads with databroker."""
        return self.peers[DATABROKER]

    def recorded(self, name: str, documents: Iterable[Any]) -> str:
        """A file of documents for the peer."""
        path = self.folder / f"{name}.jsonl"
        with path.open("w") as file:
            file.writelines(f"{json.dumps(pair)}\n" for pair in documents)
        return str(path)

    def written(self, name: str, documents: Iterable[Any]) -> tuple[DataBroker, DataBroker]:
        """Two databases that suitcase-mongo wrote, opened: one as it is, one sealed."""
        file = self.recorded(name, documents)
        unsealed, sealed = (
            self.peer_written(file, f"{name}_{state}") for state in ("unsealed", "sealed")
        )
        sealed.seal()
        return unsealed, sealed

    def peer_written(self, file: str, database: str) -> DataBroker:
        """A database that suitcase-mongo writes now, opened."""
        uri = f"{self.server}/{database}"
        self.peer.ask("write", file=file, uri=uri)
        return daskbroker.connect(uri)
