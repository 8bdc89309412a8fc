"""A Dataset as the documents of a new run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.documents import Document, normalize
from .run import DTYPES, PLAIN, NewRun, Pairs, posix_seconds

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["dataset_to_stream"]

PAGE_BYTES = 16 * 2**20


def dataset_to_stream(
    dataset: xr.Dataset,
    header: Any = None,
    stream: str | None = None,
    *,
    uid: str | None = None,
    time: float | None = None,
    provenance: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
) -> Pairs:
    """A Dataset as the documents of a new, valid run: an event per step of ``time``.

    Variables along ``time`` become data keys, with their other dimensions as the shape of each
    cell, and with their names (``dims``), units and the like. What does not vary with time
    becomes the configuration of a device ``dataset``: ``config:dataset:<name>`` projects it.

    Parameters
    ----------
    dataset
        Computed piece by piece, along dask's chunks of ``time``. Without a dimension ``time``
        it is one event.
    header, stream, uid, time, provenance, scheduler
        As for :func:`table_to_stream`.

    Yields
    ------
    (name, Document)
        start, descriptor, event_pages, stop. Coordinate ``time`` becomes the events' time,
        ``seq_num`` their number unless it repeats.

    Raises
    ------
    BadDocument
        For a variable with no JSON-like form, such as complex numbers.
    """
    run = NewRun.of(dict(dataset.attrs), header, stream, uid, time, provenance)
    cube = _Cube.of(run, dataset, scheduler)
    yield "start", run.start
    yield "descriptor", cube.declare()
    yield from cube.pages()
    yield "stop", run.stop()


@dataclass
class _Cube:
    """Makes event_pages of the steps of a Dataset."""

    run: NewRun
    dataset: xr.Dataset
    varying: list[str]
    constant: list[str]
    scheduler: str | None

    @classmethod
    def of(cls, run: NewRun, dataset: xr.Dataset, scheduler: str | None) -> _Cube:
        if "time" not in dataset.dims:
            names = [name for name in dataset.data_vars if name not in PLAIN]
            rest = dataset.drop_vars("time", errors="ignore")
            dataset = rest.assign({name: rest[name].expand_dims("time") for name in names})
        names = [name for name in dataset.variables if name not in PLAIN]
        varying = [name for name in names if "time" in dataset[name].dims]
        constant = [name for name in names if name not in varying]
        return cls(run, dataset, list(map(str, varying)), list(map(str, constant)), scheduler)

    def declare(self) -> Document:
        """The descriptor, with what does not vary as configuration."""
        stamps = {f"ts_{self.run.key_of(name)}" for name in self.varying}
        self.varying = [name for name in self.varying if name not in stamps]
        keys = {self.run.key_of(name): self._declared(name) for name in self.varying}
        objects: dict[str, list[str]] = {}
        for name in self.varying:
            owner = self.dataset[name].attrs.get("object")
            if isinstance(owner, str):
                objects.setdefault(owner, []).append(self.run.key_of(name))
        return self.run.declare(keys, object_keys=objects, configuration=self._configuration())

    def _declared(self, name: str) -> dict[str, Any]:
        variable = self.dataset[name]
        dims = [str(dim) for dim in variable.dims if dim != "time"]
        shape = [variable.sizes[dim] for dim in dims]
        attrs = variable.attrs
        more = {n: normalize(attrs[n], name) for n in ("units", "precision") if n in attrs}
        return {
            "source": str(attrs.get("source", "derived")),
            "dtype": "array" if dims else DTYPES.get(variable.dtype.kind, "string"),
            "shape": shape,
            **({"dims": dims} if dims else {}),
            **({"dtype_numpy": variable.dtype.str} if variable.dtype.kind in "fiub" else {}),
            **more,
        }

    def _configuration(self) -> dict[str, Any]:
        if not self.constant:
            return {}
        values = self.dataset[self.constant].compute(scheduler=self.scheduler)
        return {
            "dataset": {
                "data": {name: normalize(values[name].values, name) for name in self.constant},
                "timestamps": dict.fromkeys(self.constant, self.run.start["time"]),
                "data_keys": {name: self._declared(name) for name in self.constant},
            }
        }

    def pages(self) -> Pairs:
        """An event_page for each piece along time."""
        columns = [name for name in self.dataset.variables if "time" in self.dataset[name].dims]
        table = self.dataset[columns]
        numbers = self._numbers()
        for begin, end in self._cuts():
            part = table.isel(time=slice(begin, end)).compute(scheduler=self.scheduler)
            cells = {self.run.key_of(name): self._cells(part, name) for name in self.varying}
            stamps = {
                key: normalize(part[f"ts_{key}"].values, f"ts_{key}")
                for key in cells
                if f"ts_{key}" in part
            }
            seq_num = None if numbers is None else numbers[begin:end]
            yield self.run.page(seq_num, self._times(part, end - begin), cells, stamps)

    def _cells(self, part: xr.Dataset, name: str) -> Any:
        values = part[name].transpose("time", ...).values
        return normalize(values, f"variable {name}", arrays=True)

    def _cuts(self) -> Iterator[tuple[int, int]]:
        """Dask's chunks of time, and no piece much larger than a page should be."""
        length = int(self.dataset.sizes["time"])
        chunks = self.dataset.chunksizes.get("time", (length,))
        row = sum(self.dataset[name].nbytes for name in self.varying) // max(1, length)
        most = max(1, PAGE_BYTES // max(1, row))
        begin = 0
        for chunk in chunks:
            for first in range(begin, begin + chunk, most):
                yield first, min(first + most, begin + chunk)
            begin += chunk

    def _numbers(self) -> list[int] | None:
        """``seq_num``, if each step has one of its own."""
        if "seq_num" not in self.dataset or self.dataset["seq_num"].dims != ("time",):
            return None
        numbers = self.dataset["seq_num"].compute(scheduler=self.scheduler).values
        fits = numbers.dtype.kind in "iu" and len(np.unique(numbers)) == len(numbers)
        return numbers.tolist() if fits and (numbers >= 0).all() else None

    def _times(self, part: xr.Dataset, length: int) -> list[float]:
        start = float(self.run.start["time"])
        times = part["time"].values if "time" in part.variables else np.empty(0)
        if times.dtype.kind == "M":
            return posix_seconds(times, start)
        return [start] * length
