"""Copies of runs from one broker to another, resumable, each verified before it counts as done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..assets.transfer import FileTransfer
from ..broker import DataBroker
from ..core.arguments import CALLABLE, FLAG, PATH, accepts
from ..core.documents import Document, NamedMapping, pack
from ..core.errors import ConfigError, CopyMismatch, DaskbrokerError, StoreDamaged, StoreError
from ..core.json_text import json_form
from ..core.layouts import LAYOUTS
from ..core.printable import counted
from ..core.run_plan import resources_of
from ..header import Header
from ..results import Results
from ..views.documents.paging import PageBuffer
from .given import check_broker, oldest_first, runs_of

Progress = Callable[[Header, int], None]

STEP = 1000
"""Number of documents between two calls of ``progress``."""


@dataclass
class CopyReport:
    """Report of :func:`copy`.

    Attributes
    ----------
    copied
        Uids of the runs that were copied and verified, in order.
    skipped
        Uids of the runs that were complete in the other store already.
    failed
        ``{uid: reason}`` of the runs that are missing or incomplete in the other store. Runs that
        cannot be read are included; those without a uid are under the text that names them.
    documents
        Number of documents that were read and inserted.
    files
        Number of detector files that were copied.
    """

    copied: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    documents: int = 0
    files: int = 0

    def __str__(self) -> str:
        text = f"{counted(len(self.copied), 'run')} ({counted(self.documents, 'document')}) copied"
        if self.files:
            text += f", with {counted(self.files, 'detector file')}"
        if self.skipped:
            text += f", {len(self.skipped):,} there already"
        return text + (f", {len(self.failed):,} failed" if self.failed else "")


@accepts(files=PATH.or_none(), verify=FLAG, progress=CALLABLE.or_none())
def copy(
    runs: DataBroker | Results | Header | Iterable[Header],
    into: DataBroker,
    *,
    files: str | os.PathLike[str] | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy runs into another broker, one after the other. Those of a search come oldest first.

    Each copy is read back and compared before its stop document is inserted, so a run that has its
    stop there is a verified copy. The function may be interrupted and called again: complete runs
    are skipped, incomplete ones are continued. Runs that are still open are copied up to their
    last document. If such a run ends meanwhile, its stop is not copied; call the function again
    for the rest. Detector files are not copied unless ``files`` is given, only the documents that
    refer to them.

    Everything survives a loss of power once this function has returned. Before that, a loss of
    power may cost the documents of the last second, also those of runs that already count as
    copied (see :meth:`daskbroker.DataBroker.batch`).

    Parameters
    ----------
    runs
        A broker (all its runs), search results, one header, or an iterable of headers.
    into
        Broker that the documents are inserted into.
    files
        Folder below which detector files are copied. The copied documents refer to these files;
        see :mod:`daskbroker.assets.transfer`.
    verify
        Whether to compare also every document of runs that are already complete there. Otherwise
        complete runs are recognized by their start, stop and numbers of documents.
    progress
        Function that is called with the header and the number of its documents so far.

    Returns
    -------
    CopyReport
        Report that includes the runs that could not be copied, with the reasons. They do not stop
        the others.

    Raises
    ------
    ConfigError
        If both brokers have the same store, ``into`` has one in a folder of the other, or is not a
        broker.
    StoreError
        If the other store cannot take any more, or one of the two stores cannot be reached.
    """
    report = CopyReport()
    transfers: dict[int, FileTransfer] = {}
    check_broker(into)
    found = runs_of(runs)
    with into.batch():
        for run in oldest_first(found, into):
            _check_apart(run.db, into)
            transfer = None
            if files is not None:  # one for each broker that runs come from
                transfer = transfers.setdefault(id(run.db), FileTransfer(Path(files), run.db.files))
            try:
                header = run.as_now()
                if _is_there(header, into, verify=verify, transfer=transfer):
                    report.skipped.append(run.uid)
                else:
                    report.documents += _copy_run(header, into, progress, transfer)
                    report.copied.append(run.uid)
            except DaskbrokerError as error:
                # A store that is full or away would fail every other run in the same way.
                if isinstance(error, StoreError) and not isinstance(error, StoreDamaged):
                    raise
                report.failed[run.uid] = str(error)
    if isinstance(found, Results):
        for bad in found.bad:
            report.failed.setdefault(bad.uid or str(bad), str(bad))
    report.files = sum(transfer.copied for transfer in transfers.values())
    return report


def _check_apart(source: DataBroker, into: DataBroker) -> None:
    if source is into or (source.uri and source.uri == into.uri):
        raise ConfigError(
            f"{into.uri or 'a broker'} cannot be copied into itself; give another store as into"
        )
    # Backups would lack it, and it would go with the folder.
    if source.uri and into.uri and into.uri.startswith(f"{source.uri}{os.sep}"):
        raise ConfigError(
            f"{into.uri} is inside of the store at {source.uri}; name a folder outside of it"
        )


def _copy_run(
    header: Header, into: DataBroker, progress: Progress | None, transfer: FileTransfer | None
) -> int:
    """Insert a run, read it back, compare it, and only then insert its stop.

    ``header`` is the run as it was before anything was planned. A stop that arrives while the run
    is copied is not inserted, as events that came before it may not have been copied.

    Returns
    -------
    int
        Number of documents of the run, its stop included.
    """
    given = _Digest()
    watched = given.watch(_to_give(header, transfer), header, progress)
    for name, doc in PageBuffer(in_order=False)(watched):
        into.insert(name, doc, run=header.uid)
    _compare(header, given, _Digest.of(_without_stop(into[header.uid])))
    if header.stop is not None:
        into.insert("stop", header.stop)
    return given.documents + (header.stop is not None)


def _without_stop(header: Header) -> Iterator[tuple[str, Document]]:
    return (pair for pair in header.documents(fill=False) if pair[0] != "stop")


def _to_give(header: Header, transfer: FileTransfer | None) -> Iterator[NamedMapping]:
    """Yield the documents as the copy shall have them, copying detector files on the way."""
    documents = _without_stop(header)
    return documents if transfer is None else transfer.carry(documents)


def _is_there(
    header: Header, into: DataBroker, *, verify: bool, transfer: FileTransfer | None
) -> bool:
    """Return whether a run is complete in the other broker.

    Raises
    ------
    CopyMismatch
        If the run is complete there but refers to other files. With ``verify``, also if any
        document differs.
    """
    pair = into.header_source.store.find_uid(header.uid)
    if pair is None or header.stop is None or pair != (header.start, header.stop):
        return False
    there = Header(into, *pair)
    if _sizes(header) != _sizes(there):
        return False
    if transfer is not None:
        _compare_resources(header, there, transfer)
    if verify:
        _compare(header, _Digest.of(_to_give(header, transfer)), _Digest.of(_without_stop(there)))
    return True


def _compare_resources(header: Header, there: Header, transfer: FileTransfer) -> None:
    """Check that the resources of a copy refer to the copied files."""
    wanted = {doc["uid"]: transfer.moved(name, doc) for name, doc in _resources(header)}
    if wanted != {doc["uid"]: doc for _, doc in _resources(there)}:
        raise CopyMismatch(
            f"run {header.uid!r}: the copy refers to other files than those below {transfer.root}; "
            "it was copied without them, or to another folder"
        )


def _resources(header: Header) -> Iterator[NamedMapping]:
    for plan in header.plans():
        yield from resources_of(plan.references)


def _sizes(header: Header) -> dict[str, int]:
    """Return the number of events of each descriptor and of references of each kind.

    Only plans are made; no data is read.
    """
    sizes: dict[str, int] = {}
    for plan in header.plans():
        for name, rows in plan.sizes().items():  # event sources may share the same references
            sizes[name] = max(rows, sizes.get(name, 0))
    return sizes


def _compare(header: Header, given: _Digest, copied: _Digest) -> None:
    """Raise CopyMismatch if the copy of a run differs from the original."""
    kinds = [k for k in {**given.sums, **copied.sums} if given.of_kind(k) != copied.of_kind(k)]
    if kinds:
        numbers = ", ".join(
            f"{kind} ({given.of_kind(kind)[0]:,} here, {copied.of_kind(kind)[0]:,} there)"
            for kind in kinds
        )
        raise CopyMismatch(
            f"run {header.uid!r}: the copy does not hold what the original does: {numbers}; "
            "check which of the two is right"
        )


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=json_form).encode


def _row_bytes(doc: Mapping[str, Any]) -> bytes:
    """Return a document as bytes that do not change if it was stored in columns and read back.

    Columns lose the order of keys at the two upper levels only, so only these are sorted. This is
    three times as fast as JSON with all keys sorted.
    """
    ordered = {
        key: dict(sorted(value.items())) if isinstance(value, dict) else value
        for key, value in sorted(doc.items())
    }
    return pack(ordered)


class _Digest:
    """Number of documents and sum of their hashes, by kind.

    The sums do not depend on the order of the documents and take little memory.
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[int, int]] = {}
        self.documents = 0

    @classmethod
    def of(cls, documents: Iterable[NamedMapping]) -> _Digest:
        """Return the digest of some documents."""
        digest = cls()
        for pair in documents:
            digest.add(*pair)
        return digest

    def watch(
        self, stream: Iterable[NamedMapping], header: Header, progress: Progress | None
    ) -> Iterator[NamedMapping]:
        """Yield the documents of a stream unchanged, adding each to the digest."""
        for name, doc in stream:
            self.add(name, doc)
            if progress is not None and self.documents % STEP == 0:
                progress(header, self.documents)
            yield name, doc

    def add(self, name: str, doc: Mapping[str, Any]) -> None:
        """Add a document."""
        data = _row_bytes(doc) if name in LAYOUTS else _encode(doc).encode("ascii")
        value = blake2b(data, digest_size=16).digest()
        count, total = self.of_kind(name)
        self.sums[name] = (count + 1, (total + int.from_bytes(value)) % 2**128)
        self.documents += 1

    def of_kind(self, name: str) -> tuple[int, int]:
        """Return the number of documents of one kind and the sum of their hashes, modulo 2**128."""
        return self.sums.get(name, (0, 0))
