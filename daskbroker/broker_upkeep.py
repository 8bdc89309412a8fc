"""Upkeep of the runs of a broker: sealing, and what detector files say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .core.arguments import FLAG, accepts
from .event_sources import EventSources
from .given_run import run_of
from .header import Header


class BrokerUpkeep:
    """What a :class:`daskbroker.DataBroker` does with runs that are stored.

    Attributes
    ----------
    event_sources
        Event sources of the broker.
    """

    event_sources: EventSources

    if TYPE_CHECKING:

        def __getitem__(self, key: Any) -> Any: ...

    @accepts(keep_journal=FLAG)
    def seal(
        self, header: Header | Mapping[str, Any] | str | None = None, *, keep_journal: bool = False
    ) -> int:
        """Pack the journal of one run, or of all, into chunks.

        Needed for databases written by databroker, for documents that came after a run's stop, and
        for runs that will never have a stop.

        Parameters
        ----------
        header
            Run as a Header, start document or uid; all runs if None.
        keep_journal
            Whether to keep the events in the journal, too, so that databroker can still read them.

        Returns
        -------
        int
            Number of chunks made.

        Raises
        ------
        RunNotFound
            If no run has the uid.
        BadQuery
            If ``keep_journal`` is True for a store whose journal nothing else can read.
        """
        if isinstance(header, str):
            header = self[header]
        run = None if header is None else run_of(header)
        return sum(
            source.store.seal(run, keep_journal=keep_journal) for source in self.event_sources
        )

    def peek(self, header: Header | str) -> int:
        """Read shapes and dtypes from the detector files of a run, and store them.

        This also happens in the background when a run has stopped, and when it is first opened.
        See :meth:`daskbroker.event_source.EventSource.peek`.

        Parameters
        ----------
        header
            Run as a Header or uid.

        Returns
        -------
        int
            Number of external keys, counted per descriptor, that are stored now and were not
            before.
        """
        run = self[header] if isinstance(header, str) else header
        return sum(source.peek(run) for source in self.event_sources)
