"""Documents whose external data are lazy Dask arrays, one for each cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.external import external_keys
from ..header import Header


def delayed_events(header: Header) -> Iterator[tuple[str, Any]]:
    """Yield the documents of a run, with lazy arrays in place of references in events.

    The arrays are cells of the run's Datasets, so computing one reads its whole block of cells.
    """
    lazy: dict[str, dict[str, Any]] = {}
    positions: dict[str, int] = {}
    for stream, descriptors in header.descriptors.items():
        keys = sorted({key for doc in descriptors for key in external_keys(doc)})
        if not keys:
            continue
        wanted = [*(f"data:{key}" for key in keys), "uid"]
        dataset = header.dataset(stream, wanted, duplicates="all")
        positions |= {str(uid): position for position, uid in enumerate(np.asarray(dataset["uid"]))}
        arrays = {key: dataset[key].data for key in keys}
        for doc in descriptors:
            lazy[doc["uid"]] = {key: arrays[key] for key in external_keys(doc)}
    for name, doc in header.documents(fill=False):
        arrays = lazy.get(doc["descriptor"], {}) if name == "event" else {}
        if arrays:
            cells = {key: array[positions[doc["uid"]]] for key, array in arrays.items()}
            filled = {**(doc.get("filled") or {}), **dict.fromkeys(arrays, True)}
            yield name, {**doc, "data": {**doc["data"], **cells}, "filled": filled}
        else:
            yield name, doc
