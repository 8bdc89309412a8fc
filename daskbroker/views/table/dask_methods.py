"""Methods of Dask's tables that fail on some columns and indexes; here they do not.

``resample`` fails if its bins are wider than partitions, or if the index has one instant. P2P, the
shuffle with a Client, cannot transfer columns of objects. Statistics cannot be computed of integers
with gaps, pandas' ``Int64``.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import dask
import pandas as pd
from dask.dataframe.tseries import resample
from dask.utils import get_default_shuffle_method

from daskbroker.core.errors import BadQuery

SHUFFLING = ("drop_duplicates", "join", "merge", "shuffle")
"""Methods of tables that may shuffle rows, beside ``set_index``."""
OF_FLOATS = ("describe", "median", "median_approximate", "quantile", "std", "var")
"""Methods of tables and columns for which Dask needs floats; else it raises TypeErrors."""


# -- resampling ------------------------------------------------------------------------------


def resampler(frame: Any, rule: object, kwargs: dict[str, Any]) -> Resampler:
    """Return the resampler of a table, or a column, whose index has known divisions."""
    if not frame.known_divisions:
        raise BadQuery(
            "resample needs an index whose divisions are known; make one by set_index('time'), "
            "or set_index('time', sorted=True) where the rows are in the order of time"
        )
    return Resampler(frame, rule, **kwargs)


class Resampler(resample.Resampler):  # type: ignore[misc]
    """Dask's ``Resampler`` with two errors fixed: see :class:`_Mended`."""

    def _single_agg(self, expr_cls: type, *args: Any, **kwargs: Any) -> Any:
        return super()._single_agg(MENDED[expr_cls], *args, **kwargs)


class _Mended:
    """Fixes of dask's resampling for wide bins, and for an index of one instant."""

    @property
    def npartitions(self) -> int:
        # Wide bins make fewer partitions; dask reports the old number, and fails if one is left.
        return len(self.divisions) - 1  # type: ignore[attr-defined]

    @functools.cached_property
    def _resample_divisions(self) -> tuple[Any, Any]:
        borders, labels = super()._resample_divisions  # type: ignore[misc]
        # An index of one instant needs two borders, too; dask gives it only one, and fails.
        return (borders * 2, labels * 2) if len(borders) == 1 else (borders, labels)


MENDED: dict[type, type] = {
    kind: type(kind.__name__, (_Mended, kind), {"__module__": __name__})
    for kind in resample.ResampleReduction.__subclasses__()
}
globals().update((kind.__name__, kind) for kind in MENDED.values())  # classes are pickled by name


# -- shuffles of columns of objects ----------------------------------------------------------


def shuffle_options(*collections: Any) -> dict[str, str]:
    """Return ``shuffle_method="tasks"`` if some column cannot be transferred, else nothing.

    P2P, the default with a Client, converts cells to Arrow, which has no type of images, nor of
    mixed cells: the shuffle fails. A method that is configured is the user's choice.
    """
    if dask.config.get("dataframe.shuffle.method", None) or not any(map(_has_objects, collections)):
        return {}
    return {"shuffle_method": "tasks"} if get_default_shuffle_method() == "p2p" else {}


def _has_objects(collection: Any) -> bool:
    meta = getattr(collection, "_meta", None)
    # Not by `kind`, which is the same of pandas' text.
    return isinstance(meta, pd.DataFrame) and any(map(pd.api.types.is_object_dtype, meta.dtypes))


def by_tasks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of tables whose shuffle is by tasks if P2P would fail."""
    parameters = inspect.signature(method)

    @functools.wraps(method)
    def shuffled(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = parameters.bind_partial(self, *args, **kwargs).arguments
        tables = (self, given.get("right"), given.get("other"))
        options = {} if "shuffle_method" in given else shuffle_options(*tables)
        return method(self, *args, **{**options, **kwargs})

    return shuffled


# -- statistics of integers with gaps --------------------------------------------------------


def with_floats(collection: Any) -> Any:
    """Return a lazy table or column with ``float64`` in place of ``Int64``."""
    meta = collection._meta
    if isinstance(meta, pd.Series):
        return collection.astype("float64") if _is_masked(meta.dtype) else collection
    masked = {name: "float64" for name, dtype in meta.dtypes.items() if _is_masked(dtype)}
    return collection.astype(masked) if masked else collection


def _is_masked(dtype: object) -> bool:
    return isinstance(dtype, pd.Int64Dtype)
