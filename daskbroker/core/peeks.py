"""What detector files say of their cells, as a store remembers it.

A :class:`Peek` is of one resource group: the resources that the events of one descriptor refer to
by one data key. It is made by whoever looks into the files (:mod:`daskbroker.assets.peek`), and
kept by stores beside the documents, which do not change by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from .documents import from_json, to_json

__all__ = ["Cell", "ExtraFrames", "Peek", "claim_sort"]

CLAIMED = ("dtype", "shape", "dtype_numpy", "dtype_descr", "dtype_str", "external")
"""What a claim says of cells, of all that an entry of ``data_keys`` has."""

FileState = tuple[str, int, int]
"""Path, size, and time of the last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a handler gives for one event.

    Attributes
    ----------
    shape
        None where it is no array.
    dtype
        In the byte order of this machine.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """In memory; 0 where it is no array."""
        if self.shape is None:
            return 0
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def __str__(self) -> str:
        return "no arrays" if self.shape is None else f"cells of {self.shape}, {self.dtype}"


@dataclass(frozen=True, slots=True)
class ExtraFrames:
    """Frames of a file that are in no event, as the documents tell of fewer.

    Attributes
    ----------
    path
        Of the file or folder.
    there, told
        Frames that it has, and those of them that the documents of the run tell of.
    option
        Keyword of the handler that says how many frames an event has; "" if there is none.
    per_event
        What that would be if the events had all frames alike; 0 where the numbers do not fit.
    """

    path: str
    there: int
    told: int
    option: str = ""
    per_event: int = 0


@dataclass(frozen=True)
class Peek:
    """What the files of one resource group say.

    Attributes
    ----------
    run, descriptor, key
        Whose it is.
    sort
        :func:`claim_sort` of its specs, key and claim; groups of one sort are probably alike.
    spec, handler
        Of the resources, and what has read them: with another handler it is not true.
    rows
        Events of the descriptor when it was made: with more, there may be more resources.
    cells
        The different ones of the first and last resource, and of those that were found to differ.
    files
        Those that were looked into, as they were.
    extra
        Of those files the ones that have more frames than the documents tell of. Only of runs that
        have stopped: while a run goes on, files are ahead of documents.
    """

    run: str
    descriptor: str
    key: str
    sort: str
    spec: str
    handler: str
    rows: int
    cells: tuple[Cell, ...]
    files: tuple[FileState, ...] = ()
    extra: tuple[ExtraFrames, ...] = ()

    def with_cells(self, cells: Iterable[Cell]) -> Peek:
        """The same with more cells that were found."""
        return replace(self, cells=tuple(dict.fromkeys((*self.cells, *cells))))

    def body(self) -> str:
        """All but :attr:`run`, :attr:`descriptor`, :attr:`key` and :attr:`sort`, as JSON text."""
        cells = [[cell.shape, dtype_to_descr(cell.dtype)] for cell in self.cells]
        told: dict[str, Any] = {
            "spec": self.spec,
            "handler": self.handler,
            "rows": self.rows,
            "cells": cells,
            "files": [list(state) for state in self.files],
        }
        if self.extra:
            told["extra"] = [list(astuple(one)) for one in self.extra]
        return to_json(told)

    @classmethod
    def of_body(cls, run: str, descriptor: str, key: str, sort: str, body: str) -> Peek | None:
        """From :meth:`body`; None for one that makes no sense here, as if there were none."""
        try:
            told = from_json(body)
            cells = tuple(
                Cell(None if shape is None else tuple(map(int, shape)), _dtype(descr))
                for shape, descr in told["cells"]
            )
            files = tuple((str(path), int(size), int(time)) for path, size, time in told["files"])
            extra = tuple(ExtraFrames(*one) for one in told.get("extra", ()))
            names = str(told["spec"]), str(told["handler"])
            return cls(run, descriptor, key, sort, *names, int(told["rows"]), cells, files, extra)
        except (TypeError, ValueError, KeyError, AttributeError):
            return None


def _dtype(descr: Any) -> np.dtype:
    return descr_to_dtype(_tuples(descr))


def _tuples(descr: Any) -> Any:
    """JSON has lists where NumPy's description of a structured dtype has tuples."""
    if not isinstance(descr, list):
        return descr
    if descr and not isinstance(descr[0], list):  # of a field that is an array: dtype and shape
        return (_tuples(descr[0]), tuple(descr[1]))
    return [(name, _tuples(kind), *map(tuple, rest)) for name, kind, *rest in descr]


def claim_sort(specs: Iterable[str], key: str, claim: Mapping[str, Any]) -> str:
    """What resource groups of the same specs, data key and claim have in common.

    Parameters
    ----------
    specs
        Specs or mimetypes of the resources.
    key, claim
        The data key, and its entry in ``data_keys``.
    """
    claimed = {name: claim[name] for name in CLAIMED if claim.get(name) is not None}
    text = to_json([sorted(set(specs)), key, claimed])
    return hashlib.blake2b(text.encode("utf8", "surrogatepass"), digest_size=16).hexdigest()
