"""The part of an event source that follows references: the manifesto's Filestore."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dask.dataframe as dd

from ..assets.access import FileAccess
from ..assets.filled_events import fill_stream
from ..assets.filled_tables import fill_frame
from ..assets.filling import Filling
from ..core.chunks import ChunkPlan
from ..core.documents import ALL, Document
from ..core.external import external_keys
from ..core.layouts import REFERENCES, Layout

__all__ = ["Filestore"]


class Filestore(ABC):
    """References of runs, and how the files they name are reached."""

    @abstractmethod
    def find_descriptor(self, uid: str) -> Document | None:
        """A descriptor by uid."""

    @abstractmethod
    def list_descriptors(self, runs: Sequence[str], stream_name: Any = ALL) -> list[Document]:
        """Descriptors of runs, in the order of the runs, within a run in that of time."""

    @abstractmethod
    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        """The chunks of references of some kinds, by kind, in the order in which they came.

        In place of descriptors the plans have an owner for each run, in the given order; see
        :class:`~daskbroker.core.run_plan.RunPlan`.
        """

    # -- how files are reached ---------------------------------------------------------------

    @property
    def files(self) -> FileAccess:
        """Handlers and roots: the broker's, or the source's own where it has no broker."""
        return self.__dict__.setdefault("_files", FileAccess())  # type: ignore[no-any-return]

    def use_files(self, files: FileAccess) -> None:
        """Reach files as a broker does."""
        self.__dict__["_files"] = files

    def __getstate__(self) -> dict[str, Any]:
        # Where a source travels, its broker does, and says again how files are reached.
        return {name: value for name, value in self.__dict__.items() if name != "_files"}

    def filling(
        self,
        descriptors: Sequence[Mapping[str, Any]],
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Filling | None:
        """How the events of some descriptors are filled; None if they have no external keys.

        Small and picklable: it is what tasks carry. No payload of events is read.

        Parameters
        ----------
        descriptors
            Of one run or more.
        handler_registry
            Handlers by spec, for this call, before those that are registered.
        handler_overrides
            Handlers by data key.
        """
        runs = dict.fromkeys(d["run_start"] for d in descriptors if external_keys(d))
        if not runs:
            return None
        references = self.plan_references(REFERENCES, list(runs))
        return self.files.filling(references, handler_registry, handler_overrides)

    # -- the manifesto's methods -------------------------------------------------------------

    def fill_event(
        self,
        event: Mapping[str, Any],
        in_place: bool = False,
        fields: Collection[str] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Any:
        """An event with its external data in place of references.

        Parameters
        ----------
        event
            Of a descriptor that is stored here.
        in_place
            Change this event (a plain dict) and return it.
        fields
            Only these keys; None: all.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call.

        Raises
        ------
        FillError
        """
        stream = self.fill_event_stream(
            [("event", event)], in_place, fields, handler_registry, handler_overrides
        )
        return next(iter(stream))[1]

    def fill_event_stream(
        self,
        stream: Iterable[tuple[str, Mapping[str, Any]]],
        in_place: bool = False,
        fields: Collection[str] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Iterator[tuple[str, Any]]:
        """The same ``(name, doc)`` pairs with events and event_pages filled, one by one. Lazy.

        ``h.documents(fill=True)`` fills many at a time. Parameters are as for
        :meth:`fill_event`; references are looked up as they are stored when the first event of a
        descriptor comes.
        """

        def filling_of(descriptor: Mapping[str, Any]) -> Filling:
            found = self.filling([descriptor], handler_registry, handler_overrides)
            assert found is not None  # asked for where there are external keys
            return found

        return fill_stream(stream, filling_of, self.find_descriptor, in_place, fields)

    def fill_table(
        self,
        table: Any,
        in_place: bool = False,
        fields: Collection[str] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Any:
        """A table that was made with ``fill=False``, with its external columns filled.

        Parameters
        ----------
        table
            Computed, or lazy: then it is filled when it is computed, and ``in_place`` means
            nothing. Its ``attrs`` name stream and runs.
        in_place, fields, handler_registry, handler_overrides
            As for :meth:`fill_event`.

        Raises
        ------
        FillError
        """
        descriptors = self.list_descriptors(
            list(table.attrs.get("runs", ())), table.attrs.get("stream", ALL)
        )
        filling = self.filling(descriptors, handler_registry, handler_overrides)
        if filling is None:
            return table if in_place else table.copy()
        if isinstance(table, dd.DataFrame):
            meta = {"meta": table._meta, "enforce_metadata": False}
            return table.map_partitions(fill_frame, filling, descriptors, False, fields, **meta)
        return fill_frame(table, filling, descriptors, in_place, fields)
