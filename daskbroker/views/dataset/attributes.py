"""Attributes of Datasets, as plain values that netCDF and Zarr can hold.

======================================================== =====================================
``run``, ``scan_id``, ``plan_name``                      of the start; "" if it has none
``stream``                                               name of the stream
``time``                                                 of the start, ISO 8601, UTC
``exit_status``                                          of the stop; ``open`` if there is none
``descriptors``                                          uids
``start``, ``stop``                                      the documents, as JSON text; of a tree
                                                         its nodes have them
``runs``                                                 uids, if of many runs
``software``                                             ``daskbroker``
======================================================== =====================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ...core.documents import Document, is_unicode, to_json
from ...core.errors import BadArgument, BadDocument
from ...core.json_text import from_extended_json

DOCUMENTED = (
    "run", "runs", "scan_id", "plan_name", "stream", "time", "exit_status", "descriptors",
    "start", "stop", "software",
)  # fmt: skip
"""Names of the attributes that say where a Dataset comes from; all others are the user's."""

INTEGER_LIMIT = 2**63
SOFTWARE = "daskbroker"


def run_attrs(
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    stream: str,
    descriptors: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the attributes of a Dataset of one run.

    There are always ten, even if the run lacks some: xarray's HTML collapses attributes only if
    there are that many, and otherwise shows ``start`` and ``stop`` at full length.
    """
    return {
        **root_attrs(start, stop),
        "stream": stream,
        "descriptors": [descriptor["uid"] for descriptor in descriptors],
        "start": to_json(start),
        "stop": to_json(stop),
    }


def root_attrs(start: Mapping[str, Any], stop: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the attributes of the root of a tree of streams: those that are short."""
    known = {
        "run": start["uid"],
        "scan_id": start.get("scan_id", ""),
        "plan_name": start.get("plan_name", ""),
        "time": _time_text(start.get("time")),
        "exit_status": "open" if stop is None else stop.get("exit_status", ""),
        "software": SOFTWARE,
    }
    return {name: plain_attr(value) for name, value in known.items()}


def _time_text(time: Any) -> Any:
    """Return POSIX seconds as ISO 8601 in UTC; a value that is not a valid time is unchanged."""
    try:
        return datetime.fromtimestamp(time, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return time


def plain_attr(value: Any) -> Any:
    """Convert a value of a document to a form that attributes of netCDF and Zarr can have.

    Text and numbers of 64 bits are unchanged, as are lists of either; anything else becomes JSON
    text.
    """
    if _is_plain(value):
        return value
    if isinstance(value, list) and value and all(map(_is_plain, value)):
        texts = [isinstance(item, str) for item in value]
        if all(texts) or not any(texts):
            return list(value)
    return to_json(value)


def renamed_units(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes in which units such as ``seconds since start`` are ``unit``.

    As ``units``, xarray takes the numbers in a file for times, or cannot open the file.
    """
    if "since" not in str(attrs.get("units")):
        return dict(attrs)
    return {"unit" if name == "units" else name: value for name, value in attrs.items()}


def restored_units(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes as they were before :func:`renamed_units`, for files of other readers."""
    if "units" in attrs or "since" not in str(attrs.get("unit")):
        return dict(attrs)
    return {"units" if name == "unit" else name: value for name, value in attrs.items()}


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return "\0" not in value and is_unicode(value)
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (
        isinstance(value, int) and -INTEGER_LIMIT <= value < INTEGER_LIMIT
    )


def attrs(source: Any) -> dict[str, Any]:
    """Return the attributes of a Dataset of a run, with documents parsed.

    Parameters
    ----------
    source
        Dataset, DataArray or DataTree from a Header or Results, or one that was saved to a netCDF
        file or a Zarr store and read by xarray; or its attributes.

    Returns
    -------
    dict
        ``start`` and ``stop`` as :class:`daskbroker.Document` (``stop`` is None if there was none
        yet), ``descriptors`` and ``runs`` as lists, numbers and text as Python objects.

    Raises
    ------
    BadArgument
        If ``source`` is anything else.
    BadDocument
        If ``start`` or ``stop`` is not the JSON text of a document.
    """
    given = getattr(source, "attrs", source)
    if not isinstance(given, Mapping):
        raise BadArgument(
            f"source takes a Dataset, DataArray, DataTree or their attributes, not {source!r:.100}"
        )
    found = {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in given.items()
    }
    # The root of a tree has short attributes only; its streams have the documents of the run.
    if "run" in found and "start" not in found:
        nodes = getattr(source, "children", {}).values()
        shown: Mapping[str, Any] = next((node.attrs for node in nodes if "start" in node.attrs), {})
        found |= {name: shown[name] for name in ("start", "stop") if name in shown}
    # netCDF gives a list of one text back as a text.
    for name in ("runs", "descriptors"):
        if name in found:
            found[name] = [found[name]] if isinstance(found[name], str) else list(found[name])
    if "start" in found:
        found["start"] = _document("start", found["start"])
        found["stop"] = _document("stop", found.get("stop"))
    return found


def _document(name: str, value: object) -> Document | None:
    try:
        content = from_extended_json(value) if isinstance(value, str) else value
        return None if content is None else Document(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadDocument(
            f"the attribute {name!r} is not JSON text of a document: {error}"
        ) from None
