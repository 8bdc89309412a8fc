"""Stores, files and peers that are shared by the workloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_model
import pymongo

import daskbroker
from benchmarks.harness import Case, Sizes
from benchmarks.peers.environment import DATABROKER, PeerError
from benchmarks.peers.process import Peer, Peers
from daskbroker import DataBroker

__all__ = ["Bench"]


@dataclass(frozen=True)
class Bench:
    """Sizes, folder, server and peers of a workload.

    Attributes
    ----------
    sizes
        Sizes of the workload.
    folder
        Folder for files of documents.
    server
        URI of a MongoDB server, without a database.
    peers
        The other programs, by name.
    """

    sizes: Sizes
    folder: Path
    server: str
    peers: Peers

    @property
    def peer(self) -> Peer:
        """The peer that writes with suitcase-mongo and reads with databroker."""
        return self.peers[DATABROKER]

    def beside(self, name: str, make: Callable[[Peer], Iterable[Case]]) -> list[Case]:
        """Return the cases of a peer; none if it is missing, as ``peers.missing`` then says.

        Parameters
        ----------
        make
            Function from the peer to its cases. It may ask the peer to prepare something.
        """
        try:
            return list(make(self.peers[name]))
        except PeerError as error:
            self.peers.missing.setdefault(name, str(error))
            return []

    def recorded(self, name: str, documents: Iterable[Any]) -> str:
        """Write documents to a file for the peer, and return its path."""
        path = self.folder / f"{name}.jsonl"
        with path.open("w") as file:
            file.writelines(f"{json.dumps(pair)}\n" for pair in documents)
        return str(path)

    def written(self, name: str, documents: Iterable[Any]) -> tuple[DataBroker, DataBroker]:
        """Open two databases with the same documents from suitcase-mongo; seal the second."""
        file = self.recorded(name, documents)
        unsealed, sealed = (
            self.peer_written(file, f"{name}_{state}") for state in ("unsealed", "sealed")
        )
        sealed.seal()
        return unsealed, sealed

    def peer_written(self, file: str, database: str) -> DataBroker:
        """Have suitcase-mongo write a database, and open it.

        If suitcase-mongo is missing, write the documents in its layout.
        """
        uri = f"{self.server}/{database}"
        try:
            self.peer.ask("write", file=file, uri=uri)
        except PeerError as error:
            self.peers.missing.setdefault(DATABROKER, str(error))
            _write_as_suitcase(Path(file), uri)
        return daskbroker.connect(uri)


def _write_as_suitcase(file: Path, uri: str) -> None:
    """Write recorded documents in suitcase-mongo's layout; for runs without detector files."""
    collections = {"start": "run_start", "stop": "run_stop", "descriptor": "event_descriptor"}
    with pymongo.MongoClient[dict[str, Any]](uri) as client, file.open() as lines:
        database = client.get_default_database()
        for name, doc in map(json.loads, lines):
            if name == "event_page":
                database["event"].insert_many(event_model.unpack_event_page(doc))
            else:
                database[collections[name]].insert_one(doc)
    with daskbroker.connect(uri) as broker:
        broker.header_source.store.create_indexes()
