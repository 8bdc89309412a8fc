"""Timed requests to databroker 2: a Tiled server on databroker's MongoDB, and its client.

The peer's Python runs this file; see ``answering.py``. Server and client are in one process and
communicate without a socket, which is the fastest configuration of databroker 2.
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
    """Return a client without cached runs. There is one server per URI, which is kept."""
    if uri not in CLIENTS:
        tree = MongoAdapter.from_uri(
            uri, handler_registry={"AD_HDF5": FrameHandler}, cache_ttl_complete=0
        )
        CLIENTS[uri] = Context.from_app(build_app(tree))
    return from_context(CLIENTS[uri])


def table(uri, run, fields=None):
    """Read a stream as pandas; return the number of rows and a sum to compare."""
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
    """Return the uids of the runs that keys find."""
    catalog = _catalog(uri)
    return lambda: [catalog[key].start["uid"] for key in keys]


def search(uri, query):
    """Return the uids that a query finds, newest first (databroker 2 has the oldest first)."""
    broker = Broker(_catalog(uri))
    return lambda: [header.start["uid"] for header in broker(**query)][::-1]


def tables(uri, query):
    """Make one table of the runs that a query finds; return the number of rows."""
    broker = Broker(_catalog(uri))
    return lambda: len(pandas.concat([header.table() for header in broker(**query)]))


def fill(uri, run, row=None):
    """Read all frames, or a row of pixels of each; return their number and a sum to compare."""
    image = _catalog(uri)[run]["primary"]["data"]["img"]

    def work():
        frames = image.read() if row is None else image.read((slice(None), slice(None), row))
        return {"rows": len(frames), "last": int(frames[-1].sum())}

    return work


if __name__ == "__main__":
    answer(versions, table, documents, lookups, search, tables, fill)
