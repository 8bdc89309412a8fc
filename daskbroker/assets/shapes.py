"""The shape rule: how the declared shape of a cell and the one a handler returns are reconciled.

A claim is a descriptor's entry for a data key. It is *full* if it has a NumPy dtype
(``dtype_numpy``, ``dtype_descr``, ``dtype_str``) and a shape of positive lengths; otherwise it is
*open*. For an open claim, and whenever a file was looked into (:mod:`daskbroker.assets.peek`), the
file decides. A full claim whose file was not looked into is believed, and compared with what is
read:

1. If the shapes are equal, nothing is done.
2. If they are equal except for axes of length 1 (``(512, 512)`` and ``(1, 512, 512)``), the cell is
   reshaped to the declared shape.
3. Otherwise :class:`Mismatch` is raised, which names both shapes.
4. If no lengths are declared (none, ``None``, 0 or negative ones, or ``[]`` for an array), cells
   keep the shapes they have, which may differ.

The handler decides how many frames make a cell (``frame_per_point``, ``join_method`` stack or
concat): it returns ``(n, …)`` for n frames, and by this rule frames are never dropped or spread
over events.

Values are converted to the declared dtype if none of them changes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..core.bounded_dict import BoundedDict
from ..core.dtypes import dtype_of
from ..core.peeks import Cell
from .regions import Roi, as_index, axes_of, increasing, take_region, take_roi

Shape = tuple[int, ...]

GUESSED_BYTES = 2**20
"""Assumed bytes of a cell whose shape is not declared, to choose the size of blocks."""

MOST_ELEMENTS = 2**40
"""Maximum number of elements of a cell. A claim of more, such as -1 as an unsigned number, declares
no lengths: it cannot be true of any file, and sizes that follow from it overflow."""

HAVE_MISSING = "fcOmM"
"""Kinds of dtypes that have NaN, NaT or None."""

_BY_NAME = {"number": "float64", "integer": "int64", "boolean": "bool", "string": "object"}


class Mismatch(ValueError):
    """Raised if the declared and the actual shape or dtype cannot be reconciled."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Shape and dtype that the cells of one key are taken to have, from descriptors or files.

    Attributes
    ----------
    shape
        Shape of a cell; None if lengths are unknown or differ.
    dtype
        Dtype of a cell's elements; ``object`` if ``shape`` is None, ``float64`` if unknown.
    measured
        Bytes of the largest known cell if ``shape`` is None; 0 if no size is known.
    exact
        Dtype that cells must have, if ``dtype`` is another one so that it can represent missing
        cells.
    """

    shape: Shape | None
    dtype: np.dtype
    measured: int = 0
    exact: np.dtype | None = None

    @classmethod
    def of(cls, claims: Sequence[Mapping[str, Any]], dtype: Any = None) -> Declared:
        """Build from the entries of one key in ``data_keys`` of some descriptors.

        Parameters
        ----------
        claims
            One or more entries.
        dtype
            Dtype that replaces the declared one, if given.
        """
        if len(claims) == 1 and dtype is None:
            return _read(claims[0]).declared
        shape = _common_shape([_shape(claim) for claim in claims])
        # Descriptors disagree, or leave a length open: cells come one by one.
        if shape is None:
            return cls(None, np.dtype(object))
        # The caller's choice goes before any claim.
        if dtype is not None:
            return cls(shape, np.dtype(dtype))
        return cls(shape, _common([_dtype(claim) for claim in claims]))

    @classmethod
    def of_cells(cls, cells: Sequence[Cell]) -> Declared:
        """Build from what one or more cells in files have in common."""
        shape = _common_shape([cell.shape for cell in cells])
        # Cells differ in shape; the largest one bounds the memory of a block.
        if shape is None:
            return cls(None, np.dtype(object), max(cell.nbytes for cell in cells))
        return cls(shape, _common([cell.dtype for cell in cells]))

    @classmethod
    def common(cls, declared: Sequence[Declared], dtype: Any = None) -> Declared:
        """Build from what parts of a variable have in common, with the given dtype if any."""
        shape = _common_shape([part.shape for part in declared])
        # Parts that disagree are shown as objects, with the size of the largest part's cells.
        if shape is None:
            sizes = [
                part.cell_bytes for part in declared if part.shape is not None or part.measured
            ]
            return cls(None, np.dtype(object), max(sizes, default=0))
        if dtype is not None:
            return cls(shape, np.dtype(dtype))
        return cls(shape, _common([part.dtype for part in declared]))

    @property
    def cell_bytes(self) -> int:
        """Bytes of a cell in memory, guessed if neither a shape nor a measured size is known."""
        if self.shape is None:
            return self.measured or GUESSED_BYTES
        return prod(self.shape) * self.dtype.itemsize

    def nullable(self) -> Declared:
        """Return the same shape with a dtype that can represent a missing cell.

        As in xarray, integers of one or two bytes become ``float32``, which represents them
        exactly, and longer ones ``float64``. Other dtypes without NaN or NaT become ``object``.
        """
        # These have a form for a missing cell.
        if self.dtype.kind in HAVE_MISSING:
            return self
        if self.dtype.kind in "iu":
            # float32 holds all integers of two bytes exactly.
            dtype = np.dtype(np.float32 if self.dtype.itemsize <= 2 else np.float64)
        else:
            dtype = np.dtype(object)
        return Declared(self.shape, dtype, exact=self.dtype)


def is_open(claim: Mapping[str, Any]) -> bool:
    """Return whether a claim leaves the dtype or the shape to the file."""
    return _read(claim).open


class _ReadClaim(NamedTuple):
    """What a claim says of cells, and whether it is open."""

    declared: Declared
    open: bool


_read_claims: BoundedDict[tuple[Any, ...], _ReadClaim] = BoundedDict()
"""By what a claim says: descriptors of thousands of runs make few different claims."""


def _read(claim: Mapping[str, Any]) -> _ReadClaim:
    """Read a claim, unless an equal one has been read before."""
    get = claim.get
    # As text, as 1, 1.0 and True are the same key of a dict.
    said = (
        get("dtype_numpy"), get("dtype_descr"), get("dtype_str"), get("dtype"), repr(get("shape"))
    )  # fmt: skip
    try:
        found = _read_claims.get(said)
    except TypeError:  # lists, as of fields
        return _read_anew(claim)
    if found is None:
        found = _read_claims[said] = _read_anew(claim)
    return found


def _read_anew(claim: Mapping[str, Any]) -> _ReadClaim:
    shape, dtype = _shape(claim), np.dtype(object)
    declared = Declared(shape, dtype if shape is None else _dtype(claim))
    return _ReadClaim(declared, shape is None or not has_dtype(claim))


def has_dtype(claim: Mapping[str, Any]) -> bool:
    """Return whether a claim has a dtype that NumPy knows."""
    return _numpy_dtype(claim) is not None


def contradicts(claim: Mapping[str, Any], cell: Cell, *, loosely: bool = False) -> bool:
    """Return whether a file contradicts a claim; undeclared lengths fit any.

    Parameters
    ----------
    claim, cell
        The descriptor's entry, and shape and dtype in the file.
    loosely
        If True, axes of length 1 are ignored; the claim must not leave any length open.
    """
    lengths, dtype = claim.get("shape") or (), _numpy_dtype(claim)
    # The file's cells have no common shape, so any declared one is contradicted.
    if cell.shape is None:
        return bool(lengths)
    # Only the kind and size count: values are given in the machine's byte order.
    if dtype is not None and dtype.newbyteorder("=") != cell.dtype:
        return True
    # An undeclared shape fits all arrays; a scalar fits only a scalar.
    if not lengths:
        return claim.get("dtype") != "array" and cell.shape != ()
    if loosely:
        return long_axes(lengths) != long_axes(cell.shape)
    # Of another number of dimensions, lengths that are not declared cannot be matched.
    if len(lengths) != len(cell.shape):
        return any(map(_is_length, lengths))
    return any(_is_length(one) and one != n for one, n in zip(lengths, cell.shape, strict=True))


def _is_length(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given > 0


def _shape(claim: Mapping[str, Any]) -> Shape | None:
    lengths = claim.get("shape")
    if not lengths:
        # An array without lengths may have any shape; anything else without them is a scalar.
        return None if claim.get("dtype") == "array" else ()
    if not all(map(_is_length, lengths)) or prod(lengths) > MOST_ELEMENTS:
        return None
    return tuple(lengths)


def _dtype(claim: Mapping[str, Any]) -> np.dtype:
    dtype = _numpy_dtype(claim)
    # What a claim says by its JSON type only: numbers are read as float64.
    if dtype is None:
        return np.dtype(_BY_NAME.get(str(claim.get("dtype")), "float64"))
    # As if the file was looked into: a look in the background must not change the dtype.
    return dtype.newbyteorder("=")


def _numpy_dtype(claim: Mapping[str, Any]) -> np.dtype | None:
    for name in ("dtype_descr", "dtype_numpy", "dtype_str"):
        if claim.get(name):
            try:
                return dtype_of(_description(claim[name]))
            # Another of the three names may have a dtype that NumPy knows.
            except (TypeError, ValueError):
                continue
    return None


def _description(given: object) -> Any:
    """Convert the lists of JSON to the tuples of NumPy's description of a structured dtype."""
    if not isinstance(given, list):
        return given
    return [(name, _description(kind), *map(tuple, rest)) for name, kind, *rest in given]


def _common_shape(shapes: Sequence[Shape | None]) -> Shape | None:
    """Return the first of shapes that differ by no more than axes of length 1, else None."""
    first = shapes[0]
    return first if all(are_alike(first, shape) for shape in dict.fromkeys(shapes)) else None


def _common(dtypes: Sequence[np.dtype]) -> np.dtype:
    if len(set(dtypes)) == 1:
        return dtypes[0]
    try:
        common = np.result_type(*dtypes)
    except TypeError:
        return np.dtype(object)
    # NumPy would make text of numbers, and times of counts.
    apart = len({dtype.kind in "mM" for dtype in dtypes}) > 1
    convertible = not apart and all(_is_convertible(d, common) for d in dtypes)
    return common if convertible else np.dtype(object)


# -- shapes ----------------------------------------------------------------------------------


def fit(
    read: Callable[[Roi], np.ndarray], given: Shape | None, declared: Shape, roi: Roi = ()
) -> np.ndarray:
    """Read a region of cells in their declared shape.

    Parameters
    ----------
    read
        Function of a region that returns an array of shape ``(rows, *given[roi])``. It is only
        called with slices of positive step and increasing arrays without repetitions.
    given
        Shape of the cells that ``read`` reads. If None, it is only known by reading, so whole
        cells are read.
    declared
        Shape that the cells must get.
    roi
        Region of ``declared``.

    Returns
    -------
    numpy.ndarray
        Shape ``(rows, *declared[roi])``.

    Raises
    ------
    Mismatch
        If ``given`` and ``declared`` differ by more than axes of length 1.
    """
    # The handler cannot tell the shape in the file, so whole cells are read.
    if given is None:
        return take_roi(reshaped(read(()), declared), roi)
    check_shape(declared, given)
    # Axes of length 1 may be elsewhere in the file than in the descriptor; the long ones are in the
    # same order, so the file is asked for these, and its block is put into the declared shape.
    axes = axes_of(roi, declared)
    split = {n: increasing(axes[n]) for n, length in enumerate(declared) if length != 1}
    long = iter(split.values())
    block = read(tuple(slice(0, 1) if n == 1 else as_index(next(long)[0]) for n in given))
    sizes = iter([size for size, n in zip(block.shape[1:], given, strict=True) if n != 1])
    shape = tuple(1 if n == 1 else next(sizes) for n in declared)
    rest = tuple(split[n][1] if n in split else axis for n, axis in enumerate(axes))
    return take_region(block.reshape(len(block), *shape), rest, lead=1)


def reshaped(block: np.ndarray, declared: Shape) -> np.ndarray:
    """Return cells ``(rows, *given)`` in the declared shape; see the shape rule of the module.

    Raises
    ------
    Mismatch
        If the shapes differ by more than axes of length 1.
    """
    check_shape(declared, block.shape[1:])
    return block.reshape(len(block), *declared)


def check_shape(declared: Shape, given: Shape) -> None:
    """Check that a cell can get the declared shape; see the shape rule of the module.

    Parameters
    ----------
    declared
        Shape that the cell's descriptor declares, or those of other runs if it leaves lengths open.
    given
        Shape of the cell in its file.

    Raises
    ------
    Mismatch
        If the shapes differ by more than axes of length 1.
    """
    if not are_alike(declared, given):
        raise Mismatch(f"the descriptor declares the shape {declared}, the file holds {given}")


def are_alike(one: Sequence[int] | None, other: Sequence[int] | None) -> bool:
    """Return whether shapes are known, and equal except for axes of length 1."""
    if one is None or other is None:
        return False
    return one == other or long_axes(one) == long_axes(other)


def long_axes(shape: Sequence[int]) -> list[int]:
    """Return the lengths other than 1, which must be equal for shapes to be reconciled."""
    return [n for n in shape if n != 1]


# -- dtypes ----------------------------------------------------------------------------------


def cast(block: np.ndarray, dtype: np.dtype, *, who: str = "the descriptor declares") -> np.ndarray:
    """Convert values to another dtype, if none of them changes by it.

    Parameters
    ----------
    block, dtype
        Values, and the dtype that they must get.
    who
        Beginning of an error message: what has this dtype.

    Raises
    ------
    Mismatch
        If a value would change.
    """
    if block.dtype == dtype:
        return block
    if dtype.kind == "O" or _keeps_all(block.dtype, dtype):
        return block.astype(dtype)
    if not _is_convertible(block.dtype, dtype):
        raise Mismatch(_other_dtype(block, dtype, who))
    # A cast that may change values is tried, and undone to compare.
    try:
        with np.errstate(all="ignore"):
            # NumPy warns of imaginary parts that it leaves out, here checked by the way back.
            is_made_real = block.dtype.kind == "c" and dtype.kind not in "cO"
            changed = (block.real if is_made_real else block).astype(dtype)
            is_made_complex = dtype.kind == "c" and block.dtype.kind != "c"
            back = (changed.real if is_made_complex else changed).astype(block.dtype)
    # Times beyond the other unit wrap before NumPy 2.5, and are an OverflowError since.
    except (TypeError, ValueError, OverflowError) as error:
        raise Mismatch(_other_dtype(block, dtype, who)) from error
    same = np.array_equal(back, block, equal_nan=block.dtype.kind in "fcmM")
    if not same or _overflows(block, changed):
        said = f"{_other_dtype(block, dtype, who)}, with values that would change"
        # Integers may only be meant to be floats because NaN stands for missing cells.
        if block.dtype.kind in "iu" and dtype.kind == "f":
            said += "; if it is for missing cells, missing='drop' or fill_value= keeps integers"
        raise Mismatch(said)
    return changed


def _keeps_all(given: np.dtype, dtype: np.dtype) -> bool:
    """Return whether every value of one dtype is one of the other."""
    # NumPy calls it safe to round integers of 64 bits to float64, to wrap times to a finer unit,
    # and to take bytes for ASCII.
    is_wide = given.kind in "iu" and given.itemsize == 8
    if (is_wide and dtype.kind in "fc") or given.kind in "mM" or given.kind + dtype.kind == "SU":
        return False
    return _is_convertible(given, dtype) and np.can_cast(given, dtype, "safe")


def _is_convertible(given: np.dtype, dtype: np.dtype) -> bool:
    """Return whether values of one kind can be meant by a claim of the other.

    NumPy would also make text, times, raw bytes or records of numbers.
    """
    kinds = given.kind, dtype.kind
    if kinds[0] == kinds[1] or "O" in kinds or set(kinds) <= set("biufc"):
        return True
    # HDF5 has no times, so int64 holds those of a claim; events hold times as text.
    is_time = kinds[1] in "mM" and (kinds[0] in "SU" or given == np.int64)
    return is_time or set(kinds) <= set("SU")


def _overflows(block: np.ndarray, changed: np.ndarray) -> bool:
    """Return whether integers changed that the way back restores, as -1 does by way of uint64."""
    # Floats and others differ on their way back if they changed.
    if block.dtype.kind not in "iu" or changed.dtype.kind not in "iu" or not block.size:
        return False
    return bool(block.min() != changed.min() or block.max() != changed.max())


def _other_dtype(block: np.ndarray, dtype: np.dtype, who: str) -> str:
    return f"{who} the dtype {dtype}, the file holds {block.dtype}"
