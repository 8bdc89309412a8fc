"""Attributes of Datasets: plain values, which netCDF and Zarr can hold, and what they say.

======================================================== =====================================
``run``, ``scan_id``, ``plan_name``                      of the start
``stream``                                               name of the stream
``time``                                                 of the start, ISO 8601, UTC
``exit_status``                                          of the stop, if there is one
``descriptors``                                          uids
``start``, ``stop``                                      the documents, as JSON text
``runs``                                                 in place of those of one run: uids
======================================================== =====================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..core.documents import Document, is_unicode, to_json
from ..core.errors import BadDocument
from ..core.json_text import from_extended_json

__all__ = ["DOCUMENTED", "JsonText", "attrs", "plain_attr", "run_attrs"]

DOCUMENTED = (
    "run", "runs", "scan_id", "plan_name", "stream", "time", "exit_status", "descriptors",
    "start", "stop",
)  # fmt: skip
"""What attributes of a Dataset say of where it comes from; all others are the user's."""

LARGEST = 2**63
LETTERS = 60


class JsonText(str):
    """JSON text of which notebooks show the beginning.

    xarray's HTML shows attributes whole, by :func:`html.escape`; a start document would be a
    wall of text. Everything else about it is that of a :class:`str` of the whole text.
    """

    __slots__ = ()

    def __str__(self) -> str:
        # A plain copy, as `str` makes it, would be shown whole.
        return self

    def replace(self, old: str, new: str, count: Any = -1) -> str:  # type: ignore[override]
        """As of text; the first step of :func:`html.escape` gives what is to be shown."""
        text = super().replace(old, new, count)
        if (old, new) != ("&", "&amp;") or len(self) <= LETTERS:
            return text
        return f"{self[:LETTERS].replace('&', '&amp;')}… ({len(self):,} letters; daskbroker.attrs)"


def run_attrs(
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    stream: str | None = None,
    descriptors: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What a Dataset, or the root of a tree, carries of the run it comes from."""
    known = {
        "run": start["uid"],
        "scan_id": start.get("scan_id"),
        "plan_name": start.get("plan_name"),
        "stream": stream,
        "time": _time_text(start.get("time")),
        "exit_status": None if stop is None else stop.get("exit_status"),
    }
    found = {name: plain_attr(value) for name, value in known.items() if value is not None}
    if descriptors is not None:
        found["descriptors"] = [descriptor["uid"] for descriptor in descriptors]
    found["start"] = JsonText(to_json(start))
    if stop is not None:
        found["stop"] = JsonText(to_json(stop))
    return found


def _time_text(time: Any) -> Any:
    """ISO 8601, in UTC; what is no time of a calendar stays as it is."""
    try:
        return datetime.fromtimestamp(time, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return time


def plain_attr(value: Any) -> Any:
    """A value of a document in a form that attributes of netCDF and Zarr can have.

    Text and numbers of 64 bits stay, as do lists of either; anything else becomes JSON text.
    """
    if _is_plain(value):
        return value
    if isinstance(value, list) and value and all(map(_is_plain, value)):
        texts = [isinstance(item, str) for item in value]
        if all(texts) or not any(texts):
            return list(value)
    return to_json(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and is_unicode(value)
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and -LARGEST <= value < LARGEST)


def attrs(source: Any) -> dict[str, Any]:
    """The attributes of a Dataset of ours, its documents as documents.

    Parameters
    ----------
    source
        A Dataset, DataArray or DataTree from a Header or Results, or one that xarray has read
        from a netCDF file or a Zarr store in which such a one was saved; or the attributes.

    Returns
    -------
    dict
        ``start`` and ``stop`` as :class:`daskbroker.Document` (``stop`` is None if there was none
        yet), ``descriptors`` and ``runs`` as lists, numbers and text as Python's.

    Raises
    ------
    BadDocument
        If ``start`` or ``stop`` is no JSON text of a document.
    """
    given = source if isinstance(source, Mapping) and not hasattr(source, "attrs") else source.attrs
    found = {name: _python_value(value) for name, value in given.items()}
    for name in ("runs", "descriptors"):
        if name in found:
            found[name] = [found[name]] if isinstance(found[name], str) else list(found[name])
    if "start" in found:
        found["start"] = _document("start", found["start"])
        found["stop"] = None if found.get("stop") is None else _document("stop", found["stop"])
    return found


def _python_value(value: Any) -> Any:
    """Without NumPy's types, which files give."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def _document(name: str, value: Any) -> Document:
    try:
        content = from_extended_json(value) if isinstance(value, str) else value
        return Document(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadDocument(
            f"the attribute {name!r} is no JSON text of a document: {error}"
        ) from None
