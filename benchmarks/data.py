"""Synthetic data as columns, and the documents and plain files made from them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daskbroker import DataBroker
from daskbroker.testing import RunBuilder

__all__ = [
    "Run", "image_key", "image_run", "insert_all", "mixed_columns", "plain_file", "wide_columns",
]  # fmt: skip

FIRST_TIME = 1_760_000_000.0
Columns = Mapping[str, Any]


def mixed_columns(rows: int) -> dict[str, Any]:
    """Return twelve columns: seven of floats, three of integers, a text, a time stamp."""
    random = np.random.default_rng(1)
    columns: dict[str, Any] = {f"x{number}": random.normal(size=rows) for number in range(7)}
    columns |= {f"n{number}": random.integers(0, 1_000_000, rows) for number in range(3)}
    columns["state"] = [f"sample {number}" for number in random.integers(0, 50, rows).tolist()]
    columns["stamp"] = FIRST_TIME + np.arange(rows) * 0.01
    return columns


def wide_columns(rows: int, count: int = 23) -> dict[str, Any]:
    """Return many columns of floats."""
    random = np.random.default_rng(2)
    return {f"x{number:02}": random.normal(size=rows) for number in range(count)}


def plain_file(path: Path, columns: Columns) -> Path:
    """Write these columns to one Parquet file with pyarrow."""
    rows = len(next(iter(columns.values())))
    micro = np.rint((FIRST_TIME + np.arange(rows) * 0.01) * 1e6).astype(np.int64)
    arrays = {
        "seq_num": pa.array(np.arange(1, rows + 1)),
        "time": pa.array(micro).cast(pa.timestamp("us", "UTC")),
        **{name: _arrow(values) for name, values in columns.items()},
    }
    pq.write_table(pa.table(arrays), path)
    return path


def _arrow(values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values)


class Run:
    """A run of one stream whose data are given as columns."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.rows = len(next(iter(columns.values())))
        self._builder = RunBuilder(time=FIRST_TIME - 10.0)
        self.uid = self._builder.uid
        first = {name: _plain(values[0]) for name, values in columns.items()}
        self.descriptor = self._builder.descriptor(first)
        self.head = list(self._builder.documents)
        self._uids = [str(uuid.uuid4()) for _ in range(self.rows)]
        self._times = FIRST_TIME + np.arange(self.rows) * 0.01

    def events(self, rows: int | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Return one event document per row."""
        count = self.rows if rows is None else rows
        names = list(self.columns)
        cells = zip(*(_list(values[:count]) for values in self.columns.values()), strict=True)
        return [
            (
                "event",
                {
                    "uid": self._uids[row],
                    "descriptor": self.descriptor,
                    "seq_num": row + 1,
                    "time": time,
                    "data": dict(zip(names, values, strict=True)),
                    "timestamps": dict.fromkeys(names, time),
                    "filled": {},
                },
            )
            for row, (time, values) in enumerate(
                zip(self._times[:count].tolist(), cells, strict=True)
            )
        ]

    def pages(self, size: int, *, lists: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield event pages of ``size`` rows, with lists as from a RunEngine, or with arrays."""
        convert = _list if lists else np.asarray
        for start in range(0, self.rows, size):
            cut = slice(start, start + size)
            times = self._times[cut]
            page = {
                "uid": self._uids[cut],
                "descriptor": self.descriptor,
                "seq_num": convert(np.arange(start + 1, start + 1 + len(times))),
                "time": convert(times),
                "data": {name: convert(values[cut]) for name, values in self.columns.items()},
                "timestamps": {name: convert(times) for name in self.columns},
                "filled": {},
            }
            yield "event_page", page

    def stop(self, rows: int) -> tuple[str, dict[str, Any]]:
        """Return the stop document."""
        doc = {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "time": float(self._times[-1]) + 1.0,
            "exit_status": "success",
            "reason": "",
            "num_events": {"primary": rows},
        }
        return "stop", doc

    def insert(self, broker: DataBroker, size: int = 100_000) -> None:
        """Insert the whole run in large pages."""
        insert_all(broker, self.head)
        insert_all(broker, self.pages(size, lists=False))
        insert_all(broker, [self.stop(self.rows)])


def image_key(side: int, dtype: str | None = "<u2") -> dict[str, Any]:
    """Return the data key that describes a frame; without a dtype if that is None."""
    key = {"source": "benchmark", "dtype": "array", "external": "FILESTORE:"}
    declared = {} if dtype is None else {"dtype_numpy": dtype}
    return {**key, "shape": [1, side, side], **declared}


def image_run(claim: Mapping[str, Any], path: Path, count: int, number: int = 0) -> RunBuilder:
    """Return a run with a motor and a frame of one area detector file in each event."""
    run = RunBuilder(number=number)
    descriptor = run.descriptor({"img": dict(claim), "x": 0.5})
    resource = run.resource("AD_HDF5", root=str(path.parent), resource_path=path.name)
    for place in range(count):
        datum = run.datum(resource, point_number=place)
        run.event(descriptor, {"img": datum, "x": place * 0.5}, filled={"img": False})
    run.stop()
    return run


def insert_all(broker: DataBroker, documents: Sequence[Any] | Iterator[Any]) -> None:
    """Insert documents in order."""
    for name, doc in documents:
        broker.insert(name, doc)


def _list(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
