"""Statistics of columns of integers with gaps, which Dask cannot compute of pandas' ``Int64``."""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["OF_FLOATS", "with_floats"]

OF_FLOATS = ("describe", "median", "median_approximate", "quantile", "std", "var")
"""Methods of tables and columns for which Dask needs floats; else it raises TypeErrors."""


def with_floats(collection: Any) -> Any:
    """Return a lazy table or column with ``float64`` in place of ``Int64``."""
    meta = collection._meta
    if isinstance(meta, pd.Series):
        return collection.astype("float64") if _is_masked(meta.dtype) else collection
    masked = {name: "float64" for name, dtype in meta.dtypes.items() if _is_masked(dtype)}
    return collection.astype(masked) if masked else collection


def _is_masked(dtype: object) -> bool:
    return isinstance(dtype, pd.Int64Dtype)
