"""``engine="daskbroker"`` of :func:`xarray.open_dataset` and :func:`xarray.open_datatree`."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from .connect import connect
from .core.redaction import redacted

__all__ = ["DaskbrokerEntrypoint"]


class DaskbrokerEntrypoint(BackendEntrypoint):
    """Streams of runs, opened by xarray.

    ``xr.open_dataset(place, engine="daskbroker", run=uid, stream="primary")`` is
    ``connect(place)[uid].dataset("primary", chunks=None)``. With ``chunks={}`` xarray cuts it as
    :meth:`daskbroker.Header.dataset` would; that one also shares reads and names tasks by what
    they read, so with Dask it is the better one.
    """

    description: ClassVar[str] = "Bluesky runs in a daskbroker store"
    url: ClassVar[str] = ""
    supports_groups: ClassVar[bool] = True
    # xarray would look for them, and refuse `**options`: of any engine, for whatever is opened.
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (
        "filename_or_obj",
        "drop_variables",
        "run",
        "stream",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Never: a folder or a uri may be anything, so the engine has to be named."""
        return False

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        run: Any = -1,
        stream: str = "primary",
        **options: Any,
    ) -> xr.Dataset:
        """One stream of a run.

        Parameters
        ----------
        filename_or_obj
            Whatever :func:`daskbroker.connect` opens.
        drop_variables
            Names of variables to leave out.
        run
            Uid, scan_id or offset; by default the newest run.
        stream
            Its name.
        **options
            As :meth:`daskbroker.Header.dataset` has them: ``fields``, ``fill``, ``timestamps``,
            ``duplicates``, ``dtypes``, ``roi`` and others, but for ``chunks``.

        Raises
        ------
        StoreNotFound, KeyError, StreamNotFound
        """
        header = connect(filename_or_obj, create=False)[run]
        opened = header.dataset(stream, chunks=None, **options)
        lengths = header.dataset(stream, **options).chunks.get("time", ())
        for variable in opened.variables.values():
            if lengths and "time" in variable.dims:
                variable.encoding["preferred_chunks"] = {"time": lengths[0]}
        return self._shown(
            opened.drop_vars(_names(drop_variables), errors="ignore"), filename_or_obj
        )

    def open_datatree(  # type: ignore[override]
        self,
        filename_or_obj: str | PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        run: Any = -1,
        fill: bool = True,
    ) -> xr.DataTree:
        """All streams of a run, as :meth:`daskbroker.Header.tree` has them.

        Parameters
        ----------
        filename_or_obj, drop_variables, run
            As for :meth:`open_dataset`.
        fill
            Whether external data are filled.
        """
        tree = connect(filename_or_obj, create=False)[run].tree(fill, chunks=None)
        names = _names(drop_variables)
        if names:
            tree = tree.map_over_datasets(lambda node: node.drop_vars(names, errors="ignore"))
        return self._shown(tree, filename_or_obj)

    @staticmethod
    def _shown(opened: Any, place: str | PathLike[str]) -> Any:
        """What was opened, which says from where, without a password."""
        opened.encoding["source"] = redacted(fspath(place))
        return opened


def _names(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
