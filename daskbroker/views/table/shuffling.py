"""Shuffles of columns of objects on a cluster, which Dask's P2P cannot transfer."""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import dask
import pandas as pd
from dask.utils import get_default_shuffle_method

__all__ = ["SHUFFLING", "by_tasks", "shuffle_options"]

SHUFFLING = ("drop_duplicates", "join", "merge", "shuffle")
"""Methods of tables that may shuffle rows, beside ``set_index``."""


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
