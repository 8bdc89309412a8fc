"""Locations of a run's frames in HDF5 files, for links to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..assets.files.resolving import ResolvedResource
from ..assets.handlers.hdf5.frames import AD_DATASET
from ..core.errors import FillError

if TYPE_CHECKING:
    from ..header import Header

AREA_DETECTOR = ("AD_HDF5", "AD_HDF5_SWMR")
"""Specs of files that have all frames in one dataset."""


@dataclass
class FrameLink:
    """Files and datasets with the frames of one data key.

    Attributes
    ----------
    targets
        Pairs of the path of a file and the name of the dataset in it, in the order of the
        documents. Empty if there can be no links.
    problem
        Reason why there are no links, if ``targets`` is empty.
    """

    targets: list[tuple[str, str]] = field(default_factory=list)
    problem: str = "no document refers to files"


def frame_links(header: Header) -> dict[str, dict[str, FrameLink]]:
    """Return ``{stream: {data key: link}}`` for all external data keys of a run.

    Documents are read only of streams that have such keys.
    """
    found: dict[str, dict[str, FrameLink]] = {}
    for stream, descriptors in header.descriptors.items():
        claims = [item for d in descriptors for item in d["data_keys"].items()]
        keys = [key for key, claim in claims if isinstance(claim, Mapping) and "external" in claim]
        found[stream] = {key: FrameLink() for key in keys}
    if any(found.values()):
        for stream in found:
            if found[stream]:
                _look_up(header, stream, found[stream])
    return found


def _look_up(header: Header, stream: str, links: dict[str, FrameLink]) -> None:
    resources: dict[Any, tuple[str, Mapping[str, Any]]] = {}
    datums: dict[Any, Any] = {}
    seen: set[tuple[str, Any]] = set()

    def add(key: str, uid: Any) -> None:
        if key in links and (key, uid) not in seen and uid in resources:
            seen.add((key, uid))
            _add(header, links[key], *resources[uid])

    for name, doc in header.stream(stream, fill=False):
        if name in ("resource", "stream_resource"):
            resources[doc["uid"]] = (name, doc)
        elif name == "datum":
            datums[doc["datum_id"]] = doc["resource"]
        elif name == "stream_datum":
            _, resource = resources.get(doc["stream_resource"], ("", {}))
            add(str(resource.get("data_key")), doc["stream_resource"])
        elif name == "event":
            for key in links:
                add(key, datums.get(doc["data"].get(key)))


def _add(header: Header, link: FrameLink, name: str, resource: Mapping[str, Any]) -> None:
    try:
        resolved = header.db.files.resolve(
            resource, stream=name == "stream_resource", where=f"run {header.uid!r}"
        )
        resolved.readable.check(resolved.path)
    except FillError as error:
        link.targets, link.problem = [], str(error)
        return
    dataset = _dataset_of(resolved)
    if dataset is None:
        problem = f"the spec {resolved.spec!r} does not describe one dataset of an HDF5 file"
        link.targets, link.problem = [], problem
    elif link.targets or link.problem == FrameLink.problem:  # no file before had a problem
        link.targets.append((resolved.path, dataset))


def _dataset_of(resolved: ResolvedResource) -> str | None:
    """Return the name of the dataset that has all frames of a file; None if there is none."""
    kwargs = resolved.kwargs
    if resolved.spec in AREA_DETECTOR:
        dataset = kwargs.get("key", AD_DATASET)
    elif resolved.spec == "application/x-hdf5":
        dataset = kwargs.get("dataset") or kwargs.get("path")
    else:
        return None
    return dataset if isinstance(dataset, str) and dataset.strip("/") else None
