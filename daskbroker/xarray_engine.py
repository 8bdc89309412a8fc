"""``engine="daskbroker"`` of :func:`xarray.open_dataset` and :func:`xarray.open_datatree`."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from os import PathLike, fspath
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from .connect import connect
from .core.arguments import unknown_argument
from .core.redaction import redacted
from .header import Header

OPTIONS = ("run", "stream", *list(signature(Header.dataset).parameters)[2:])
"""Names of the options of :meth:`DaskbrokerEntrypoint.open_dataset`."""


class DaskbrokerEntrypoint(BackendEntrypoint):
    """Entrypoint by which xarray opens streams of runs.

    ``xr.open_dataset(place, engine="daskbroker", run=uid, stream="primary")`` is
    ``connect(place)[uid].dataset("primary", chunks=None)``. With ``chunks={}`` xarray uses the
    blocks of :meth:`daskbroker.Header.dataset`, which the encodings of the variables name. With
    Dask, prefer that method: it also shares reads between variables, and names tasks by what they
    read.
    """

    description: ClassVar[str] = "Bluesky runs in a daskbroker store"
    url: ClassVar[str] = ""
    supports_groups: ClassVar[bool] = True
    # Without this list xarray inspects the signature of `open_dataset` and refuses `**options`,
    # whatever engine is requested.
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (
        "filename_or_obj",
        "drop_variables",
        "run",
        "stream",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return False: a folder or URI may be anything, so the engine must be named."""
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
        """Open one stream of a run as a lazy Dataset.

        Parameters
        ----------
        filename_or_obj
            Folder, URI or name that :func:`daskbroker.connect` accepts.
        drop_variables
            Names of variables to leave out.
        run
            Uid, scan_id or offset; by default the newest run.
        stream
            Name of the stream.
        **options
            Options of :meth:`daskbroker.Header.dataset` except ``chunks``: ``fields``, ``fill``,
            ``timestamps``, ``duplicates``, ``dtypes``, ``roi`` and others.

        Raises
        ------
        StoreNotFound
            If there is no store.
        KeyError
            If there is no such run.
        StreamNotFound
            If the run has no such stream.
        """
        for name in options:
            if name not in OPTIONS:
                raise unknown_argument("open_dataset", name, OPTIONS)
        header = connect(filename_or_obj, create=False)[run]
        opened = header.dataset(stream, chunks=None, **options)
        kept = opened.drop_vars(_names(drop_variables), errors="ignore")
        return _with_source(kept, filename_or_obj)

    def open_datatree(  # type: ignore[override]
        self,
        filename_or_obj: str | PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        run: Any = -1,
        fill: bool = True,
    ) -> xr.DataTree:
        """Open all streams of a run as a lazy DataTree; see :meth:`daskbroker.Header.tree`.

        Parameters
        ----------
        filename_or_obj, drop_variables, run
            As for :meth:`open_dataset`.
        fill
            Whether to fill external data.
        """
        tree = connect(filename_or_obj, create=False)[run].tree(fill, chunks=None)
        names = _names(drop_variables)
        if names:
            tree = tree.map_over_datasets(lambda node: node.drop_vars(names, errors="ignore"))
        return _with_source(tree, filename_or_obj)


def _with_source(opened: Any, place: str | PathLike[str]) -> Any:
    """Note the place, without its password, in the encoding of what was opened, and return that."""
    opened.encoding["source"] = redacted(fspath(place))
    return opened


def _names(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
