"""Progress of long work: a bar in a terminal or a notebook, quiet elsewhere."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sized
from typing import Any


def progress_bar(
    items: Iterable[Any] | None, unit: str, *, show: bool | None = None, of: Sized | None = None
) -> Any:
    """Return a ``tqdm`` progress bar: iterate over it, or call ``update(n)`` and ``close()``.

    It is also a context manager.

    Parameters
    ----------
    items
        Items given by iterating over the bar; None if they are not known beforehand. Their number
        is looked up only if the bar is shown and they have a length.
    unit
        Unit of the count, such as ``" runs"``.
    show
        Whether to show the bar: in a terminal and in a notebook if None.
    of
        Collection whose length is the total, if the items themselves have no length.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a notebook has no widgets, text will do
        from tqdm import autonotebook, std
    in_notebook = autonotebook.tqdm is not std.tqdm
    # A daemon may have no standard error.
    in_terminal = sys.stderr is not None and sys.stderr.isatty()
    shown = in_terminal or in_notebook if show is None else show
    counted = items if of is None else of
    total = len(counted) if shown and isinstance(counted, Sized) else None
    if not shown:
        total = 0  # tqdm would count
    return autonotebook.tqdm(items, total=total, unit=unit, disable=not shown)
