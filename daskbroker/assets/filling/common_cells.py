"""What the cells of one external key of several descriptors have in common."""

from __future__ import annotations

from typing import Any

from ...core.chunks import ChunkPlan
from ..shapes import Declared, is_open
from .filling import Filling
from .target import original_uid


def common_cells(plan: ChunkPlan, key: str, filling: Filling, dtype: Any = None) -> Declared:
    """Return the shape and dtype that the cells of an external key have in common.

    Only descriptors with events count, or all that have the key if none has events. A descriptor
    with an open claim, and nothing known of its files, is ignored if other descriptors say more:
    the cells read for it must then match theirs.

    Parameters
    ----------
    dtype
        Dtype that replaces the declared ones, if given.
    """
    owners = [d for d in plan.descriptors if key in d["data_keys"]]
    having = set(plan.records["descriptor"].tolist())
    used = [
        d for n, d in enumerate(plan.descriptors) if n in having and key in d["data_keys"]
    ] or owners
    told: dict[Declared, None] = {}
    untold: dict[Declared, None] = {}
    last = None
    for descriptor in used:
        claim = descriptor["data_keys"][key]
        # No Target is made, as there may be thousands of descriptors.
        of_run = filling.known.get(descriptor["run_start"])
        known = None if of_run is None else of_run.get((original_uid(descriptor), key))
        declared = Declared.of([claim]) if known is None else known.declared
        if declared is last:  # as in most of thousands of runs
            continue
        last = declared
        some = told if known is not None or not is_open(claim) else untold
        some[declared] = None
    return Declared.common(list(told or untold), dtype)
