"""Progress of long work: a bar in a terminal or a notebook, quiet elsewhere."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sized
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(
    items: Iterable[Any] | None, unit: str, show: bool | None = None, *, of: Sized | None = None
) -> Any:
    """A ``tqdm`` bar; with ``update(n)``, ``close()``, as a context manager, and to iterate.

    Parameters
    ----------
    items
        What is to do, given by iterating the bar; None: it is not known beforehand. Counted only
        where the bar is shown, and if they have a length.
    unit
        Of what, such as ``" runs"``.
    of
        What to count, where the items themselves have no length.
    show
        None: in a terminal and in a notebook; True: always; False: never.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a notebook has no widgets, text will do
        from tqdm import autonotebook, std
    in_notebook = autonotebook.tqdm is not std.tqdm
    shown = sys.stderr.isatty() or in_notebook if show is None else show
    counted = items if of is None else of
    total = len(counted) if shown and isinstance(counted, Sized) else None
    if not shown:
        total = 0  # tqdm would count
    return autonotebook.tqdm(items, total=total, unit=unit, disable=not shown)
