"""Runs and their streams as nodes of Tiled's tree, in the layout of bluesky-tiled-plugins 3.0.

A stream holds a table ``internal`` (``seq_num``, ``time``, a column for each scalar data key, and
``ts_<key>`` for each data key) and an array for each data key whose cells are arrays.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

from tiled.structures.core import Spec

from ..header import Header
from .arrays import StreamArray, is_array
from .folders import Folder, metadata_form
from .queries import RUN_SPEC
from .tables import StreamTable

TABLE = "internal"
RUN_SPECS = [Spec(RUN_SPEC, version="3.0")]
STREAM_SPECS = [Spec("BlueskyEventStream", version="3.0"), Spec("composite")]
PER_RUN = {"run_start", "name", "object_keys", "_id"}
"""Keys of a descriptor that Tiled's clients add by themselves, and that metadata leave out."""


class Run(Folder):
    """One run: a folder of its streams.

    Parameters
    ----------
    header
        The run.
    names
        Names of its streams, if they are known. Those of a run in progress are looked up again.
    """

    def __init__(self, header: Header, names: list[str] | None = None) -> None:
        stop = header.known_stop
        metadata = {"start": metadata_form(header.start)}
        metadata["stop"] = None if stop is None else metadata_form(stop)
        super().__init__(metadata, RUN_SPECS)
        self.header = header
        self._names = names
        self._streams: dict[str, Stream] = {}

    def names(self) -> list[str]:
        if self._names is None or self.header.known_stop is None:
            self._names = self.header.streams
        return self._names

    def child(self, name: str) -> Stream | None:
        if name not in self.names():
            return None
        if name not in self._streams:
            self._streams[name] = Stream(self.header, name)
        return self._streams[name]


class Stream(Folder):
    """One stream of a run: a folder of its table and its arrays."""

    def __init__(self, header: Header, name: str) -> None:
        descriptors = header.descriptors[name]
        super().__init__(_stream_metadata([metadata_form(d) for d in descriptors]), STREAM_SPECS)
        self.header, self.name = header, name
        self._lock = threading.Lock()

    @cached_property
    def _entries(self) -> dict[str, Any]:
        """The table and the arrays by name; making them reads only what opening a Dataset reads."""
        table, blocks, whole = self.header.table_and_datasets(self.name)
        arrays = {
            str(name): StreamArray(whole.variables[name], variable)
            for name, variable in blocks.variables.items()
            if is_array(variable)
        }
        return {TABLE: StreamTable(table, leave_out=arrays), **arrays}

    def _made_entries(self) -> dict[str, Any]:
        with self._lock:  # planned once, even if several requests arrive at the same time
            return self._entries

    def names(self) -> list[str]:
        return list(self._made_entries())

    def child(self, name: str) -> Any:
        return self._made_entries().get(name)


def _stream_metadata(descriptors: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first descriptor with the data keys of all, and the changes of later ones."""
    first, *later = descriptors
    metadata = {key: value for key, value in first.items() if key not in PER_RUN}
    metadata.setdefault("configuration", {})
    metadata["data_keys"] = {
        key: value for d in reversed(descriptors) for key, value in d["data_keys"].items()
    }
    if later:
        metadata["_config_updates"] = [
            {"uid": d["uid"], "time": d["time"], "configuration": _known(d, metadata)}
            for d in later
        ]
    return metadata


def _known(descriptor: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of those devices that are in the first descriptor, too."""
    own = descriptor.get("configuration", {})
    return {device: value for device, value in own.items() if device in metadata["configuration"]}
