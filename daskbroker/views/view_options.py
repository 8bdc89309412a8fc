"""The options of a view, as one value that is passed down unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..assets.filling.missing import MissingMode
from ..assets.handlers.registry import HandlerRegistry
from ..assets.peek.peeking import PeekMode, peeked
from ..core.arguments import FLAG, MAPPING, NAME, instance
from ..core.clock import utc_only
from ..core.documents import AllStreams
from ..core.dtypes import dtype_of
from ..core.errors import BadQuery
from ..core.external import external_keys
from ..core.fields import check_metadata, select
from ..core.run_plan import RunPlan
from .frames_again import with_rows_for_frames
from .missing import check_asked, check_fill_names, with_rules
from .row_order import Duplicates

if TYPE_CHECKING:
    from ..assets.access import FileAccess, Handlers, Overrides
    from ..assets.filling.filling import Filling
    from ..core.chunks import ChunkPlan
    from ..core.schema import TableColumn

Errors = Literal["raise", "skip"]
"""Whether a view of many runs fails at a damaged chunk, or leaves it out with a warning."""

Runs = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]]
"""``{run uid: (start, stop)}``; the stop is None if there is none."""

_REGISTRY = instance("handlers by spec, in a mapping", HandlerRegistry, Mapping).or_none()


def check_is_one_stream(stream: object) -> None:
    """Check that a table or Dataset is asked for by the name of a stream.

    Raises
    ------
    BadQuery
        If it is ``ALL``.
    """
    if isinstance(stream, AllStreams):
        raise BadQuery(
            "a table or Dataset is of one stream, not of ALL; a run's tree() has a Dataset for "
            "each stream, and documents() gives the documents of all"
        )


@dataclass(frozen=True)
class FillOptions:
    """The options that say how external cells are filled, which every view has.

    Raises
    ------
    BadArgument
        If handlers are given in another form.
    BadQuery
        If `peek` is not known.
    """

    handler_registry: Handlers = None
    handler_overrides: Overrides = None
    peek: PeekMode = None
    missing: MissingMode | None = None
    fill_value: Any = None

    def __post_init__(self) -> None:
        _REGISTRY.check("handler_registry", self.handler_registry)
        MAPPING.or_none().check("handler_overrides", self.handler_overrides)
        if self.peek not in (None, True, False, "each"):
            raise BadQuery(f"peek must be True, False, 'each' or None, not {self.peek!r}")


@dataclass(frozen=True)
class ViewOptions:
    """Options of tables, datasets and document streams.

    The public methods (:meth:`daskbroker.Header.table` and its kin) list and explain them; each
    view uses those that concern it.

    Raises
    ------
    BadQuery
        If `timezone` is not UTC (a table can have another one only once it is computed), if
        `errors` is not known, if what replaces missing cells is not valid, if `dtypes` or `roi` is
        no mapping, if a dtype is none of NumPy's, or if `grid` and `index` are both given.
    """

    fields: Any = None
    fill: bool = True
    timestamps: bool = False
    duplicates: Duplicates = "last"
    timezone: str | None = None
    dtypes: Mapping[str, Any] | None = None
    roi: Mapping[str, Any] | None = None
    errors: Errors = "raise"
    grid: bool = False
    index: str | None = None
    external: FillOptions = FillOptions()

    def __post_init__(self) -> None:
        if isinstance(self.fields, Iterator):  # it is gone through more than once
            object.__setattr__(self, "fields", list(self.fields))
        FLAG.check("fill", self.fill)
        FLAG.check("timestamps", self.timestamps)
        FLAG.check("grid", self.grid)
        NAME.or_none().check("index", self.index)
        if self.duplicates not in ("last", "all"):
            raise BadQuery(f"duplicates must be 'last' or 'all', not {self.duplicates!r}")
        utc_only(self.timezone)
        check_asked(self.external.missing, self.external.fill_value, fill=self.fill)
        if self.errors not in ("raise", "skip"):
            raise BadQuery(f"errors must be 'raise' or 'skip', not {self.errors!r}")
        for name, example in (("dtypes", "'uint16'"), ("roi", "np.s_[10:20, :]")):
            asked = getattr(self, name)
            if asked is not None and not isinstance(asked, Mapping):
                raise BadQuery(
                    f"{name} must be a mapping by variable, such as {{'img': {example}}}, "
                    f"not {asked!r:.100}"
                )
        for name, dtype in (self.dtypes or {}).items():
            try:
                dtype_of(dtype)
            except ValueError as error:
                raise BadQuery(f"dtypes={{{name!r}: ...}}: {error}") from None
        if self.grid and self.index is not None:
            raise BadQuery("grid=True and index= exclude each other; give one of them")

    def runs_to_fill(self, descriptors: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the uids of the runs with a chosen external column, whose references are needed.

        Empty if ``fill`` is false.
        """
        if not self.fill or not descriptors:
            return []
        chosen = self.keys(descriptors)
        runs = (
            d["run_start"]
            for d in descriptors
            if any(chosen is None or key in chosen for key in external_keys(d))
        )
        return list(dict.fromkeys(runs))

    def check_names(self, descriptors: Sequence[Mapping[str, Any]], runs: Runs) -> None:
        """Check that what ``fields`` and ``fill_value`` name exists.

        Raises
        ------
        FieldNotFound
            If a field is neither in the descriptors nor in the metadata of any of the runs, or if
            ``fill_value`` names a key that is not external.
        """
        check_fill_names(self.external.fill_value, descriptors)
        if self.fields is not None:
            check_metadata(select(self.fields, descriptors), runs.values())

    def keys(self, descriptors: Sequence[Mapping[str, Any]]) -> set[str] | None:
        """Return the chosen data keys; None stands for all."""
        if self.fields is None:
            return None
        fields = select(self.fields, descriptors, timestamps=self.timestamps)
        return {field.key for field in fields if field.role == "data"}

    def stored_columns(self, descriptors: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the names of the stored columns that the chosen fields need.

        Columns of external keys, which hold datum ids, are among them; the filled data is not.
        """
        chosen = self.keys(descriptors)
        keys = dict.fromkeys(key for d in descriptors for key in d["data_keys"])
        shown = [key for key in keys if chosen is None or key in chosen]
        parts = ("data", "ts") if self.timestamps else ("data",)
        return ["seq_num", "time", *(f"{part}:{key}" for part in parts for key in shown)]

    def filling(self, plan: RunPlan, files: FileAccess, runs: Runs | None = None) -> Filling | None:
        """Return how the planned events are filled.

        Files are peeked at as ``peek`` says. A :class:`~daskbroker.core.errors.ClaimWarning` is
        issued if they differ from what is declared.

        Parameters
        ----------
        plan
            Planned events and references.
        files
            Access to detector files.
        runs
            Start and stop of each run; a run with a stop counts as complete.

        Returns
        -------
        Filling or None
            None if nothing is filled: ``fill`` is false, no key is external, or there are no
            references.
        """
        if not self.fill or not any(map(external_keys, plan.descriptors)) or not plan.references:
            return None
        how = self.external
        found = files.filling(plan.references, how.handler_registry, how.handler_overrides)
        keys, dtypes = self.keys(plan.descriptors), self.dtypes or {}
        stopped = {uid for uid, (_, stop) in (runs or {}).items() if stop is not None}
        found = peeked(
            found, plan, files.memory, how.peek, keys=keys, dtypes=dtypes, stopped=stopped
        )
        return with_rules(found, plan, how.missing, how.fill_value, keys=keys, dtypes=dtypes)


@dataclass(frozen=True)
class View:
    """One stream of one run or of many, as it is to be shown.

    Attributes
    ----------
    plan
        Chunks of the stream, run after run, with the references of the runs to fill.
    stream
        Name of the stream, for attrs and messages.
    runs
        Start and stop of each run, for attrs and projections.
    options
        What is shown, and how it is filled.
    files
        Access to detector files.
    """

    plan: RunPlan
    stream: str
    runs: Runs
    options: ViewOptions
    files: FileAccess

    def check(self) -> None:
        """Check that it is of one stream, and that what its options name exists.

        Raises
        ------
        BadQuery
            If it is of ``ALL`` streams.
        FieldNotFound
            If a chosen field does not exist, or ``fill_value`` names a key that is not external.
        """
        check_is_one_stream(self.stream)
        self.options.check_names(self.plan.descriptors, self.runs)

    def filling(self) -> Filling | None:
        """Return how its events are filled; see :meth:`ViewOptions.filling`."""
        return self.options.filling(self.plan, self.files, self.runs)

    def events(self, filling: Filling | None, columns: Iterable[TableColumn]) -> ChunkPlan:
        """Return the plan of its events, repeated for each of their frames if all are shown."""
        if self.options.duplicates != "all" or filling is None:
            return self.plan.events
        keys = {column.field.key for column in columns if column.external}
        return with_rows_for_frames(self.plan.events, filling, keys)
