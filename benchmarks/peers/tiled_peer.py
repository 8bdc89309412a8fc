"""Timed requests to a Tiled server with bluesky-tiled-plugins, by its client.

The peer's Python runs this file; see ``answering.py``. The server is in the same process, so data
pass through a local socket, and through no network.
"""

import tempfile
from importlib.metadata import version

from answering import answer, recorded
from bluesky_tiled_plugins import TiledWriter
from bluesky_tiled_plugins.exporters import json_seq_exporter
from tiled.client import from_uri
from tiled.media_type_registration import default_serialization_registry
from tiled.server import SimpleTiledServer

default_serialization_registry.register("BlueskyRun", "application/json-seq", json_seq_exporter)
FOLDER = tempfile.TemporaryDirectory(prefix="daskbroker-tiled-")
SERVER = SimpleTiledServer(FOLDER.name)


def versions():
    """Return a function that gives the versions of the packages that are compared."""
    return lambda: {name: version(name) for name in ("tiled", "bluesky-tiled-plugins")}


def write(file):
    """Insert recorded documents, as a RunEngine's callback does."""
    documents = list(recorded(file))
    writer = TiledWriter(from_uri(SERVER.uri), batch_size=10_000)

    def run():
        for name, doc in documents:
            writer(name, doc)
        return len(documents)

    return run


def table(run, fields=None):
    """Read a stream as pandas; return the number of rows and a sum to compare."""
    catalog = from_uri(SERVER.uri)
    chosen = [] if fields is None else [fields]

    def work():
        frame = catalog[run]["primary"].read(*chosen).to_dataframe()
        return {"rows": len(frame), "sum": float(frame["x3"].sum())}

    return work


def documents(run):
    """Count the events among the documents of one run."""
    catalog = from_uri(SERVER.uri)

    def work():
        counts = {"event": lambda doc: 1, "event_page": lambda doc: len(doc["seq_num"])}
        return sum(counts[name](doc) for name, doc in catalog[run].documents() if name in counts)

    return work


if __name__ == "__main__":
    answer(versions, write, table, documents)
    SERVER.close()
    FOLDER.cleanup()
