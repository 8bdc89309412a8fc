"""Trees of Datasets: the streams of a run, or one stream of many runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from ...core.group_names import group_name
from ..view_options import View
from .assembly import Assembly
from .lazy_dataset import assembly
from .loading import load
from .savable import named_as_in_files
from .writers import class_of_tree


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


def tree_of_runs(views: Sequence[View], stream: str, chunks: Any) -> xr.DataTree:
    """Return a tree with a Dataset for each run that has the stream, in the order of the runs.

    Parameters
    ----------
    views
        The stream in each event source, of the same runs. If several sources have a run, the first
        one counts.
    stream, chunks
        As for :func:`daskbroker.views.dataset.lazy_dataset.dataset`.
    """
    runs = views[0].runs
    every = [d for view in views for d in view.plan.descriptors]
    views[0].options.check_names(every, runs)
    found: dict[str, Assembly] = {}
    for view in views:
        filling = view.filling()
        for uid, part in view.plan.by_run().items():
            if uid not in found:
                own = filling and filling.of_runs({uid})
                alone = replace(view, plan=part, runs={uid: runs[uid]})
                found[uid] = assembly(alone, own, chunks=chunks)
    made = {_node_name(uid): found[uid] for uid in runs if uid in found}
    loaded = load([one.loading for one in made.values()])
    nodes = {name: one.dataset(values) for (name, one), values in zip(made.items(), loaded)}
    return tree(nodes, {"stream": stream}, stream)


def _node_name(uid: str) -> str:
    """Return a uid as the name of a node, which must not have slashes."""
    return uid.replace("%", "%25").replace("/", "%2F")
