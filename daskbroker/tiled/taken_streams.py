"""Read one stream in the layout of TiledWriter as documents."""

from __future__ import annotations

import copy
import posixpath
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dask
import numpy as np

from ..core.errors import BadRecording

CELLS_TOGETHER = 500_000
"""Maximum number of cells of a table per request; columns are requested in batches."""
OF_EVENTS = "uids of events: they are made from run, stream and place"
OF_FILLED = "filled of events: it is empty"
OF_REFERENCES = (
    "references as they came (resources and datums, or several stream_datums): there is one "
    "stream_resource and one stream_datum for each key"
)
OF_INDICES = "indices of frames: the first event has the first frame"
OF_STAMPS = "timestamps of external keys"
OF_CELLS = "the difference of a missing value and NaN: a missing number is NaN"
OF_KEYS = (
    "data keys that the first descriptor of a stream has not, with their values: later descriptors "
    "have those of the first"
)


class TakenStream:
    """A stream of a run in Tiled.

    Parameters
    ----------
    run
        Uid of the run.
    name
        Name of the stream.
    node
        Tiled client of the stream.

    Attributes
    ----------
    lost
        Descriptions of what Tiled has not kept of the stream.
    """

    def __init__(self, run: str, name: str, node: Any) -> None:
        self.run, self.name = run, name
        self._metadata = dict(node.metadata)
        parts = dict(node.base.items())
        families = {key: part.item["attributes"]["structure_family"] for key, part in parts.items()}
        self._tables = [part for key, part in parts.items() if families[key] == "table"]
        keys = self._metadata.get("data_keys", {})
        others = {key: part for key, part in parts.items() if families[key] != "table"}
        self._external = {key: p for key, p in others.items() if "external" in keys.get(key, {})}
        self._arrays = {key: p for key, p in others.items() if key not in self._external}
        self._columns = {column: table for table in self._tables for column in table.columns}
        self.lost = self._find_lost()

    @property
    def where(self) -> str:
        """The stream as named in messages."""
        return f"stream {self.name!r}"

    def _find_lost(self) -> list[str]:
        lost = [OF_EVENTS, OF_FILLED, OF_CELLS] if self._columns else []
        if self._external:
            lost += [OF_REFERENCES, OF_INDICES, OF_STAMPS]
        return lost + ([OF_KEYS] if self._metadata.get("_config_updates") else [])

    # -- checks ------------------------------------------------------------------------------

    def check(self, expected: int | None) -> None:
        """Check that all parts have the same number of rows.

        Parameters
        ----------
        expected
            Minimum number of rows, from the stop document; not checked if None.

        Raises
        ------
        BadRecording
            If a part has another number of rows, or if there are fewer than expected; the message
            names the part.
        """
        rows = self._length
        for key, part in self._arrays.items():
            if part.shape[0] != rows:
                raise self._uneven(key, part.shape[0], rows)
        for key in self._external:
            frames = self._events_of(key)
            if self._columns and frames != rows:
                raise self._uneven(key, frames, rows)
        most = max([rows, *map(self._events_of, self._external)])
        if expected is not None and most < expected:
            raise BadRecording(
                f"{self.where}: there are {most:,} rows, but the stop document "
                f"declares {expected:,}"
            )

    def _uneven(self, key: str, count: int, rows: int) -> BadRecording:
        return BadRecording(f"{self.where}: key {key!r} has {count:,} rows, and the table {rows:,}")

    @property
    def _length(self) -> int:
        if self._columns:
            return len(self._numbers)
        return max((part.shape[0] for part in self._arrays.values()), default=0)

    @property
    def _numbers(self) -> list[int]:
        return [int(number) for number in self._column_batch(["seq_num"], None)["seq_num"]]

    def _events_of(self, key: str) -> int:
        total, cell, stacked = self._shapes(key)
        if stacked or not cell:
            return total[0]
        return total[0] // cell[0]

    def _shapes(self, key: str) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """Return the shapes of the array in Tiled and of a cell, and whether it is stacked.

        In a stacked array, events have a dimension of their own; otherwise cells are concatenated
        along their first dimension.
        """
        total = tuple(self._external[key].shape)
        cell = tuple(self._metadata["data_keys"][key].get("shape", ()))
        return total, cell, len(total) == len(cell) + 1

    # -- documents ---------------------------------------------------------------------------

    def documents(self, together: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield descriptors, then references, then pages of at most ``together`` events."""
        descriptors = self._descriptors()
        for descriptor in descriptors:
            yield "descriptor", descriptor
        for key in self._external:
            yield from self._references(key, descriptors[0]["uid"])
        if self._columns:
            yield from self._pages(descriptors, together)

    def _descriptors(self) -> list[dict[str, Any]]:
        first = {
            key: copy.deepcopy(value)
            for key, value in self._metadata.items()
            if key not in ("_config_updates", "stream_name")
        }
        first |= {"run_start": self.run, "name": self.name}
        for key in self._external:
            first["data_keys"][key]["external"] = "STREAM:"
        objects: dict[str, list[str]] = {}
        for key, said in first.get("data_keys", {}).items():
            if said.get("object_name"):
                objects.setdefault(said["object_name"], []).append(key)
        first.setdefault("object_keys", objects)
        found = [first]
        for update in self._metadata.get("_config_updates", ()):
            later = copy.deepcopy(found[-1]) | {"uid": update["uid"], "time": update["time"]}
            later.setdefault("configuration", {}).update(update.get("configuration", {}))
            found.append(later)
        return found

    def _references(self, key: str, descriptor: str) -> Iterator[tuple[str, dict[str, Any]]]:
        source = self._external[key].data_sources()[0]
        events, (_, _, stacked) = self._events_of(key), self._shapes(key)
        uri, template, first = _uri_of(self.where, key, _uris(source), events)
        parameters = dict(source.parameters)
        parameters.setdefault("join_method", "stack" if stacked else "concat")
        if template is not None:
            parameters |= {"template": template, "chunk_shape": [1]}
        uid = _uid(self.run, self.name, key)
        resource = {"uid": uid, "run_start": self.run, "data_key": key, "uri": uri}
        yield "stream_resource", {**resource, "mimetype": source.mimetype, "parameters": parameters}
        yield (
            "stream_datum",
            {
                "uid": f"{uid}/0",
                "stream_resource": uid,
                "descriptor": descriptor,
                "indices": {"start": first, "stop": first + events},
                "seq_nums": {"start": 1, "stop": events + 1},
            },
        )

    def _pages(
        self, descriptors: Sequence[dict[str, Any]], together: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        columns = self._read()
        seen: Counter[int] = Counter()
        own = np.searchsorted([d["time"] for d in descriptors], columns["time"], side="right") - 1
        own = np.maximum(own, 0)  # events before the first descriptor belong to it
        begin, rows = 0, len(own)
        while begin < rows:
            end = begin + 1
            while end < min(rows, begin + together) and own[end] == own[begin]:
                end += 1
            page = {name: column[begin:end] for name, column in columns.items()}
            yield "event_page", self._page(descriptors[own[begin]]["uid"], page, seen)
            begin = end

    def _page(
        self, descriptor: str, columns: dict[str, list[Any]], seen: Counter[int]
    ) -> dict[str, Any]:
        numbers = [int(number) for number in columns.pop("seq_num")]
        times = [float(time) for time in columns.pop("time")]
        uids = []
        for number in numbers:
            uids.append(_uid(self.run, self.name, f"{number}/{seen[number]}"))
            seen[number] += 1
        stamps = {n[3:]: c for n, c in columns.items() if n.startswith("ts_") and n[3:] in columns}
        stamps |= {
            key: columns.get(f"ts_{key}", times) for key in self._arrays if key not in stamps
        }
        data = {key: column for key, column in columns.items() if key in stamps}
        return {
            "uid": uids,
            "descriptor": descriptor,
            "seq_num": numbers,
            "time": times,
            "data": data,
            "timestamps": {key: stamps[key] for key in data},
            "filled": {},
        }

    # -- columns -----------------------------------------------------------------------------

    def _read(self) -> dict[str, list[Any]]:
        """Read the table, in batches of columns, and the arrays.

        Raises
        ------
        BadRecording
            If a batch or an array has another number of rows than ``seq_num``.
        """
        rows = self._length
        step = max(1, CELLS_TOGETHER // max(1, rows))
        found: dict[str, list[Any]] = {}
        for table in self._tables:
            for begin in range(0, len(table.columns), step):
                found |= self._column_batch(table.columns[begin : begin + step], rows)
        for key, part in self._arrays.items():
            found[key] = part.read().tolist()
            if len(found[key]) != rows:
                raise self._uneven(key, len(found[key]), rows)
        return found

    def _column_batch(self, names: Sequence[str], rows: int | None) -> dict[str, list[Any]]:
        table = self._columns[names[0]]
        # Otherwise Dask turns lists into text.
        with dask.config.set({"dataframe.convert-string": False}):
            frame = table.read(list(names))
        if rows is not None and len(frame) != rows:
            raise BadRecording(
                f"{self.where}: the server gave {len(frame):,} rows of {', '.join(names)}, but "
                f"{rows:,} of the first columns; read it again while no other client reads it"
            )
        return {name: [_plain(cell) for cell in frame[name]] for name in names}


def shared_files(streams: Sequence[TakenStream]) -> str | None:
    """Return the URI of a file of which several streams use the same dataset; None if none."""
    owners: dict[tuple[str, str], str] = {}
    for stream in streams:
        for part in stream._external.values():
            source = part.data_sources()[0]
            for uri in _uris(source):
                source_of = (uri, str(source.parameters.get("dataset")))
                if owners.setdefault(source_of, stream.name) != stream.name:
                    return uri
    return None


def _uris(source: Any) -> list[str]:
    assets = sorted(source.assets, key=lambda asset: asset.num or 0)
    return [asset.data_uri for asset in assets if asset.parameter in ("data_uri", "data_uris")]


def _uri_of(where: str, key: str, uris: Sequence[str], events: int) -> tuple[str, str | None, int]:
    """Return the URI of a stream resource, its template, and the number of the first file.

    The template is None, and the number 0, if there is a single file.

    Raises
    ------
    BadRecording
        If there are several files that are not one per event, numbered without a gap.
    """
    if len(uris) == 1:
        return uris[0], None, 0
    folder, name = posixpath.split(uris[0]) if uris else ("", "")
    # The number that counts is mostly the last one in a name, so the last is tried first.
    for found in reversed(list(re.finditer(r"\d+", name))):
        width, first = len(found[0]), int(found[0])
        before, after = name[: found.start()], name[found.end() :]
        names = [f"{before}{first + n:0{width}d}{after}" for n in range(events)]
        if [posixpath.join(folder, one) for one in names] == list(uris):
            template = f"{_literal(before)}%0{width}d{_literal(after)}"
            return folder + "/", template, first
    raise BadRecording(
        f"{where}: key {key!r} has {len(uris):,} files and {events:,} events; Tiled does not store "
        "which frames are in which file"
    )


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _uid(run: str, stream: str, what: str) -> str:
    """Return a uid that is the same each time, so that taking a run again changes nothing."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run}/{stream}/{what}"))


def _plain(cell: object) -> Any:
    if isinstance(cell, np.ndarray):
        return [_plain(item) for item in cell.tolist()]
    return cell.item() if isinstance(cell, np.generic) else cell
