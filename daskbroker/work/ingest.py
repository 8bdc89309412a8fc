"""Bringing recorded documents in, with a report of what was refused and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..broker import DataBroker
from ..core.errors import BadDocument, BadRecording
from .recordings import find_recordings, read_recording

__all__ = ["IngestReport", "Refusal", "ingest"]

MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document, or a file, that was not taken in."""

    where: str
    reason: str


@dataclass
class IngestReport:
    """What :func:`ingest` did.

    Attributes
    ----------
    files
        How many were read.
    runs
        Uids of the runs found in them, in order.
    documents
        How many were stored, or were stored already.
    refused
        How many were not.
    refusals
        The first thousand of those.
    """

    files: int = 0
    runs: dict[str, None] = field(default_factory=dict)
    documents: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, where: str, reason: object) -> None:
        """Note a refusal."""
        self.refused += 1
        if len(self.refusals) < MOST_KEPT:
            self.refusals.append(Refusal(where, str(reason)))

    def __str__(self) -> str:
        text = f"{self.documents:,} documents of {len(self.runs):,} runs from {self.files:,} files"
        return text + (f"; {self.refused:,} refused" if self.refused else "")


def ingest(
    db: DataBroker,
    paths: Iterable[str | os.PathLike[str]],
    define: Mapping[str, str] | None = None,
    progress: Callable[[Path, int], None] | None = None,
) -> IngestReport:
    """Insert the documents of files and folders; again does no harm.

    All of it survives a loss of power when this has returned; until then that may cost the last
    second, of runs that have stopped too (:meth:`daskbroker.DataBroker.batch`).

    Parameters
    ----------
    db
        Takes them.
    paths
        Files, or folders that are searched for recordings.
    define
        For templates; see :func:`daskbroker.recordings.read_recording`.
    progress
        Called with each file, and with the number of documents so far.

    Returns
    -------
    IngestReport
        Refused documents and damaged files are in it, and do not stop the others.

    Raises
    ------
    StoreFull, StoreReadOnly, StoreError
        If the store cannot take any more.
    """
    report = IngestReport()
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
