"""The form in which a Dataset is stored as a stream, and what its descriptor says of that.

A Dataset becomes a stream of events along one of its dimensions: ``time``, or the dimension along
which its coordinate ``time`` lies (``swap_dims(time="motor")``). Without either, it is one event.

=========================================== ====================================================
of the Dataset                              is stored as
=========================================== ====================================================
a variable along that dimension; without    data key, an event has one cell: its shape and
one, each data variable                     ``dims`` are those of the other dimensions
anything else (axes, dark images, scalars)  configuration of a device ``dataset``, as lists
``time`` (times of whole microseconds)      the events' time
``seq_num`` (integers that grow)            the events' seq_num
``ts_<key>``                                the events' timestamps
other times and durations                   integers, in the units of the data key
a MultiIndex                                its levels, each a variable
=========================================== ====================================================

What a reader cannot derive from the event model is in the descriptor under :data:`FORM_KEY`:
``version``; ``dim``, the dimension of the events, or None; ``attrs`` as JSON text; ``indexes``,
the dimension and levels of each MultiIndex; ``variables``, each with ``name``, ``place`` (one of
:data:`SECTIONS`), its ``key`` there, ``dims``, ``shape`` without the events' dimension, ``dtype``,
``coordinate`` (whether it is one), and ``attrs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...core.documents import normalize
from ...core.dtypes import plain_dtype
from ...core.json_text import marked_json, of_marked_json

FORM_KEY = "xarray"
"""Key of descriptors with the stored form of the Dataset that the stream was made of."""

DEVICE = "dataset"
"""Name of the device whose configuration holds what is the same in all events."""

MAX_ITEM_BYTES = 2**16
"""Maximum bytes of an item of fixed-width text; arrays with longer items are of objects."""

SECTIONS = ("event", "configuration", "time", "seq_num", "timestamps")
VERSION = 1

UNIT_NAMES = {
    "D": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds",
    "us": "microseconds", "ns": "nanoseconds",
}  # fmt: skip
"""Name of each NumPy unit of time in the CF conventions, which xarray and others follow."""
_OF_UNIT = re.compile(r"[<>=|]?[mM]8\[(D|h|m|s|ms|us|ns)\]")


@dataclass(frozen=True)
class StoredForm:
    """Shape and dtype of cells.

    Attributes
    ----------
    shape
        Shape of a cell.
    dtype
        NumPy dtype; object for values that have no other dtype in common.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def array(self, cells: Any, rows: int) -> np.ndarray:
        """Convert stored cells (arrays or nested lists) to an array ``(rows, *shape)``.

        Raises
        ------
        ValueError
            If the cells are not of this form.
        """
        return array_of(cells, (rows, *self.shape), self.dtype)


@dataclass(frozen=True)
class VariableForm:
    """Stored form of one variable; see the module's docstring."""

    name: str
    section: str
    key: str
    dims: tuple[str, ...]
    cell: StoredForm
    coordinate: bool
    attrs: Mapping[str, Any]

    def to_document(self) -> dict[str, Any]:
        """Return the form as it is in the descriptor."""
        dtype = self.cell.dtype
        return {
            "name": self.name,
            "place": self.section,
            "key": self.key,
            "dims": list(self.dims),
            "shape": list(self.cell.shape),
            "dtype": "object" if dtype.kind == "O" else dtype.str,
            "coordinate": self.coordinate,
            "attrs": _text_of(self.attrs, f"attributes of {self.name}"),
        }

    @classmethod
    def of_document(cls, doc: Mapping[str, Any]) -> VariableForm:
        """Return the form that a part of a descriptor describes.

        Raises
        ------
        ValueError, KeyError, TypeError
            If `doc` is not a valid form.
        """
        shape = tuple(doc["shape"])
        if doc["place"] not in SECTIONS or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(doc["place"])
        dtype = np.dtype(object) if doc["dtype"] == "object" else plain_dtype(doc["dtype"])
        if dtype.itemsize > MAX_ITEM_BYTES:
            raise ValueError(doc["dtype"])
        return cls(
            str(doc["name"]),
            doc["place"],
            str(doc["key"]),
            tuple(map(str, doc["dims"])),
            StoredForm(shape, dtype),
            doc["coordinate"] is True,
            dict(of_marked_json(doc["attrs"])),
        )


@dataclass(frozen=True)
class DatasetForm:
    """Stored form of a Dataset; see the module's docstring.

    Attributes
    ----------
    dim
        Dimension of the events; None if the whole Dataset is one event.
    variables
        Stored form of each variable.
    indexes
        Names of the levels of each MultiIndex, by its dimension.
    attrs
        Attributes of the Dataset.
    """

    dim: str | None
    variables: tuple[VariableForm, ...]
    indexes: Mapping[str, tuple[str, ...]]
    attrs: Mapping[str, Any]

    def to_document(self) -> dict[str, Any]:
        """Return the form as it is in the descriptor under :data:`FORM_KEY`."""
        return {
            "version": VERSION,
            "dim": self.dim,
            "variables": [variable.to_document() for variable in self.variables],
            "indexes": [{"dim": d, "levels": list(levels)} for d, levels in self.indexes.items()],
            "attrs": _text_of(self.attrs, "attributes of the Dataset"),
        }

    @classmethod
    def of_document(cls, doc: Any) -> DatasetForm | None:
        """Return the form of a descriptor; None if it is not valid, or of another version."""
        try:
            if doc["version"] != VERSION:
                return None
            return cls(
                None if doc["dim"] is None else str(doc["dim"]),
                tuple(map(VariableForm.of_document, doc["variables"])),
                {str(e["dim"]): tuple(map(str, e["levels"])) for e in doc["indexes"]},
                dict(of_marked_json(doc["attrs"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None

    def at(self, section: str) -> dict[str, VariableForm]:
        """Return the variables of one section (see :data:`SECTIONS`), by their keys there."""
        return {
            variable.key: variable for variable in self.variables if variable.section == section
        }

    @property
    def has_time(self) -> bool:
        """Whether the Dataset has a ``time`` of its own, so that none is added."""
        return any(variable.name == "time" for variable in self.variables)


def form_of(descriptors: Any) -> DatasetForm | None:
    """Return the form that all descriptors have in common; None if they differ or have none.

    Their configuration of the constant variables must be equal, too.
    """
    first, *others = [descriptor.get(FORM_KEY) for descriptor in descriptors] or [None]
    if first is None or any(other != first for other in others):
        return None
    constants = [(d.get("configuration") or {}).get(DEVICE, {}).get("data") for d in descriptors]
    if any(other != constants[0] for other in constants[1:]):
        return None
    return DatasetForm.of_document(first)


def _text_of(attrs: Mapping[str, Any], where: str) -> str:
    """Return attributes as JSON text, as they may have names that documents must not have."""
    return marked_json(normalize({str(name): value for name, value in attrs.items()}, where))


# -- values ----------------------------------------------------------------------------------


def encoded_form(values: np.ndarray, where: str) -> Any:
    """Convert an array to a value of documents.

    Times become int64 arrays, numbers stay arrays, and all other values become lists.

    Raises
    ------
    BadDocument
        If a value has no such form; the message names `where`.
    """
    kind = values.dtype.kind
    if kind in "mM":
        return np.array(values.astype(values.dtype.newbyteorder("="))).view(np.int64)
    if kind == "T":
        values = values.astype(object)
    return normalize(values, where, arrays=True)


def time_units(dtype: np.dtype) -> str | None:
    """Return the units of times or durations stored as integers; None for other dtypes."""
    found = _OF_UNIT.fullmatch(dtype.str)
    if found is None:
        return None
    unit = UNIT_NAMES[found[1]]
    return f"{unit} since 1970-01-01T00:00:00Z" if dtype.kind == "M" else unit


def array_of(values: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Convert values from :func:`encoded_form` back to the array that it was given.

    Raises
    ------
    ValueError
        If the values do not fit the shape or dtype.
    """
    if dtype.kind == "O":
        return _objects(values, shape)
    # Times and durations are stored as integers, as floats would round them.
    stored = np.dtype(np.int64) if dtype.kind in "mM" else dtype
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        array = values
    else:
        array = np.array(list(_leaves(values, len(shape))), dtype=stored)
    if array.size != prod(shape):
        raise ValueError(f"{array.size:,} values cannot be an array of shape {shape}")
    array = array.reshape(shape).astype(stored, copy=False)
    return array.view(dtype) if dtype.kind in "mM" else array


def _objects(values: object, shape: tuple[int, ...]) -> np.ndarray:
    leaves = list(_leaves(values, len(shape)))
    if len(leaves) != prod(shape):
        raise ValueError(f"{len(leaves):,} values cannot be an array of shape {shape}")
    return np.fromiter(leaves, object, len(leaves)).reshape(shape)


def _leaves(values: Any, depth: int) -> Iterator[Any]:
    """Yield the values that are nested `depth` levels deep."""
    if depth == 0:
        yield values.item() if isinstance(values, np.ndarray) and values.ndim == 0 else values
        return
    if isinstance(values, np.ndarray) and values.dtype.kind != "O" and values.ndim == depth:
        yield from values.ravel().tolist()
        return
    for value in values:
        yield from _leaves(value, depth - 1)
