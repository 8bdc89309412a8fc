"""Convert a Dataset to the documents of a new run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from xarray.indexes import PandasMultiIndex

from ...core.arguments import MAPPING, NAME, NUMBER, accepts
from ...core.documents import Document, normalize
from ...core.errors import BadDocument
from ...core.group_names import of_group_name
from ...core.name_lists import listed
from ...core.schema import datetime_to_posix, posix_to_datetime
from ..dataset.attributes import DOCUMENTED, attrs
from ..dataset.savable import check_is_dataset, named_as_in_documents
from ..dataset.stored_form import (
    DEVICE,
    FORM_KEY,
    MAX_ITEM_BYTES,
    DatasetForm,
    StoredForm,
    VariableForm,
    encoded_form,
    time_units,
)
from .new_run import DTYPES, NewRun, Pairs

PAGE_BYTES = 16 * 2**20
"""Maximum bytes of the cells of an event_page, unless a single event is larger."""
NUMBERS = "iu"
"""Kinds of dtypes that ``seq_num`` may have."""


@accepts(
    stream=NAME.or_none(), uid=NAME.or_none(), time=NUMBER.or_none(), provenance=MAPPING.or_none()
)
def dataset_to_stream(
    dataset: xr.Dataset | xr.DataTree,
    header: Any = None,
    stream: str | None = None,
    *,
    uid: str | None = None,
    time: float | None = None,
    provenance: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
) -> Pairs:
    """Convert a Dataset to the documents of a new, valid run.

    ``dataset()`` of the new run gives the same Dataset again: dimensions, coordinates, scalars,
    dtypes and attributes. Only the attributes that say where a Dataset comes from
    (:mod:`daskbroker.views.dataset.attributes`) are those of the new run.
    See :mod:`daskbroker.views.dataset.stored_form` for how it is stored. In short:

    - A Dataset with a dimension ``time``, or a coordinate ``time`` along another dimension
      (``swap_dims(time="motor")``), becomes one event per step. Variables along that dimension
      become data keys: their other dimensions give the shape of each cell and its ``dims``, their
      attributes its units and the like. Variables that do not vary with it (the energies of a
      spectrum, a dark image) become the configuration of a device ``dataset``, which
      ``config:dataset:<name>`` projects.
    - Any other Dataset becomes one event: its data variables are the data keys, its coordinates
      the configuration. When it is read again, the data variables have a dimension ``time`` of
      length 1 before their own, unless the Dataset has a variable ``time``.

    Parameters
    ----------
    dataset
        Dataset, computed piece by piece along the dask chunks of the dimension of its events, or
        DataTree, which becomes a run with one stream per child node; see
        :mod:`daskbroker.core.group_names` for streams whose names have a ``/``. Attributes of its
        root that are not of daskbroker are kept in the start document, below ``derived_from``.
    header, stream, uid, time, provenance, scheduler
        As for :func:`table_to_stream`. Without a header, the run that ``dataset.attrs`` describe
        is the origin.

    Yields
    ------
    (name, Document)
        start, descriptors, event_pages, stop. The coordinate ``time`` becomes the events' time,
        and ``seq_num`` their number if it increases from each event to the next.

    Raises
    ------
    BadDocument
        If it is no Dataset, if a variable or attribute has no JSON-like form, such as complex
        numbers, or if a DataTree has variables at its root or in groups below its streams, for
        which a run has no place.
    """
    check_is_dataset(dataset)
    told = attrs(dataset)
    if isinstance(dataset, xr.DataTree):
        provenance = {**_root_attrs(dataset), **(provenance or {})}
    origin = told.get("start") if header is None else header
    run = NewRun.of(told, origin, stream, uid, time, provenance)
    yield "start", run.start
    # A single stream.
    if not isinstance(dataset, xr.DataTree):
        yield from _stream(run, dataset, scheduler)
        yield "stop", run.stop()
        return
    counts, last_time = {}, 0.0
    for child, node in dataset.children.items():
        name = of_group_name(child)
        part = replace(run, stream=name, part=f"{child} ")
        yield from _stream(part, node.to_dataset(), scheduler)
        counts[name], last_time = part.count, max(last_time, part.last_time)
    run.last_time = last_time
    yield "stop", run.stop(counts)


def _root_attrs(tree: xr.DataTree) -> dict[str, Any]:
    """Return a tree's own attributes for ``derived_from``; check that nothing else would be lost.

    Coordinates of the root are inherited by its children.
    """
    lost = [n.path for n in tree.subtree if n is not tree and n.parent is not tree and _holds(n)]
    # Variables of the root belong to no stream.
    if tree.data_vars:
        names = listed(map(str, tree.data_vars))
        raise BadDocument(
            f"the root of the tree has variables ({names}), and a run holds only streams: move "
            "them into a node, such as tree['scalars'] = tree.to_dataset(), or out of the tree"
        )
    # Runs have one level of streams.
    if lost:
        raise BadDocument(
            f"the tree has groups below its streams ({listed(lost)}), and a run holds one level of "
            "streams: give each a name of its own at the root, or insert them as runs of their own"
        )
    own = {str(k): v for k, v in tree.attrs.items() if k not in DOCUMENTED}
    return {"attrs": normalize(own, "attributes of the tree")} if own else {}


def _holds(node: xr.DataTree) -> bool:
    return bool(node.to_dataset(inherit=False).variables or node.attrs)


def _stream(run: NewRun, dataset: xr.Dataset, scheduler: str | None) -> Pairs:
    """Yield the descriptor and the event_pages of one stream."""
    # Nodes of a tree, and what files held, have names as files have them.
    dataset = named_as_in_documents(dataset)
    levels = {
        str(index.dim): tuple(str(name) for name in coordinates if name != index.dim)
        for index, coordinates in dataset.xindexes.group_by_index()
        if isinstance(index, PandasMultiIndex)
    }
    cube = _Cube(run, dataset.reset_index(list(levels)), levels, scheduler)
    yield "descriptor", cube.declare()
    yield from cube.pages()


@dataclass
class _Cube:
    """Makes the descriptor and the event_pages of a Dataset.

    Attributes
    ----------
    run
        Run that the documents belong to.
    flat
        The Dataset, in which the levels of each MultiIndex are plain coordinates.
    levels
        Names of the levels of each MultiIndex, by its dimension.
    scheduler
        Dask scheduler to compute pieces with.
    """

    run: NewRun
    flat: xr.Dataset
    levels: Mapping[str, tuple[str, ...]]
    scheduler: str | None

    # -- what goes where ---------------------------------------------------------------------

    @cached_property
    def dim(self) -> Any:
        """The dimension of the events; None if the Dataset is one event."""
        # daskbroker's own Datasets have their events along it.
        if "time" in self.flat.dims:
            return "time"
        time = self.flat.variables.get("time")
        # Nothing else tells which dimension is that of the events.
        if time is None or time.ndim != 1 or time.dtype.kind != "M":
            return None
        return time.dims[0]

    @cached_property
    def forms(self) -> dict[Any, VariableForm]:
        """The stored form of each variable, by its name."""
        found: dict[Any, VariableForm] = {}
        taken: set[str] = set()
        for name in self.flat.variables:
            form = self._form(name, taken)
            taken.add(form.key)
            found[name] = form
        keys = {form.key for form in found.values() if form.section == "event"}
        return {name: self._stamps_or(form, keys) for name, form in found.items()}

    def _form(self, name: object, taken: set[str]) -> VariableForm:
        variable = self.flat.variables[name]
        key = self.run.key_of(str(name))
        section = self._section(name)
        shape = tuple(size for dim, size in variable.sizes.items() if dim != self.dim)
        dtype = np.dtype(object) if _is_loose(variable.dtype) else variable.dtype
        return VariableForm(
            str(name),
            section,
            _free(key if section == "event" else str(name), taken),
            tuple(map(str, variable.dims)),
            StoredForm(shape, dtype),
            name in self.flat.coords,
            variable.attrs,
        )

    def _section(self, name: object) -> str:
        # Times that POSIX seconds do not hold exactly are kept as a variable, too.
        if name == "time" and self._are_event_times:
            return "time"
        # Only numbers that increase can be those of events.
        if name == "seq_num" and self._numbers is not None:
            return "seq_num"
        # Without a dimension of events the Dataset is one event.
        if self.dim is None:
            return "configuration" if name in self.flat.coords else "event"
        return "event" if self.dim in self.flat.variables[name].dims else "configuration"

    def _stamps_or(self, form: VariableForm, keys: set[str]) -> VariableForm:
        """Return the form as timestamps if it is ``ts_<key>`` of a data key, else unchanged.

        Timestamps are float64 scalars for each event; they are stored beside the data.
        """
        key = form.name.removeprefix("ts_")
        are_stamps = form.name.startswith("ts_") and key in keys and form.section == "event"
        # Only a number per event can be a timestamp.
        if not are_stamps or form.cell != StoredForm((), np.dtype(np.float64)):
            return form
        return replace(form, section="timestamps", key=key)

    def _along_events(self, name: str, dtype_kinds: str) -> np.ndarray | None:
        """Return the values of a variable that has exactly one for each event.

        None if there is no such variable, or if the kind of its dtype is not in
        `dtype_kinds`. Computes the variable.
        """
        variable = self.flat.variables.get(name)
        dims = () if self.dim is None else (self.dim,)
        if variable is None or variable.dims != dims or variable.dtype.kind not in dtype_kinds:
            return None
        return np.atleast_1d(variable.to_base_variable().compute(scheduler=self.scheduler).values)

    @cached_property
    def _times(self) -> np.ndarray | None:
        return self._along_events("time", "M")

    @cached_property
    def _are_event_times(self) -> bool:
        """Whether ``time`` survives the conversion to POSIX seconds and back unchanged."""
        times = self._times
        # There is no time for each event.
        if times is None:
            return False
        back = posix_to_datetime(datetime_to_posix(times)).tz_localize(None).to_numpy()
        return bool((back == times).all())

    @cached_property
    def _numbers(self) -> list[int] | None:
        """Values of ``seq_num``; None if it does not increase from each event to the next."""
        numbers = self._along_events("seq_num", NUMBERS)
        # Unsigned integers beyond int64 are no numbers of events.
        if numbers is None or not len(numbers) or int(numbers.max()) >= 2**63:
            return None
        fits = numbers[0] >= 0 and (numbers[1:] > numbers[:-1]).all()
        return numbers.tolist() if fits else None

    @property
    def _varying(self) -> dict[Any, VariableForm]:
        return {name: form for name, form in self.forms.items() if form.section == "event"}

    # -- the descriptor ----------------------------------------------------------------------

    def declare(self) -> Document:
        """Return the descriptor, with the variables that do not vary as configuration."""
        keys = {form.key: self._declared(form) for form in self._varying.values()}
        objects: dict[str, list[str]] = {}
        for varying in self._varying.values():
            owner = varying.attrs.get("object")
            if isinstance(owner, str):
                objects.setdefault(owner, []).append(varying.key)
        form = DatasetForm(
            None if self.dim is None else str(self.dim),
            tuple(self.forms.values()),
            self.levels,
            {k: v for k, v in self.flat.attrs.items() if k not in DOCUMENTED},
        )
        return self.run.declare(
            keys,
            object_keys=objects,
            configuration=self._configuration(),
            **{FORM_KEY: form.to_document()},
        )

    def _declared(self, form: VariableForm) -> dict[str, Any]:
        dims = [dim for dim in form.dims if dim != self.dim]
        dtype, attrs = form.cell.dtype, form.attrs
        units = time_units(dtype)
        # Documents have no times or durations: they are stored as integers, with their unit.
        stored = np.dtype(np.int64) if dtype.kind in "mM" else dtype
        given = {"units": attrs["unit"], **attrs} if "unit" in attrs else attrs
        more = {n: normalize(given[n], form.name) for n in ("units", "precision") if n in given}
        return {
            "source": str(attrs.get("source", "derived")),
            "dtype": "array" if dims else DTYPES.get(stored.kind, "string"),
            "shape": list(form.cell.shape),
            **({"dims": dims} if dims else {}),
            **({"dtype_numpy": stored.str} if stored.kind in "fiub" else {}),
            **({"units": units} if units else {}),
            **more,
        }

    def _configuration(self) -> dict[str, Any]:
        constant = {n: form for n, form in self.forms.items() if form.section == "configuration"}
        # An empty configuration would say that there is a device.
        if not constant:
            return {}
        values = self.flat[list(constant)].compute(scheduler=self.scheduler)
        data = {
            form.key: normalize(encoded_form(values[name].values, f"variable {name}"), str(name))
            for name, form in constant.items()
        }
        return {
            DEVICE: {
                "data": data,
                "timestamps": dict.fromkeys(data, self.run.start["time"]),
                "data_keys": {form.key: self._declared(form) for form in constant.values()},
            }
        }

    # -- the events --------------------------------------------------------------------------

    def pages(self) -> Pairs:
        """Yield an event_page for each piece along the dimension of the events."""
        for begin, end in self._cuts():
            part = self._part(begin, end)
            cells = {
                form.key: encoded_form(part[name], f"variable {name}")
                for name, form in self._varying.items()
            }
            stamps = {
                form.key: normalize(part[name], str(name))
                for name, form in self.forms.items()
                if form.section == "timestamps"
            }
            seq_num = None if self._numbers is None else self._numbers[begin:end]
            yield self.run.page(seq_num, self._seconds(begin, end), cells, stamps)

    def _part(self, begin: int, end: int) -> dict[Any, np.ndarray]:
        """Compute the cells of events `begin` to `end`; the first axis is the events'."""
        names = [n for n, form in self.forms.items() if form.section in ("event", "timestamps")]
        # A Dataset of no variable has no dimension of the events.
        if not names:
            return {}
        if self.dim is None:
            values = self.flat[names].compute(scheduler=self.scheduler)
            return {name: values[name].values[np.newaxis] for name in names}
        part = self.flat[names].isel({self.dim: slice(begin, end)})
        part = part.compute(scheduler=self.scheduler)
        return {name: part[name].transpose(self.dim, ...).values for name in names}

    def _cuts(self) -> Iterator[tuple[int, int]]:
        """Yield ``(begin, end)`` of each piece: a dask chunk, or a part of one that is too large.

        A piece is at most ``PAGE_BYTES`` large, unless a single event is larger. If variables are
        cut differently, the chunks are those of the largest.
        """
        if self.dim is None:
            yield 0, 1
            return
        length = int(self.flat.sizes[self.dim])
        varying = [self.flat.variables[name] for name in self._varying]
        cut = [variable for variable in varying if variable.chunks is not None]
        largest = max(cut, key=lambda variable: variable.nbytes, default=None)
        chunks = (length,) if largest is None else largest.chunksizes[self.dim]
        row = sum(variable.nbytes for variable in varying) // max(1, length)
        most = max(1, PAGE_BYTES // max(1, row))
        begin = 0
        for chunk in chunks:
            for first in range(begin, begin + chunk, most):
                yield first, min(first + most, begin + chunk)
            begin += chunk

    def _seconds(self, begin: int, end: int) -> list[float]:
        # All events have the time of the start.
        if self._times is None:
            return [float(self.run.start["time"])] * (end - begin)
        return self.run.seconds(self._times[begin:end])


def _free(key: str, taken: set[str]) -> str:
    """Return the key with underscores appended until it is not taken."""
    while key in taken:
        key += "_"
    return key


def _is_loose(dtype: object) -> bool:
    """Return whether values are stored as Python objects.

    This holds for objects, ``StringDType``, void and extension dtypes, and for items longer than
    ``MAX_ITEM_BYTES`` bytes.
    """
    return not isinstance(dtype, np.dtype) or dtype.kind in "OTV" or dtype.itemsize > MAX_ITEM_BYTES
