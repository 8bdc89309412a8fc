"""Decide which files are looked into when runs are opened, and what is then known of all of them.

The files of a resource group are looked into if nothing is remembered of them and their claim is
open or looking is requested. Up to :data:`MOST_LOOKS` groups are all looked into. If there are
more, some groups of each sort are, and what they hold is the guess for the others; a block that
differs from the guess is an error.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Literal

from ...core.errors import ClaimWarning, FillError, StoreDamaged, StoreError
from ...core.peeks import Cell, Peek
from ...core.run_plan import RunPlan
from ...core.user_warnings import warn
from ..filling.common_cells import common_cells
from ..filling.extra import ADVICE
from ..filling.filling import Filling
from ..filling.knowledge import (
    Known,
    are_cells_noted,
    cells_noted,
    extra_text,
    known_of,
)
from ..filling.target import Target, original_uid
from ..shapes import Declared, is_open
from .groups import Group, group_id, groups_of, looks_of, peek_of
from .looks import Look, look_at_any
from .memory import Memory, is_unchanged
from .on_workers import look_on_workers
from .sharing import Label, Sorts, samples_of, sorts_of

PeekMode = bool | Literal["each"] | None
"""Whether files are looked into: None, if their claims are open; True, always, but of many groups
only into some; False, never; ``"each"``, into those of each run, however many there are."""

MOST_LOOKS = 10
"""Maximum number of groups that are looked into when runs are opened. A handler may open a file
twice."""
MOST_CHECKED = 20
"""Maximum number of groups for which it is checked whether remembered files have changed."""


def peeked(
    filling: Filling,
    plan: RunPlan,
    memory: Memory | None,
    mode: PeekMode = None,
    *,
    keys: Collection[str] | None = None,
    dtypes: Collection[str] = (),
    stopped: Collection[str] = (),
) -> Filling:
    """Return the filling with knowledge of what the files of planned events hold.

    Parameters
    ----------
    filling, plan
        Filling and plan of the same runs.
    memory
        Memory that findings are put into; nothing is remembered if None.
    mode
        See :data:`PeekMode`.
    keys
        Data keys to consider; all if None.
    dtypes
        Keys whose dtype is given by the caller, so that only their shape can be open.
    stopped
        Uids of runs that have stopped. Frames in no event are reported only for these.
    """
    # Of thousands of runs most have full claims, of which there is nothing to know if no peek is
    # remembered.
    every = mode is not None or are_cells_noted()
    remembered = {(peek.descriptor, peek.key) for peek in plan.peeks}

    def concerned(descriptor: Mapping[str, Any], key: str, claim: Mapping[str, Any]) -> bool:
        if keys is not None and key not in keys:
            return False
        return every or is_open(claim) or (original_uid(descriptor), key) in remembered

    groups = groups_of(plan, concerned)
    opening = _Opening(filling, memory, mode, frozenset(dtypes), stopped)
    wanted = opening.recognize(groups, plan.peeks)
    # Usually nothing: full claims are believed, and peeks are remembered.
    if wanted:
        most = len(wanted) if mode == "each" else MOST_LOOKS
        opening.find_out(wanted, sorts_of(plan, wanted, most))
    opening.warn()
    ended = frozenset(stopped).intersection(filling.references)
    found = replace(filling, known=opening.known, stopped=ended)
    return replace(found, assumed=_assumed(found, plan, opening.unknown))


def _assumed(
    filling: Filling, plan: RunPlan, unknown: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Declared]:
    """Return the assumed content of cells of unknown files by stream and data key, if any."""
    found = {}
    for stream, key in unknown:
        declared = common_cells(plan.of_stream(stream).events, key, filling)
        if declared.shape is not None:
            found[stream, key] = declared
    return found


def with_stored_peeks(
    filling: Filling, targets: Iterable[Target], peeks: Iterable[Peek]
) -> Filling:
    """Return the filling with what is remembered of some targets; no file is looked into."""
    opening = _Opening(filling, memory=None, mode=False, dtypes=frozenset())
    peek_of_label = {(peek.descriptor, peek.key): peek for peek in peeks}
    for target in targets:
        peek = peek_of_label.get((target.descriptor, target.key))
        # Another handler might read other cells than those that were found.
        if peek is not None and _has_handler(peek, filling):
            opening.know(target, peek.cells, peek.sort, peek=peek)
    return replace(filling, known=opening.known)


def peek_all(
    filling: Filling,
    plan: RunPlan,
    seconds: float | None = None,
    *,
    keep_open: bool = True,
    stopped: Collection[str] = (),
) -> list[Peek]:
    """Look into the files of all groups that are not remembered or have changed since.

    Files of unfinished runs that have more frames than the documents refer to are left to a later
    look.

    Parameters
    ----------
    filling, plan
        Filling and plan of the same runs.
    seconds
        Seconds after which no further look begins; no limit if None.
    keep_open
        If True, keep files open for a caller who goes on to read them.
    stopped
        Uids of runs that have stopped.

    Returns
    -------
    list of Peek
        What was found, without groups whose files cannot be read.
    """
    end = None if seconds is None else time.monotonic() + seconds
    groups = groups_of(plan)
    opening = _Opening(filling, memory=None, mode=True, dtypes=frozenset())
    wanted = opening.recognize(groups, plan.peeks)
    sorts = sorts_of(plan, wanted, len(wanted))
    in_time = takewhile(lambda _: end is None or time.monotonic() < end, wanted)
    found, _ = look_into(in_time, filling, sorts, keep_open=keep_open)
    return [peek for peek in found.values() if _is_final(peek, stopped)]


def look_into(
    groups: Iterable[Group], filling: Filling, sorts: Sorts, *, keep_open: bool = True
) -> tuple[dict[Label, Peek], dict[Label, Unseen]]:
    """Look into the files of some groups; return what was found, and what could not be read."""
    found: dict[Label, Peek] = {}
    unseen: dict[Label, Unseen] = {}
    for group in groups:
        looks: list[Look] = []
        try:
            looks = looks_of(group, filling)
            looked = look_at_any(looks, keep_open=keep_open)
        # The caller decides whether workers may see the file.
        except (FillError, StoreDamaged) as error:
            reason = str(error).removeprefix(f"{group.target.where}, ")
            unseen[group.label] = Unseen(group, looks, reason)
            continue
        # A group whose events hold no reference has no look.
        if looks:
            found[group.label] = peek_of(group, filling, sorts[group.label], looks, looked)
    return found, unseen


@dataclass(frozen=True)
class Unseen:
    """A group whose files this process cannot read: what to look at, and the reason."""

    group: Group
    looks: Sequence[Look]
    reason: str


def _is_final(peek: Peek, stopped: Collection[str]) -> bool:
    """Return whether a finding is final: not if a file is ahead of the documents of its run."""
    return not peek.extra or peek.run in stopped


def _has_handler(peek: Peek, filling: Filling) -> bool:
    return peek.handler == filling.handler_reference(peek.spec, peek.key)


@dataclass(eq=False)
class _Opening:
    """State of one opening of runs: the known cells, the unknown ones, and the warnings to give.

    Stream and data key of groups with an open claim, of whose files nothing is known, are in
    ``unknown``.
    """

    filling: Filling
    memory: Memory | None
    mode: PeekMode
    dtypes: frozenset[str]
    stopped: Collection[str] = ()
    known: dict[str, dict[Label, Known]] = field(default_factory=dict)
    unknown: dict[tuple[str, str], None] = field(default_factory=dict)
    _alike: dict[str, dict[Cell, None]] = field(default_factory=dict)
    _made: dict[tuple[str, tuple[Cell, ...], bool, str], Known] = field(default_factory=dict)
    _wrong: dict[str, dict[str, Target]] = field(default_factory=dict)
    _extra: dict[str, dict[str, Target]] = field(default_factory=dict)

    # -- what is remembered ------------------------------------------------------------------

    def recognize(self, groups: Sequence[Group], peeks: Iterable[Peek]) -> list[Group]:
        """Take in the stored peeks of groups; return the groups to look into."""
        there = {(peek.descriptor, peek.key): peek for peek in peeks}
        few = len(groups) <= MOST_CHECKED
        wanted = []
        for group in groups:
            peek = there.get(group.label)
            if peek is not None and self._holds(peek, group, few=few):
                self.know(group.target, peek.cells, peek.sort, peek=peek)
                self._note_alike(peek)
            # Only now, as a remembered peek needs no file at all.
            elif self._is_wanted(group):
                wanted.append(group)
            elif self.mode is False and is_open(group.target.claim):
                self._note_unknown(group)
        return wanted

    def _holds(self, peek: Peek, group: Group, *, few: bool) -> bool:
        return (
            peek.rows == group.rows
            and _has_handler(peek, self.filling)
            and set(self._noted(group)) <= set(peek.cells)
            # With many groups, a stat of each file would take longer than opening.
            and not (few and self.mode is not False and not is_unchanged(peek))
        )

    def _noted(self, group: Group) -> tuple[Cell, ...]:
        # Nearly always; the identity of a group makes the references of its run.
        if not are_cells_noted():
            return ()
        known = group_id(group, self.filling)
        return () if known is None else cells_noted(known)

    def _is_wanted(self, group: Group) -> bool:
        # The user has decided.
        if self.mode is not None:
            return bool(self.mode)
        claim = group.target.claim
        # The dtype is given, so only an open shape needs a look.
        if group.target.key in self.dtypes:
            claim = {**claim, "dtype_numpy": "float64"}
        return is_open(claim) or bool(self._noted(group))

    # -- what is found out -------------------------------------------------------------------

    def find_out(self, wanted: Sequence[Group], sorts: Sorts) -> None:
        """Look into files of some of the groups, and know or guess what all of them hold."""
        found, unseen = look_into(self._chosen(wanted, sorts), self.filling, sorts)
        for peek in found.values():
            self._note_alike(peek)
        # Workers may see files that this process does not.
        if unseen:
            found |= self._seen_by_others(unseen, sorts)
        final = [peek for peek in found.values() if _is_final(peek, self.stopped)]
        self._remember(final)
        missing = []
        for group in wanted:
            sort = sorts[group.label]
            if group.label in found:
                peek = found[group.label]
                told = peek if _is_final(peek, self.stopped) else None
                self.know(group.target, peek.cells, sort, peek=told)
            # Other runs of the same sort tell what this one most probably has.
            elif sort in self._alike:
                cells = dict.fromkeys((*self._alike[sort], *self._noted(group)))
                self.know(group.target, cells, sort, guessed=True)
            else:
                missing.append(group)
                if is_open(group.target.claim):
                    self._note_unknown(group)
        _warn_of_unseen(missing, unseen)

    def _chosen(self, wanted: Sequence[Group], sorts: Sorts) -> list[Group]:
        """Return the groups to look into: all if they are few or the mode is "each", else some.

        Groups of a sort of which something is remembered are not looked into, so that everybody
        who opens them gets the same guess. Groups in which computing found other cells always
        are, up to ``MOST_LOOKS``.
        """
        # Few enough to open them all.
        if self.mode == "each" or len(wanted) <= MOST_LOOKS:
            return list(wanted)
        noted = [group for group in wanted if self._noted(group)][:MOST_LOOKS]
        others = [
            group
            for group in wanted
            if not self._noted(group) and sorts[group.label] not in self._alike
        ]
        return noted + samples_of(others, sorts, max(2, MOST_LOOKS - len(noted)))

    def _seen_by_others(self, unseen: Mapping[Label, Unseen], sorts: Sorts) -> dict[Label, Peek]:
        """Return what workers find of unseen groups, unless runs of their sort are remembered.

        What is remembered of such runs is noted as the guess for the sort.
        """
        asked = {sorts[label] for label in unseen} - set(self._alike)
        for peek in self.memory.find_peeks(sorted(asked)) if self.memory and asked else ():
            if _has_handler(peek, self.filling):
                self._note_alike(peek)
        blind = [one for label, one in unseen.items() if sorts[label] not in self._alike]
        blind = [one for one in blind if one.looks]
        found = {}
        for one, looked in zip(blind, look_on_workers([one.looks for one in blind])):
            # A worker could not read the files either.
            if looked:
                label = one.group.label
                found[label] = peek_of(one.group, self.filling, sorts[label], one.looks, looked)
                self._note_alike(found[label])
        return found

    def _note_unknown(self, group: Group) -> None:
        self.unknown[group.target.stream, group.target.key] = None

    def _note_alike(self, peek: Peek) -> None:
        self._alike.setdefault(peek.sort, {}).update(dict.fromkeys(peek.cells))

    def _remember(self, peeks: Sequence[Peek]) -> None:
        # A read-only store keeps nothing.
        if self.memory is None or not peeks:
            return
        try:
            self.memory.put_peeks(peeks)
        except StoreError:  # without permission to write, the next opening looks again
            return

    # -- what is known -----------------------------------------------------------------------

    def know(
        self,
        target: Target,
        cells: Iterable[Cell],
        sort: str,
        *,
        guessed: bool = False,
        peek: Peek | None = None,
    ) -> None:
        """Record what the files of a target hold, and frames in no event that its peek has."""
        extra = ""
        # With "keep", tables and documents show what the file has, and nothing is reported.
        if peek is not None and self.filling.mismatch != "keep":
            extra = extra_text(target.key, peek.handler, peek.extra)
        key = sort, tuple(cells), guessed, extra
        # Thousands of runs share what is known; it is made once.
        if key not in self._made:
            self._made[key] = known_of(
                target.claim,
                key[1],
                guessed=guessed,
                asked=self.mode in (True, "each"),
                strict=self.filling.mismatch == "raise",
                extra=extra,
            )
        known = self._made[key]
        self.known.setdefault(target.run, {})[target.descriptor, target.key] = known
        for said, noted in ((known.wrong, self._wrong), (known.extra, self._extra)):
            # A refused file is an error already.
            if said and not known.refused:
                noted.setdefault(target.key, {}).setdefault(target.run, target)

    def warn(self) -> None:
        """Warn once per key whose claims files contradict, or that has frames in no event."""
        extra = dict(self._extra)
        for key, targets in self._wrong.items():
            target = next(iter(targets.values()))
            known = self._known(target)
            text = (
                f"{target.where}{_more(targets)}: {known.wrong}. The cells of "
                "the file are read; set daskbroker.shape-mismatch to 'raise' for an error instead"
            )
            # A wrong number of frames for each event is both.
            if known.extra:
                text += f". Moreover, {known.extra}"
                extra.pop(key, None)
            _warn(text)
        for targets in extra.values():
            target = next(iter(targets.values()))
            _warn(f"{target.where}{_more(targets)}, {self._known(target).extra}. {ADVICE}")

    def _known(self, target: Target) -> Known:
        return self.known[target.run][target.descriptor, target.key]


def _warn_of_unseen(missing: Sequence[Group], unseen: Mapping[Label, Unseen]) -> None:
    """Warn once per key of whose files nothing is known because those tried cannot be read."""
    by_key: dict[str, dict[str, Group]] = {}
    for group in missing:
        by_key.setdefault(group.target.key, {}).setdefault(group.target.run, group)
    for key, groups in by_key.items():
        tried = [group for group in groups.values() if group.label in unseen]
        # Nothing was looked into for this key, as none of its groups was chosen.
        if not tried:
            continue
        group = tried[0]
        _warn(
            f"{group.target.where}{_more(groups)}: its files tell neither shape nor dtype here. "
            "Both are taken from the descriptor, and float64 if it declares no dtype; to set the "
            f"dtype, pass dtypes={{{key!r}: 'uint16'}}. Reason: {unseen[group.label].reason}"
        )


def _more(runs: Collection[str]) -> str:
    others = len(runs) - 1
    return f" (and {others:,} more run{'s' if others > 1 else ''})" if others else ""


def _warn(message: str) -> None:
    warn(message, ClaimWarning, stacklevel=2)
