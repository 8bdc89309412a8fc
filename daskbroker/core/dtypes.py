"""dtypes from text of documents and files, which NumPy would read as more than a name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

__all__ = ["dtype_of", "plain_dtype"]

_PLAIN = re.compile(r"[<>|=]?(?:[biufcSU]\d{1,9}|[mM]8(?:\[\d{0,9}[a-zA-Z]{1,2}\])?|\?)")


def plain_dtype(text: Any) -> np.dtype:
    """The dtype of numbers, booleans, text or times, by NumPy's short name such as ``<f8``.

    Raises
    ------
    ValueError
        For any other: of objects, of fields, of more than one value.
    """
    if not isinstance(text, str) or not _PLAIN.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no dtype of plain values")
    return dtype_of(text)


def dtype_of(given: Any) -> np.dtype:
    """What NumPy takes for a dtype.

    Raises
    ------
    ValueError
        If it does not; NumPy has its own parser, which also raises SyntaxError and MemoryError.
    """
    try:
        return np.dtype(given)
    except (
        TypeError,
        ValueError,
        SyntaxError,
        MemoryError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(f"{given!r:.80} is no dtype: {error}") from None
