"""Options of an export, and the paths of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import advice
from ..core.arguments import FLAG, check_one_of
from ..core.documents import ALL, StreamName
from ..core.errors import BadQuery, DaskbrokerError, file_error, naming
from ..core.file_names import file_name
from ..core.name_lists import listed
from ..views.table.plain_cells import ARRAYS

if TYPE_CHECKING:
    from ..header import Header

FORMATS = ("jsonl", "parquet", "netcdf", "zarr", "csv", "nexus", "references", "icechunk")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".nc": "netcdf",
    ".zarr": "zarr",
    ".csv": "csv",
    ".nxs": "nexus",
    ".json": "references",
    ".parq": "references",
    ".icechunk": "icechunk",
}
OTHERS = (
    ".h5", ".hdf", ".hdf5", ".nx", ".nexus", ".netcdf", ".pq", ".msgpack", ".xls", ".xlsx",
    ".txt", ".tsv", ".dat", ".npy", ".npz", ".tif", ".tiff", ".pickle", ".pkl",
)  # fmt: skip
"""Suffixes of other kinds of files: a path that ends in one is not meant as a folder."""
OF_STREAMS = ("parquet", "csv")
"""Formats that have a file for each stream."""
REFERRING = ("references", "icechunk")
"""Formats that refer to the frames in detector files and hold none."""
PARTITIONS = ("run",)


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export; see :func:`daskbroker.exporting.runs.export`.

    Raises
    ------
    BadQuery
        If the format is unknown, or does not have one of the given options.
    """

    format: str
    stream: StreamName = ALL
    fill: bool = False
    files: str | os.PathLike[str] | None = None
    arrays: str = "raise"
    partition: str | None = None
    to: Mapping[str, str] | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        check_one_of("the format", self.format, FORMATS)
        check_one_of("arrays", self.arrays, ARRAYS)
        FLAG.check("fill", self.fill)
        FLAG.check("verify", self.verify)
        if self.partition is not None:
            check_one_of("partition", self.partition, PARTITIONS)
        if self.files is not None and self.format != "jsonl":
            raise BadQuery(
                f"detector files can be exported with documents (jsonl), not with {self.format}"
            )
        if self.partition is not None and self.format != "parquet":
            raise BadQuery(
                f"{advice.option('partition')} needs the format parquet, not {self.format}"
            )
        if self.stream is not ALL and self.format == "jsonl":
            raise BadQuery(
                "the format jsonl exports whole runs; choose another one by "
                f"{advice.option('format')}, or leave out {advice.option('stream')}"
            )
        if self.to is not None and self.format not in REFERRING:
            raise BadQuery(
                f"{advice.option('to')} gives the locations in references; the format "
                f"{self.format} has no references"
            )
        if self.fill and self.format in REFERRING:
            raise BadQuery(
                f"{self.format} refers to frames and does not contain them; leave out "
                f"{advice.option('fill')}"
            )
        if self.fill and self.format == "csv":
            raise BadQuery(
                "the format csv cannot hold arrays, so it has references; leave out "
                f"{advice.option('fill')}"
            )

    @property
    def suffix(self) -> str:
        """Suffix of the names of files."""
        return next(suffix for suffix, format in SUFFIXES.items() if format == self.format)

    def streams(self, header: Header) -> list[str]:
        """Return the names of a run's streams to export; none if it lacks the chosen stream."""
        return [name for name in header.streams if self.stream in (ALL, name)]

    def lacks_stream(self, header: Header) -> bool:
        """Return whether a stream was chosen that a run does not have."""
        return self.stream is not ALL and not self.streams(header)


def is_named_as_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has the suffix of a file, and is not that of an existing folder."""
    suffix = Path(path).suffix.lower()
    return (suffix in SUFFIXES or suffix in OTHERS) and not Path(path).is_dir()


@dataclass(frozen=True)
class Destination:
    """Destination of an export: a folder, or one file that was named by the caller.

    Attributes
    ----------
    path
        Path of the folder or the file.
    is_file
        Whether ``path`` is the path of the file.
    """

    path: Path
    is_file: bool = False

    @classmethod
    def named(
        cls, path: str | os.PathLike[str], format: str | None, **options: Any
    ) -> tuple[Destination, ExportOptions]:
        """Return the destination and the options for a path that a user has given.

        Parameters
        ----------
        path
            Path of a file if its suffix is one of the format's, else of a folder.
        format
            Name of the format. If None, it is found by the suffix of ``path``, or is ``"jsonl"``.
        **options
            Fields of :class:`ExportOptions`.

        Raises
        ------
        BadQuery
            If no format is given, and the suffix is one of another kind of file, or if there is no
            such option. Also as raised by :class:`ExportOptions`.
        """
        suffix = Path(path).suffix.lower()
        meant = SUFFIXES.get(suffix)
        if format is None and suffix in OTHERS and not Path(path).is_dir():
            raise BadQuery(
                f"{os.fspath(path)!r}: no format has the suffix {suffix!r}; files end in "
                f"{', '.join(SUFFIXES)}, or name a folder and a format"
            )
        known = [option.name for option in fields(ExportOptions)]
        for name in options:
            if name not in known:
                raise BadQuery(
                    f"an export has no option {name!r:.200}; there are: {listed(known, name)}"
                )
        chosen = ExportOptions(format or meant or "jsonl", **options)
        return cls(Path(path), meant == chosen.format and not chosen.partition), chosen

    def of_run(self, header: Header, options: ExportOptions) -> Path:
        """Return the path of a run's file."""
        if self.is_file:
            return self.path
        return self.path / f"{file_name(header.uid)}{options.suffix}"

    def folders(self, header: Header, options: ExportOptions) -> set[Path]:
        """Return the folders that a run's files go to."""
        if options.format not in OF_STREAMS or self.is_file:
            return {self.of_run(header, options).parent}
        return {path.parent for path in self.of_streams(header, options).values()}

    def of_streams(self, header: Header, options: ExportOptions) -> dict[str, Path]:
        """Return the path of the file of each stream, by the names of the streams.

        Raises
        ------
        BadQuery
            If the destination is a file and there are several streams.
        """
        streams = options.streams(header)
        if self.is_file:
            if len(streams) > 1:
                raise BadQuery(
                    f"{self.path} holds one stream, and run {header.uid!r} has "
                    f"{', '.join(map(repr, streams))}: choose one by "
                    f"{advice.option('stream')}, or name a folder"
                )
            return dict.fromkeys(streams, self.path)
        run, suffix = file_name(header.uid), options.suffix
        if options.partition:
            return {s: self.path / file_name(s) / f"{run}{suffix}" for s in streams}
        return {s: self.path / run / f"{file_name(s)}{suffix}" for s in streams}


@contextmanager
def storing(target: Path) -> Iterator[None]:
    """Return a context in which errors of the file system become StoreErrors that name a file."""
    try:
        with naming(target):
            yield
    except OSError as error:
        if isinstance(error, DaskbrokerError):
            raise
        raise file_error(error, f"the export {target}") from error
