"""Shapes and dtypes found in detector files, as a store keeps them.

A :class:`Peek` describes one resource group: the resources that the events of one descriptor refer
to by one data key. It is made by reading the files (:mod:`daskbroker.assets.peek`), and kept by
stores beside the documents, which it does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.format import dtype_to_descr

from .digests import digest_of
from .documents import from_json, to_json
from .dtypes import described_dtype

CLAIMED = ("dtype", "shape", "dtype_numpy", "dtype_descr", "dtype_str", "external")
"""Keys of an entry of ``data_keys`` that describe cells."""

FileState = tuple[str, int, int]
"""Path, size, and time of the last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Shape and dtype of the value that a handler returns for one event.

    Attributes
    ----------
    shape
        Shape of the array, or None if it is not an array.
    dtype
        Dtype in the byte order of this machine.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Size in memory in bytes; 0 if it is not an array."""
        if self.shape is None:
            return 0
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def __str__(self) -> str:
        return "no arrays" if self.shape is None else f"cells of {self.shape}, {self.dtype}"


@dataclass(frozen=True, slots=True)
class ExtraFrames:
    """Frames of a file that belong to no event, because the documents describe fewer.

    Attributes
    ----------
    path
        Path of the file or folder.
    there, described
        Number of frames in the file, and of those that the documents of the run describe.
    option
        Keyword of the handler for the number of frames of an event; "" if there is none.
    per_event
        Value of that keyword that would divide all frames equally among the events; 0 if they
        cannot be.
    """

    path: str
    there: int
    described: int
    option: str = ""
    per_event: int = 0


@dataclass(frozen=True)
class Peek:
    """Cells found in the files of one resource group.

    Attributes
    ----------
    run, descriptor, key
        Uid of the run, uid of the descriptor, and data key of the group.
    sort
        :func:`claim_sort` of its specs, key and claim; groups of one sort are probably alike.
    spec, handler
        Spec of the resources, and handler that has read them; for another handler it is not valid.
    rows
        Number of events of the descriptor when it was made; with more events there may be more
        resources.
    cells
        The different cells of the first and last resource, and of those that were found to differ.
    files
        State of the files that were read, at that time; of size and time 0 if there was none.
    extra
        Those of the files that have more frames than the documents describe. Only for runs that
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
        """Return the same peek with more cells; those it has already are not repeated."""
        return replace(self, cells=tuple(dict.fromkeys((*self.cells, *cells))))

    def body(self) -> str:
        """Return all but ``run``, ``descriptor``, ``key`` and ``sort`` as JSON text."""
        cells = [[cell.shape, dtype_to_descr(cell.dtype)] for cell in self.cells]
        content: dict[str, Any] = {
            "spec": self.spec,
            "handler": self.handler,
            "rows": self.rows,
            "cells": cells,
            "files": [list(state) for state in self.files],
        }
        if self.extra:
            content["extra"] = [list(astuple(one)) for one in self.extra]
        return to_json(content)

    @classmethod
    def of_body(cls, run: str, descriptor: str, key: str, sort: str, body: str) -> Peek | None:
        """Return the peek of a :meth:`body`; None if it is not valid, as if there were none."""
        try:
            content = from_json(body)
            cells = tuple(
                Cell(None if shape is None else tuple(map(int, shape)), described_dtype(descr))
                for shape, descr in content["cells"]
            )
            files = tuple(
                (str(path), int(size), int(time)) for path, size, time in content["files"]
            )
            extra = tuple(ExtraFrames(*one) for one in content.get("extra", ()))
            names = str(content["spec"]), str(content["handler"])
            return cls(
                run, descriptor, key, sort, *names, int(content["rows"]), cells, files, extra
            )
        except (TypeError, ValueError, KeyError, AttributeError):
            return None


def claim_sort(specs: Iterable[str], key: str, claim: Mapping[str, Any]) -> str:
    """Return a hash that resource groups of the same specs, data key and claim share.

    Parameters
    ----------
    specs
        Specs or mimetypes of the resources.
    key, claim
        Data key, and its entry in ``data_keys``.

    Returns
    -------
    str
        Hash of 32 hexadecimal digits.
    """
    claimed = {name: claim[name] for name in CLAIMED if claim.get(name) is not None}
    text = to_json([sorted(set(specs)), key, claimed])
    return digest_of(text)
