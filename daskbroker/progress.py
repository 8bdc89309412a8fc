"""Progress of long work: a bar in a terminal or a notebook, quiet elsewhere."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sized
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(items: Iterable[Any], unit: str, show: bool | None = None) -> Any:
    """A ``tqdm`` bar; with ``update(n)``, ``close()``, and as a context manager.

    Parameters
    ----------
    items
        What is to do; counted only where the bar is shown, and if they have a length.
    unit
        Of what, such as ``" runs"``.
    show
        None: in a terminal and in a notebook; True: always; False: never.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a notebook has no widgets, text will do
        from tqdm import autonotebook, std
    in_notebook = autonotebook.tqdm is not std.tqdm
    shown = sys.stderr.isatty() or in_notebook if show is None else show
    total = len(items) if shown and isinstance(items, Sized) else None
    return autonotebook.tqdm(total=total, unit=unit, disable=not shown)
