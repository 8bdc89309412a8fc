"""Export of runs to files, one run after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import advice
from ..core.arguments import FLAG, accepts
from ..core.bad_runs import BadRun, warn_of_bad
from ..core.documents import ALL, StreamName
from ..core.errors import BadQuery, StoreDamaged
from ..core.unfinished import remove_unfinished
from .datasets import write_netcdf, write_zarr
from .export_log import ExportLog
from .export_options import Destination, ExportOptions, is_named_as_file
from .jsonl import write_jsonl
from .nexus import write_nexus
from .references.icechunk import write_icechunk
from .references.kerchunk import write_references
from .tables import write_csv, write_parquet

if TYPE_CHECKING:
    from ..header import Header

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


@accepts(resume=FLAG)
def export(
    headers: Iterable[Header],
    /,
    folder: str | os.PathLike[str],
    format: str | None = None,
    *,
    stream: StreamName = ALL,
    fill: bool = False,
    files: str | os.PathLike[str] | None = None,
    arrays: str = "raise",
    partition: str | None = None,
    to: Mapping[str, str] | None = None,
    verify: bool = True,
    resume: bool = False,
) -> Iterator[Path]:
    """Write runs into a folder, one after the other. Lazy: nothing is written before iteration.

    Parameters
    ----------
    headers
        Headers of the runs.
    folder
        Path of the folder. It is created if it does not exist.
    format
        Name of the format, ``"jsonl"`` if None:

        ================ =============================== =========================================
        format           files                           content
        ================ =============================== =========================================
        ``"jsonl"``      ``<uid>.jsonl``                 documents
        ``"parquet"``    ``<uid>/<stream>.parquet``      table of the stream, arrays as lists
        ``"netcdf"``     ``<uid>.nc``                    a group for each stream
        ``"zarr"``       ``<uid>.zarr``                  as for ``"netcdf"``
        ``"csv"``        ``<uid>/<stream>.csv``          table of the stream, without arrays
        ``"nexus"``      ``<uid>.nxs``                   see :mod:`daskbroker.exporting.nexus`
        ``"references"`` ``<uid>.json``, ``<uid>.parq``  a group for each stream, frames as ranges
                                                         of bytes of detector files; Parquet for
                                                         many chunks
        ``"icechunk"``   ``<uid>.icechunk``              as for ``"references"``, in a repository
                                                         of Icechunk
        ================ =============================== =========================================
    stream
        Name of the only stream to export. Runs without it are left out. The variables of netCDF
        and Zarr are then at the top, not in a group. Not for ``"jsonl"``.
    fill
        Whether external data is written in place of references, and for NeXus in place of links
        to files.
    files
        Folder below which detector files are copied. The documents refer to these copies. Only
        for ``"jsonl"``. See :mod:`daskbroker.assets.transfer`.
    arrays
        What to do with columns that have arrays in CSV, and with frames that references cannot
        describe: ``"raise"`` an error, or ``"drop"`` them.
    partition
        ``"run"`` or None; only for ``"parquet"``. With ``"run"`` the files are
        ``<stream>/<uid>.parquet`` and have a column ``run``, so that a folder is one table. Files
        of runs that had ended when they were written stay as they are, and are not yielded.
    to
        New locations of folders in references, such as ``{"/gpfs/x": "s3://x"}``. Every file must
        be below one of the folders. If None, references have the paths on this machine, with
        ``root_map`` applied.
    verify
        Whether to read each file back before it gets its name. Documents and tables are compared
        with a digest of what was written, variables of netCDF, Zarr and NeXus with their values.
        For netCDF and Zarr, lazy variables such as frames with ``fill`` are read from the run once
        more. The first and the last cell of references are always compared.
    resume
        Whether to leave out runs that are complete in the folder. These had ended when they were
        exported with the same options (except ``verify``), and their files still have the same
        sizes. They are listed in the file ``.daskbroker-export.jsonl`` in the folder, which is
        written in any case.

    Yields
    ------
    Path
        Path of each file. The file is complete, and synced with its name, so that it survives a
        loss of power. Runs that cannot be read are left out, each with a
        :class:`daskbroker.BadRunWarning`; some files of such a run may exist. What a process that
        was killed has left unfinished, a hidden ``.part``, is removed by the next export into the
        same folder.

    Raises
    ------
    BadQuery
        If the format is unknown or does not have one of the given options, or if a column for CSV
        holds arrays. Also if no format is given and the name of the folder is that of a file, such
        as ``"scans.nc"``.
    StoreFull, StoreReadOnly, StoreError
        If a file cannot be written, or does not hold what was written to it. The file then does
        not exist, or is still the previous one.
    """
    if format is None and is_named_as_file(folder):
        raise BadQuery(
            f"{os.fspath(folder)!r} is the name of a file, but runs are exported into a folder, "
            f"with files for each run: name a folder, and the format by {advice.option('format')}"
        )
    format = "jsonl" if format is None else format
    options = ExportOptions(format, stream, fill, files, arrays, partition, to, verify)
    log = ExportLog(Path(folder), options)
    cleared: set[Path] = set()
    for header in headers:
        try:
            run = header.as_now()
            if resume and log.has(run):
                continue
            found = []
            for path in _written(run, Destination(Path(folder)), options, cleared):
                found.append(path)
                yield path
            if partition is None:  # partitioned files say themselves whether they are complete
                log.note(run, found)
        except StoreDamaged as error:
            warn_of_bad(BadRun(header.uid, str(error)))


def export_run(
    header: Header, path: str | os.PathLike[str], format: str | None = None, **options: Any
) -> list[Path]:
    """Write one run and return the paths of its files; see :meth:`daskbroker.Header.export`.

    Parameters
    ----------
    header
        Header of the run.
    path
        Path of a folder, or of a file whose suffix is one of a format's.
    format
        Name of the format. If None, it is found by the suffix of ``path``, or is ``"jsonl"``.
    **options
        Options of :func:`export`, except ``resume``.
    """
    if options.get("stream", ALL) is not ALL:
        header.es_given_stream(options["stream"])
    return list(_written(header, *Destination.named(path, format, **options), set()))


def _written(
    header: Header, destination: Destination, options: ExportOptions, cleared: set[Path]
) -> Iterator[Path]:
    """Write the files of a run and yield their paths.

    Folders that are not in ``cleared`` are cleared of unfinished files first, and are added to it.
    """
    run = header.as_now()
    for folder in destination.folders(run, options) - cleared:
        remove_unfinished(folder)
        cleared.add(folder)
    yield from WRITERS[options.format](run, destination, options)
