"""Resampling of tables: two errors of dask's are fixed.

``resample`` fails if its bins are wider than partitions, or if the index has one instant.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
from typing import Any

from dask.dataframe.tseries import resample

from daskbroker.core.errors import BadQuery

__all__ = ["Resampler", "resampler"]


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
