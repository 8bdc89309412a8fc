"""Runs as files, one run after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.bad_runs import BadRun, warn_of_bad
from ..core.documents import ALL
from ..core.errors import StoreDamaged
from .datasets import write_netcdf, write_zarr
from .journal import ExportJournal
from .jsonl import write_jsonl
from .nexus import write_nexus
from .options import ExportOptions, Place
from .references.icechunk import write_icechunk
from .references.kerchunk import write_references
from .tables import write_csv, write_parquet

if TYPE_CHECKING:
    from ..header import Header

__all__ = ["export", "export_run"]

WRITERS = {
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "netcdf": write_netcdf,
    "zarr": write_zarr,
    "csv": write_csv,
    "nexus": write_nexus,
    "references": write_references,
    "icechunk": write_icechunk,
}


def export(
    headers: Iterable[Header],
    folder: str | os.PathLike[str],
    format: str = "jsonl",
    *,
    stream: Any = ALL,
    fill: bool = False,
    files: str | os.PathLike[str] | None = None,
    arrays: str = "raise",
    partition: str | None = None,
    to: Mapping[str, str] | None = None,
    verify: bool = True,
    resume: bool = False,
) -> Iterator[Path]:
    """Write runs into a folder, one after the other. Lazy: iterate to make it happen.

    Parameters
    ----------
    headers
        The runs.
    folder
        Made if need be.
    format
        ================ =============================== =========================================
        format           files                           content
        ================ =============================== =========================================
        ``"jsonl"``      ``<uid>.jsonl``                 documents
        ``"parquet"``    ``<uid>/<stream>.parquet``      table of the stream, arrays as lists
        ``"netcdf"``     ``<uid>.nc``                    a group for each stream
        ``"zarr"``       ``<uid>.zarr``                  likewise
        ``"csv"``        ``<uid>/<stream>.csv``          table of the stream, without arrays
        ``"nexus"``      ``<uid>.nxs``                   see :mod:`daskbroker.exporting.nexus`
        ``"references"`` ``<uid>.json``, ``<uid>.parq``  a group for each stream, frames as ranges
                                                         of bytes of detector files; Parquet for
                                                         many chunks
        ``"icechunk"``   ``<uid>.icechunk``              likewise, as a repository of Icechunk
        ================ =============================== =========================================
    stream
        Only this stream, of runs that have it; not for ``"jsonl"``. Then netCDF and Zarr hold its
        variables at the top.
    fill
        Put external data in place of references; of NeXus, in place of links to files.
    files
        A folder: detector files are copied below it, and the documents refer to these; for
        ``"jsonl"``. See :mod:`daskbroker.assets.transfer`.
    arrays
        Of columns with arrays in CSV, and of frames that references cannot tell: ``"raise"``, or
        ``"drop"`` to leave them out.
    partition
        ``"run"``, for ``"parquet"``: the files are ``<stream>/<uid>.parquet`` with a column
        ``run``, so that a folder is one table. Files of runs that had ended when they were
        written stay as they are, and are not given.
    to
        What references call folders, ``{"/gpfs/x": "s3://x"}``; all files have to be below one.
        Without it they have their paths here, ``root_map`` applied.
    verify
        Read each file back before it gets its name. Documents and tables are compared with a
        digest of what was written, variables of netCDF, Zarr and NeXus with their values; for
        netCDF and Zarr lazy ones, such as frames with ``fill``, are read from the run once more.
        Of references the first and the last cell are compared, whatever this says.
    resume
        Leave out runs that are whole in the folder: those that had ended when they were exported
        with the same options (but ``verify``), and whose files have the size that they had. The
        file ``.daskbroker-export.jsonl`` in the folder tells of them, whether this is set or not.

    Yields
    ------
    Path
        Each file, complete, and synced with its name: it survives a loss of power. Runs that
        cannot be read are left out, each with a :class:`daskbroker.BadRunWarning`; of such a run
        some files may be there. A process that is killed leaves at most one file ``.<hex>.part``.

    Raises
    ------
    BadQuery
        For an unknown format, an option that the format does not have, and arrays in CSV.
    StoreFull, StoreReadOnly, StoreError
        If a file cannot be written, or does not hold what was written to it; then it is not
        there, or is the one that was there before.
    """
    options = ExportOptions(format, stream, fill, files, arrays, partition, to, verify)
    journal = ExportJournal(Path(folder), options)
    for header in headers:
        try:
            run = header.as_now()
            if resume and journal.has(run):
                continue
            found = []
            for path in _written(run, Place(Path(folder)), options):
                found.append(path)
                yield path
            if partition is None:  # there the files themselves tell
                journal.note(run, found)
        except StoreDamaged as error:
            warn_of_bad(BadRun(header.uid, str(error)))


def export_run(
    header: Header, path: str | os.PathLike[str], format: str | None = None, **options: Any
) -> list[Path]:
    """Write one run; see :meth:`daskbroker.Header.export`."""
    if options.get("stream", ALL) is not ALL:
        header.es_given_stream(options["stream"])
    return list(_written(header, *Place.named(path, format, **options)))


def _written(header: Header, place: Place, options: ExportOptions) -> Iterator[Path]:
    return WRITERS[options.format](header.as_now(), place, options)
