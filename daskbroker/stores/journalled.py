"""Base class of event stores that keep rows in a journal until these are sealed into chunks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..core.bad_runs import BadRun, warn_of_bad
from ..core.bounded_dict import BoundedDict
from ..core.documents import Document
from ..core.errors import BadDocument, StoreDamaged
from ..core.forking import in_each_process
from ..core.layouts import Layout, rows_of_page
from ..core.page_parts import is_columnar
from ..core.peeks import Peek
from ..core.settings import setting
from .contract import EventStore
from .stored_text import storable

ORPHAN_SECONDS = 3600.0
"""Age in seconds at which columns that no chunk names are removed; a younger one's sealer may still
be at work."""

PeekRow = Sequence[str]
"""A peek as stores keep it: run, descriptor, key, sort, and body."""

T = TypeVar("T")


class JournalledEventStore(EventStore):
    """An event store with a journal.

    It remembers descriptors and runs that were looked up, and decides which pages are stored as
    columns. The journal of a descriptor is sealed when it has ``daskbroker.seal-rows`` rows or
    ``daskbroker.seal-bytes`` bytes (settings that are read when the store is opened), and when
    the run stops.
    """

    least_page_rows: int
    """Minimum number of rows of a page that is stored as columns; others go row by row."""

    def __init__(self) -> None:
        self._seal_rows: int = setting("seal-rows")
        self._seal_bytes: int = setting("seal-bytes")
        in_each_process(self._begin)

    def _begin(self) -> None:
        """Set up the state that belongs to one process; a derived store adds its own."""
        self._descriptors: BoundedDict[str, Document] = BoundedDict()
        self._runs: BoundedDict[str, Any] = BoundedDict()

    # -- what is looked up once --------------------------------------------------------------

    @abstractmethod
    def _look_up_descriptor(self, uid: str) -> Document | None:
        """Read a descriptor from the store; None if there is none."""

    @abstractmethod
    def _look_up_run(self, uid: str) -> Any:
        """Return the key under which the store knows a run, or None if it does not know it."""

    def find_descriptor(self, uid: str) -> Document | None:
        return self._descriptors.find(uid, self._look_up_descriptor)

    def _known_run(self, uid: str) -> Any:
        return self._runs.find(uid, self._look_up_run)

    def has_run(self, uid: str) -> bool:
        return self._known_run(uid) is not None

    # -- sealing -----------------------------------------------------------------------------

    def _seal_each(
        self, items: Iterable[tuple[str, T]], seal: Callable[[T], int], *, one_run: bool
    ) -> int:
        """Seal parts of runs; a part that cannot be read or stored does not stop the others.

        Parameters
        ----------
        items
            Pairs ``(uid of the run, part)``.
        seal
            Function that seals a part and returns the number of chunks it made.
        one_run
            Whether all parts are of one run, which the caller has asked for. If not, a
            :class:`daskbroker.BadRunWarning` is issued for each run that is not sealed wholly.

        Returns
        -------
        int
            Number of chunks made.

        Raises
        ------
        StoreDamaged, BadDocument
            If a part of the one run cannot be sealed; its other parts are sealed first.
        """
        made = 0
        failed: dict[str, Exception] = {}
        for run, part in items:
            try:
                made += seal(part)
            except (StoreDamaged, BadDocument) as error:
                failed.setdefault(run, error)
        for run, problem in failed.items():
            if one_run:
                raise problem
            warn_of_bad(BadRun(run, str(problem)))
        return made

    # -- pages -------------------------------------------------------------------------------

    @abstractmethod
    def _append_columns(
        self, layout: Layout, owner: str, page: Mapping[str, Any], run: str
    ) -> bool:
        """Store a page as columns; return False, and store nothing, if it must go row by row."""

    def append_page(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> None:
        columnar = is_columnar(layout, page, self.least_page_rows)
        if not (columnar and self._append_columns(layout, owner, page, run)):
            self.append(layout, owner, rows_of_page(layout, page), run)

    # -- what detector files say -------------------------------------------------------------

    @abstractmethod
    def _select_peeks(self, by: str, values: Sequence[str]) -> Iterable[PeekRow]:
        """Return the rows of some runs (``by="run"``), or one of each sort (``by="sort"``)."""

    @abstractmethod
    def _replace_peeks(self, rows: Sequence[PeekRow]) -> None:
        """Store rows, replacing those of the same run, descriptor and key, if it may write."""

    def list_peeks(self, runs: Sequence[str]) -> list[Peek]:
        names = {storable(uid): uid for uid in runs}
        return _peeks((names[run], *rest) for run, *rest in self._select_peeks("run", list(names)))

    def find_peeks(self, sorts: Sequence[str]) -> list[Peek]:
        return _peeks(self._select_peeks("sort", sorts))

    def put_peeks(self, peeks: Sequence[Peek]) -> None:
        self._replace_peeks(
            [(*map(storable, (p.run, p.descriptor, p.key)), p.sort, p.body()) for p in peeks]
        )


def _peeks(rows: Iterable[PeekRow]) -> list[Peek]:
    return [peek for row in rows if (peek := Peek.of_body(*row)) is not None]
