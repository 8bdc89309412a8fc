"""Trees of Datasets: the streams of a run, or one stream of many runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from ...assets.access import FileAccess
from ...core.group_names import group_name
from ...core.run_plan import RunPlan
from ..table.lazy_table import Runs
from ..view_options import ViewOptions
from .assembly import Assembly
from .lazy_dataset import assembly
from .loading import load
from .savable import named_as_in_files
from .writers import class_of_tree

__all__ = ["tree", "tree_of_runs"]


def tree(
    nodes: Mapping[str, xr.Dataset], attrs: Mapping[str, Any], name: str | None
) -> xr.DataTree:
    """Return a tree of one level, whose root has these attributes.

    The name of the root, a uid or a stream, may have a slash, as names of nodes may not. Names of
    variables with one are as in files, see :mod:`.savable`.
    """
    label = None if name is None else group_name(name)
    made = class_of_tree(nodes)
    root = made(xr.Dataset(attrs=attrs), name=label)
    # ``DataTree.from_dict`` and the parameter ``children`` would copy each node twice.
    root.children = {key: made(_node(dataset)) for key, dataset in nodes.items()}
    return root


def _node(dataset: xr.Dataset) -> xr.Dataset:
    slashed = any("/" in str(name) for name in dataset.variables)
    return named_as_in_files(dataset) if slashed else dataset


def tree_of_runs(
    planned: list[tuple[RunPlan, FileAccess]],
    stream: str,
    runs: Runs,
    options: ViewOptions,
    chunks: Any,
) -> xr.DataTree:
    """Return a tree with a Dataset for each run that has the stream, in the order of the runs.

    Parameters
    ----------
    planned
        Plan of the stream in each event source, and access to its files. If several sources have
        a run, the first one counts.
    stream, runs, options, chunks
        As for :func:`daskbroker.views.dataset.dataset`.
    """
    every = [d for plan, _ in planned for d in plan.descriptors]
    options.check_names(every, runs)
    found: dict[str, Assembly] = {}
    for plan, files in planned:
        filling = options.filling(plan, files, runs)
        for uid, part in plan.by_run().items():
            if uid not in found:
                own = filling and filling.of_runs({uid})
                run = {uid: runs[uid]}
                found[uid] = assembly(part, stream, run, options, own, chunks=chunks)
    made = {_node_name(uid): found[uid] for uid in runs if uid in found}
    loaded = load([one.loading for one in made.values()])
    nodes = {name: one.dataset(values) for (name, one), values in zip(made.items(), loaded)}
    return tree(nodes, {"stream": stream}, stream)


def _node_name(uid: str) -> str:
    """Return a uid as the name of a node, which must not have slashes."""
    return uid.replace("%", "%25").replace("/", "%2F")
