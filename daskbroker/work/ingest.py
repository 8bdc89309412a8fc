"""Ingestion of recorded documents, with a report of what was refused and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..broker import DataBroker
from ..core.errors import BadDocument, BadRecording
from ..core.printable import counted
from .recordings import find_recordings, read_recording

MOST_KEPT = 1000
"""Maximum number of refusals that a report lists; all of them are counted."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document, or a file, that was refused.

    Attributes
    ----------
    where
        File, and line or item in it.
    reason
        Text of the error.
    """

    where: str
    reason: str


@dataclass
class IngestReport:
    """Report of :func:`ingest`.

    Attributes
    ----------
    files
        Number of files that were read.
    runs
        Uids of the runs whose start documents were found, in order, as keys.
    documents
        Number of documents that are stored now, including those that were stored before.
    refused
        Number of documents and files that were refused.
    refusals
        The first thousand of the refusals.
    """

    files: int = 0
    runs: dict[str, None] = field(default_factory=dict)
    documents: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, where: str, reason: object) -> None:
        """Count a refusal, and list it if there are fewer than :data:`MOST_KEPT`."""
        self.refused += 1
        if len(self.refusals) < MOST_KEPT:
            self.refusals.append(Refusal(where, str(reason)))

    def __str__(self) -> str:
        documents, runs = counted(self.documents, "document"), counted(len(self.runs), "run")
        text = f"{documents} of {runs} from {counted(self.files, 'file')}"
        return text + (f"; {self.refused:,} refused" if self.refused else "")


def ingest(
    db: DataBroker,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    define: Mapping[str, str] | None = None,
    progress: Callable[[Path, int], None] | None = None,
) -> IngestReport:
    """Insert the documents of files and folders. It is safe to ingest the same files again.

    Everything survives a loss of power once this function has returned. Before that, a loss of
    power may cost the documents of the last second, also those of runs that have stopped (see
    :meth:`daskbroker.DataBroker.batch`).

    Parameters
    ----------
    db
        Broker that the documents are inserted into.
    paths
        Paths of files, or of folders that are searched for recordings; one or several.
    define
        Values of the placeholders in templates; see
        :func:`daskbroker.work.recordings.read_recording`.
    progress
        Function that is called with the current file and the number of documents so far.

    Returns
    -------
    IngestReport
        Report that includes refused documents and damaged files. They do not stop the others.

    Raises
    ------
    StoreFull, StoreReadOnly, StoreError
        If the store cannot take any more.
    """
    report = IngestReport()
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    with db.batch():
        for path in paths:
            try:
                files = find_recordings(path)
            except BadRecording as error:
                report.refuse(str(path), error)
                continue
            if not files:
                report.refuse(str(path), f"{path}: no recording below this folder")
            for file in files:
                _ingest_file(db, file, define, report, progress)
    return report


def _ingest_file(
    db: DataBroker,
    file: Path,
    define: Mapping[str, str] | None,
    report: IngestReport,
    progress: Callable[[Path, int], None] | None,
) -> None:
    report.files += 1
    try:
        for item in read_recording(file, define):
            try:
                db.insert(item.name, item.doc, run=item.run)
            except BadDocument as error:
                report.refuse(item.where, error)
                continue
            report.documents += 1
            if item.name == "start":
                report.runs[item.doc["uid"]] = None
            if progress is not None and report.documents % 100 == 0:
                progress(file, report.documents)
    except BadRecording as error:
        report.refuse(str(file), error)
    if progress is not None:
        progress(file, report.documents)
