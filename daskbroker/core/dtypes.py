"""dtypes from texts of documents and files, which NumPy's parser takes for more than names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

__all__ = ["dtype_of", "plain_dtype"]

_PLAIN = re.compile(r"[<>|=]?(?:[biufcSU]\d{1,9}|[mM]8(?:\[\d{0,9}[a-zA-Z]{1,2}\])?|\?)")


def plain_dtype(text: Any) -> np.dtype:
    """Return the dtype of NumPy's short name for numbers, booleans, text or times, as ``<f8``.

    Raises
    ------
    ValueError
        If it is any other dtype: of objects, of fields, or of more than one value.
    """
    if not isinstance(text, str) or not _PLAIN.fullmatch(text):
        raise ValueError(f"{text!r:.80} is not a dtype of plain values")
    return dtype_of(text)


def dtype_of(given: Any) -> np.dtype:
    """Return ``numpy.dtype(given)``, with one type of error.

    Raises
    ------
    ValueError
        If NumPy does not accept it; NumPy's parser also raises SyntaxError and MemoryError.
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
