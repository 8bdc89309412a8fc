"""What a user asks of a view, as one value that is passed down unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..assets.filling.missing import MissingMode
from ..assets.peek.peeking import PeekMode, peeked
from ..core.clock import utc_only
from ..core.errors import BadQuery
from ..core.external import external_keys
from ..core.fields import select
from ..core.run_plan import RunPlan
from .missing import check_asked, with_rules
from .rows import Duplicates

if TYPE_CHECKING:
    from ..assets.access import FileAccess
    from ..assets.filling.filling import Filling
    from .table.opening import Runs

__all__ = ["Errors", "ViewOptions"]

Errors = Literal["raise", "skip"]
"""What a view of many runs does with a chunk that is damaged."""


@dataclass(frozen=True)
class ViewOptions:
    """Options of tables, datasets and document streams.

    The public methods (:meth:`daskbroker.Header.table` and its kin) spell them out and say what
    they mean; each view uses those that concern it.

    Raises
    ------
    BadQuery
        For another ``timezone`` than UTC, which a table can have only when it is computed,
        unknown ``errors``, ``missing`` or ``fill_value`` that make no sense, or ``grid`` and
        ``index`` together.
    """

    fields: Any = None
    fill: bool = True
    timestamps: bool = False
    duplicates: Duplicates = "last"
    timezone: str | None = None
    dtypes: Mapping[str, Any] | None = None
    roi: Mapping[str, Any] | None = None
    handler_registry: Any = None
    handler_overrides: Any = None
    peek: PeekMode = None
    errors: Errors = "raise"
    missing: MissingMode | None = None
    fill_value: Any = None
    grid: bool = False
    index: str | None = None

    def __post_init__(self) -> None:
        utc_only(self.timezone)
        check_asked(self.missing, self.fill_value, self.fill)
        if self.peek not in (None, True, False, "each"):
            raise BadQuery(f"peek must be True, False, 'each' or None, not {self.peek!r}")
        if self.errors not in ("raise", "skip"):
            raise BadQuery(f"errors must be 'raise' or 'skip', not {self.errors!r}")
        if self.grid and self.index is not None:
            raise BadQuery("a Dataset is a grid, or along an index; not grid=True and index= both")

    def runs_to_fill(self, descriptors: Sequence[Mapping[str, Any]]) -> list[str]:
        """Uids of the runs of which a chosen column is external, so references are needed."""
        if not self.fill or not descriptors:
            return []
        chosen = self.keys(descriptors)
        runs = (
            d["run_start"]
            for d in descriptors
            if any(chosen is None or key in chosen for key in external_keys(d))
        )
        return list(dict.fromkeys(runs))

    def keys(self, descriptors: Sequence[Mapping[str, Any]]) -> set[str] | None:
        """The chosen data keys; None: all."""
        if self.fields is None:
            return None
        fields = select(self.fields, descriptors, timestamps=self.timestamps)
        return {field.key for field in fields if field.role == "data"}

    def stored_columns(self, descriptors: Sequence[Mapping[str, Any]]) -> list[str]:
        """The columns of events that are read for what is chosen, but for external data."""
        chosen = self.keys(descriptors)
        keys = dict.fromkeys(key for d in descriptors for key in d["data_keys"])
        shown = [key for key in keys if chosen is None or key in chosen]
        parts = ("data", "ts") if self.timestamps else ("data",)
        return ["seq_num", "time", *(f"{part}:{key}" for part in parts for key in shown)]

    def filling(self, plan: RunPlan, files: FileAccess, runs: Runs | None = None) -> Filling | None:
        """How the planned events are filled; None if they are not, or have nothing external.

        ``runs`` has the stops of those that have one.

        Files are looked into as :attr:`peek` says. A
        :class:`~daskbroker.core.errors.ClaimWarning` tells where they are not what is declared.
        """
        if not self.fill or not any(map(external_keys, plan.descriptors)) or not plan.references:
            return None
        found = files.filling(plan.references, self.handler_registry, self.handler_overrides)
        keys, dtypes = self.keys(plan.descriptors), self.dtypes or {}
        stopped = {uid for uid, (_, stop) in (runs or {}).items() if stop is not None}
        found = peeked(
            found, plan, files.memory, self.peek, keys=keys, dtypes=dtypes, stopped=stopped
        )
        return with_rules(found, plan, self.missing, self.fill_value, keys=keys, dtypes=dtypes)
