"""dtypes from texts of documents and files, which NumPy's parser takes for more than names.

The fields of a structured dtype are kept as JSON text, see :func:`fields_text`.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.format import descr_to_dtype, dtype_to_descr

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
        raise ValueError(f"{given!r:.80} is not a valid dtype: {error}") from None


def described_dtype(descr: Any) -> np.dtype:
    """Return the dtype of NumPy's description (``.npy`` files have it), which may be of JSON."""
    return descr_to_dtype(_tuples(descr))


def _tuples(descr: object) -> Any:
    """Turn lists of JSON into tuples where NumPy's description of a structured dtype has them."""
    if not isinstance(descr, list):
        return descr
    if descr and not isinstance(descr[0], list):  # of a field that is an array: dtype and shape
        return (_tuples(descr[0]), tuple(descr[1]))
    return [(name, _tuples(kind), *map(tuple, rest)) for name, kind, *rest in descr]


# -- of fields -------------------------------------------------------------------------------


def fields_text(dtype: np.dtype) -> str:
    """Return a structured dtype without gaps and titles as JSON text."""
    return json.dumps(dtype_to_descr(dtype), separators=(",", ":"))


@lru_cache(maxsize=1000)
def fields_dtype(text: str) -> np.dtype:
    """Return the dtype of which :func:`fields_text` made a text.

    Raises
    ------
    ValueError
        If it is no such text.
    """
    try:
        found = described_dtype(json.loads(text))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{text!r:.80} does not describe the fields of an array: {error}"
        ) from None
    if not found.names:
        raise ValueError(f"{text!r:.80} does not describe the fields of an array")
    return found
