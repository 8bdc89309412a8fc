"""Names that our objects lack, most of them databroker's, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

OLD_NAMES: Mapping[str, Mapping[str, str]] = {
    "DataBroker": {
        "add_alias": "a function of your own that returns db(...)",
        "alias": "a function of your own that returns db(...)",
        "aliases": "a function of your own that returns db(...)",
        "catalog": "db itself: db[uid], db(plan_name='scan')",
        "dynamic_alias": "a function of your own that returns db(...)",
        "es": "db.event_sources",
        "event_sources_by_name": "db.event_sources, indexed by name",
        "export": "daskbroker.copy(runs, into, files=folder)",
        "export_size": "daskbroker.copy(runs, into, files=folder), which reports what it copies",
        "external_fetchers": "a function of your own, called with header.start and header.stop",
        "fetch_external": "a function of your own, called with header.start and header.stop",
        "fetch_events": "header.documents(fill=False), whose documents named 'event' these are",
        "fill_event": "header.documents(fill=True)",
        "fill_events": "header.documents(fill=True)",
        "find_headers": "db(plan_name='scan')",
        "find_last": "db[-1], or db[-5:]",
        "force_reload": "nothing: each search reads the store again",
        "fs": "db.register_handler and db.root_map",
        "get_config": "db.uri",
        "get_documents": "header.documents(fill=False)",
        "get_events": "header.documents(fill=False), whose documents named 'event' these are",
        "get_fields": "header.fields()",
        "get_images": "header.dataset()['name of the data key']",
        "get_table": "header.table(fill=False).compute()",
        "hs": "db(...) and db.header_source",
        "items": "a loop over db(), whose headers have uid",
        "keys": "a loop over db(), whose headers have uid",
        "mds": "db(...) and db.header_source",
        "metadata": "header.start and header.stop",
        "name": "db.uri",
        "prepare_hook": "dict(doc): documents are immutable, and plain after doc.to_dict()",
        "process": "for name, doc in header.documents(): func(name, doc)",
        "reg": "db.register_handler, db.deregister_handler and db.root_map",
        "restream": "header.documents(fill=False)",
        "retrieve": "header.documents(fill=True), or fill_event(event) of one of db.event_sources",
        "stats": "daskbroker.check(db), or `daskbroker info` on the command line",
        "search": "db(plan_name='scan'), or db(start={...})",
        "stream": "header.documents(fill=False)",
        "stream_names_given_header": "header.streams",
        "v0": "db.v1, which has its methods",
        "values": "a loop over db()",
    },
    "Header": {
        "baseline": "header.dataset('baseline') or header.table('baseline')",
        "canonical": "header.documents()",
        "data": "header.dataset()['name of the data key']",
        "describe": "header.start and header.stop",
        "ext": "a function of your own, called with header.start and header.stop",
        "get": "an attribute, such as header.start",
        "get_file_list": "daskbroker.copy(runs, into, files=folder) to copy files",
        "items": "header.start, header.stop and header.descriptors",
        "metadata": "header.start and header.stop",
        "primary": "header.dataset('primary') or header.table('primary')",
        "read": "header.dataset().load()",
        "read_canonical": "header.documents()",
        "stream_names": "header.streams",
        "to_dask": "header.dataset()",
        "values": "header.start, header.stop and header.descriptors",
        "xarray": "header.dataset().load()",
        "xarray_dask": "header.dataset()",
    },
    "daskbroker": {
        "Broker": "db = daskbroker.connect('name')",
        "catalog": "db = daskbroker.connect('name')",
        "list_configs": "`daskbroker config` on the command line",
        "v0": "db = daskbroker.connect('name')",
        "v1": "db = daskbroker.connect('name')",
        "v2": "db = daskbroker.connect('name')",
    },
    "Results": {
        "force_reload": "nothing: each loop reads the store again",
        "items": "a loop over the results, whose headers have uid",
        "keys": "a loop over the results, whose headers have uid",
        "search": "a call, results(plan_name='scan') or results(start={...})",
        "values": "a loop over the results",
    },
}
"""What to write instead of each name, by class, and of the names of databroker itself."""

OTHER_NAMES: Mapping[str, Mapping[str, str]] = {
    "DataBroker": {
        "check": "daskbroker.check(db)",
        "copy": "daskbroker.copy(db, into)",
        "dataset": "db().dataset()",
        "documents": "db().documents()",
        "get_headers": "db(plan_name='scan')",
        "get_run": "db[uid], db[scan_id], or db[-1] for the newest run",
        "head": "db[-5:]",
        "last": "db[-1]",
        "map": "db().map(func)",
        "plot": "db().plot()",
        "table": "db().table()",
        "to_dataframe": "db().to_dataframe()",
    },
    "Header": {
        "exit_status": "header.stop.exit_status",
        "images": "header.dataset()['name of the data key']",
        "plan_name": "header.start.plan_name",
        "scan_id": "header.start.scan_id",
        "time": "header.start.time",
        "to_csv": "header.export('scan.csv', stream='primary')",
        "to_dataframe": "header.table().compute()",
        "to_netcdf": "header.export('scan.nc')",
        "to_pandas": "header.table().compute()",
        "to_parquet": "header.export('scan.parquet', stream='primary')",
        "to_xarray": "header.dataset()",
        "to_zarr": "header.export('scan.zarr')",
    },
    "Results": {
        "count": "len(results)",
        "first": "results[-1] for the oldest run, results[0] for the newest",
        "head": "results[:5] for the newest runs",
        "last": "results[0] for the newest run, results[-1] for the oldest",
        "limit": "results[:5] for the newest runs",
        "sort": "results, which have the newest run first, or reversed(results)",
        "start": "a loop over the results, whose headers have start",
        "stop": "a loop over the results, whose headers have stop",
        "streams": "a loop over the results, whose headers have streams",
        "tail": "results[-5:] for the oldest runs",
        "to_list": "list(results)",
        "to_pandas": "results.to_dataframe()",
        "tree": "results.dataset(combine='tree')",
        "uid": "a loop over the results, whose headers have uid",
        "uids": "a loop over the results, whose headers have uid",
    },
}
"""What to write instead of names that users of pandas, Dask and xarray try, by class."""

OTHER_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "connect": {
        "handlers": "connect({'uri': ..., 'handlers': {...}})",
        "root_map": "connect({'uri': ..., 'root_map': {...}})",
    },
    # Of many runs; the dataset of one has these.
    "dataset": {
        "grid": "header.dataset(grid=True) of each run",
        "index": "header.dataset(index=...) of each run",
    },
    "documents": dict.fromkeys(("name", "stream", "stream_name"), "header.stream(name)"),
    "plot": {"x": "header.table().compute().plot(x=..., y=...)"},
    "table": {"columns": "fields=[...]", "dtypes": "header.dataset(dtypes=...)"},
    "tree": {"fields": "header.dataset(stream, fields=...)"},
}
"""What to write instead of an argument that a function lacks, by the name of the function."""

FACES: Mapping[str, str] = {
    "DataBroker": "db.v1 or db.v2",
    "Header": "db.v1[uid] or db.v2[uid]",
    "daskbroker": "db.v1 or db.v2",
    "Results": "db.v1(...) or db.v2.search({...})",
}
"""Expression of the object that has databroker's own interface, by class."""


def missing(self: Any, name: str) -> NoReturn:
    """Raise an AttributeError that says what to write instead; ``__getattr__`` of these classes.

    Raises
    ------
    AttributeError
        Always, except that the error of a property that failed is raised as it is.
    """
    cls = type(self)
    if not name.startswith("__") and hasattr(cls, name):  # a property failed: show why
        object.__getattribute__(self, name)
    hints = (instead_of(base.__name__, name) for base in cls.__mro__)
    text = f"{cls.__name__!r} object has no attribute {name!r}{next(filter(None, hints), '')}"
    raise AttributeError(text, name=name, obj=self)


def instead_of(owner: str, name: str) -> str:
    """Return what to write instead of a name of a class, to be added to the message; or ``""``."""
    instead = OLD_NAMES.get(owner, {}).get(name)
    if instead is None:
        other = OTHER_NAMES.get(owner, {}).get(name)
        return "" if other is None else f": write {other}"
    return (
        f": that is databroker's; write {instead}, or use {FACES[owner]}, which have databroker's "
        "interface"
    )
