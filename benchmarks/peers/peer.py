"""Timed requests to databroker and suitcase-mongo.

The peer's Python runs this file, so nothing of daskbroker is imported; see ``answering.py``.
"""

import databroker
import pandas
import pymongo
from answering import answer, recorded
from databroker._drivers.mongo_normalized import BlueskyMongoCatalog
from frame_handler import FrameHandler
from suitcase.mongo_normalized import Serializer


def versions():
    """Return a function that gives the versions of the packages that are compared."""
    modules = (databroker, pandas, pymongo)
    return lambda: {module.__name__: module.__version__ for module in modules}


def write(file, uri):
    """Insert recorded documents, with the indexes that a facility has."""
    documents = list(recorded(file))
    serializer = Serializer(uri, uri)
    serializer.create_indexes()

    def run():
        for name, doc in documents:
            serializer(name, doc)
        return len(documents)

    return run


def _broker(uri):
    """Return a new, connected broker, in which nothing is cached."""
    broker = BlueskyMongoCatalog(uri, uri).v1
    len(broker.v2)
    return broker


def table(uri, run, fields=None):
    """Make the table of a run; return the numbers of rows and columns, and a sum to compare."""
    broker = _broker(uri)
    options = {} if fields is None else {"fields": fields}

    def work():
        frame = broker[run].table(**options)
        return {"rows": len(frame), "columns": len(frame.columns), "sum": float(frame["x3"].sum())}

    return work


def documents(uri, run):
    """Count the events among the documents of one run."""
    broker = _broker(uri)
    return lambda: sum(name == "event" for name, _ in broker[run].documents())


def lookups(uri, keys):
    """Return the uids of the runs that keys find."""
    broker = _broker(uri)
    return lambda: [broker[key].start["uid"] for key in keys]


def search(uri, query):
    """Return the uids of the runs that a query finds."""
    broker = _broker(uri)
    return lambda: [header.start["uid"] for header in broker(**query)]


def tables(uri, query):
    """Make one table of the runs that a query finds; return the number of rows."""
    broker = _broker(uri)
    return lambda: len(pandas.concat([header.table() for header in broker(**query)]))


def content(uri, run):
    """Return the documents of a run and the tables of its streams, for tests."""
    broker = _broker(uri)

    def work():
        header = broker[run]
        streams = {}
        for name in header.stream_names:
            frame = header.table(name).drop(columns="time", errors="ignore")
            streams[name] = {"seq_num": frame.index.tolist(), **frame.to_dict(orient="list")}
        return {"documents": list(header.documents()), "tables": streams}

    return work


def fill(uri, run):
    """Make the filled table of a run; return the number of frames and a sum to compare."""
    catalog = BlueskyMongoCatalog(uri, uri, handler_registry={"AD_HDF5": FrameHandler}).v1
    len(catalog.v2)

    def work():
        cells = catalog[run].table(fill=True)["img"]
        return {"rows": len(cells), "last": int(cells.iloc[-1].sum())}

    return work


if __name__ == "__main__":
    answer(versions, write, table, documents, lookups, search, tables, content, fill)
