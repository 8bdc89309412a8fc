"""The last events that datums refer to in each file of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...core.chunks import ChunkReader
from ...core.json_text import json_form
from ...core.layouts import RESOURCE
from .reference_chunks import datum_chunk, documents

MAX_CACHED = 64
"""Maximum number of runs and keywords whose last frames stay in memory."""


def file_of(resource: Mapping[str, Any]) -> str:
    """Return a text that is equal for resources of the same file with the same parameters."""
    compared = {name: resource[name] for name in resource.keys() - {"uid", "run_start"}}
    return json.dumps(compared, sort_keys=True, default=json_form)


@lru_cache(MAX_CACHED)
def last_frames(
    store: str,
    reader: ChunkReader,
    resource_keys: tuple[Any, ...],
    datum_keys: tuple[Any, ...],
    name: str,
) -> Mapping[str, int]:
    """Return the highest value of a keyword among all datums of each resource's file, by uid.

    Parameters
    ----------
    store, reader
        Identity of the store, which distinguishes chunks of equal keys, and the reader of chunks.
    resource_keys, datum_keys
        Keys of the chunks of all resources and datums of the run.
    name
        Keyword of the datums; those without it are left out.
    """
    resources = documents(store, reader, resource_keys, RESOURCE)
    files = {uid: file_of(doc) for uid, doc in resources.items()}
    last: dict[str, int] = {}
    for key in datum_keys:
        for owner, position in datum_chunk(store, reader, key).highest(name).items():
            if owner in files:
                last[files[owner]] = max(position, last.get(files[owner], -1))
    return {uid: last[file] for uid, file in files.items() if file in last}
