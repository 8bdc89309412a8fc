"""databroker 2 at work, timed on request: a Tiled server over databroker's MongoDB, and its client.

Run by the peer's Python, not by ours; see ``answering.py``. Server and client are in one process
and speak to each other without a socket, which is the quickest way that databroker 2 has.
"""

from importlib.metadata import version

import pandas
from answering import answer
from databroker.mongo_normalized import MongoAdapter
from databroker.v1 import Broker
from frame_handler import FrameHandler
from tiled.client import Context, from_context
from tiled.server.app import build_app

DOCUMENTS = {"event": lambda doc: 1, "event_page": lambda doc: len(doc["seq_num"])}


def versions():
    """Return a function that gives the versions of the packages that are compared."""
    return lambda: {"databroker 2": version("databroker")}


CLIENTS = {}


def _catalog(uri):
    """A client that has cached no run; one of each server's, as servers stay."""
    if uri not in CLIENTS:
        tree = MongoAdapter.from_uri(
            uri, handler_registry={"AD_HDF5": FrameHandler}, cache_ttl_complete=0
        )
        CLIENTS[uri] = Context.from_app(build_app(tree))
    return from_context(CLIENTS[uri])


def table(uri, run, fields=None):
    """A stream as pandas; how many rows, and a sum to compare."""
    stream = _catalog(uri)[run]["primary"]["data"]
    chosen = [] if fields is None else [fields]

    def work():
        frame = stream.read(*chosen).to_dataframe()
        return {"rows": len(frame), "sum": float(frame["x3"].sum())}

    return work


def documents(uri, run):
    """Count the events among the documents of one run."""
    opened = _catalog(uri)[run]

    def work():
        counted = (DOCUMENTS[name](doc) for name, doc in opened.documents() if name in DOCUMENTS)
        return sum(counted)

    return work


def lookups(uri, keys):
    """Uids of the runs that keys find."""
    catalog = _catalog(uri)
    return lambda: [catalog[key].start["uid"] for key in keys]


def search(uri, query):
    """Uids of the runs that a query finds, the newest first; databroker 2 has the oldest first."""
    broker = Broker(_catalog(uri))
    return lambda: [header.start["uid"] for header in broker(**query)][::-1]


def tables(uri, query):
    """One table of the runs that a query finds; how many rows."""
    broker = Broker(_catalog(uri))
    return lambda: len(pandas.concat([header.table() for header in broker(**query)]))


def fill(uri, run, row=None):
    """All frames, or one row of pixels of each; how many, and a sum to compare."""
    image = _catalog(uri)[run]["primary"]["data"]["img"]

    def work():
        frames = image.read() if row is None else image.read((slice(None), slice(None), row))
        return {"rows": len(frames), "last": int(frames[-1].sum())}

    return work


if __name__ == "__main__":
    answer(versions, table, documents, lookups, search, tables, fill)
