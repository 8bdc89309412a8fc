"""The streams of a run, as its page shows them: rows, data keys, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.fields import data_keys_of
from ..core.printable import counted
from .hints import Descriptors, Hints, object_keys_of, roles_of
from .markup import Markup, element, folded, html_table, joined, shortened
from .tree import folded_tree

if TYPE_CHECKING:
    from ..header import Header

MOST_UNFOLDED = 12
"""Maximum number of data keys of a stream that are shown unfolded, or as text."""
MOST_KEYS = 500
"""Maximum number of data keys of a stream that are shown; those with a role come first."""
HEADS = ["key", "role", "units", "dtype", "shape", "device"]


class Streams:
    """The streams of a run.

    Parameters
    ----------
    header
        The run. Its descriptors are looked up once. Its numbers of rows are those of the stop
        document if it has them, otherwise they are counted in the plans of the event sources.
    """

    def __init__(self, header: Header) -> None:
        self.descriptors: Mapping[str, Descriptors] = header.descriptors
        self.rows = _rows(header, self.descriptors)
        self._start = header.start
        self._zone = header.db.timezone

    def lines(self) -> list[str]:
        """Return a line for each stream, followed by its keys that were moved or measured."""
        found = []
        for name, descriptors in self.descriptors.items():
            found.append(f"{name}: {counted(self.rows[name], 'row')}, {_count(descriptors)}")
            keys = _keys(self._start, descriptors)
            for key, role, units, dtype, shape, _ in keys[:MOST_UNFOLDED]:
                if role:
                    unit = f" ({units})" if units else ""
                    found.append(f"  {role:<8} {key}{unit}  {dtype} {shape}".rstrip())
        return found

    def markup(self) -> Markup:
        """Return each stream with a table of its data keys, the plotted stream first."""
        hints = Hints.of(self._start, self.descriptors)
        if hints is None:
            return Markup()
        others = (name for name in self.descriptors if name != hints.stream)
        return joined(
            self._stream(hints.stream, opened=True),
            *(self._stream(n, opened=False) for n in others),
        )

    def _stream(self, name: str, *, opened: bool) -> Markup:
        descriptors = self.descriptors[name]
        keys = _keys(self._start, descriptors)
        shown: list[Markup] = [_key_table(keys[:MOST_KEYS])]
        if len(keys) > MOST_KEYS:
            shown.append(element("div", f"… {len(keys) - MOST_KEYS:,} more", class_="dim"))
        title = joined(
            element("b", shortened(name)),
            f" {counted(self.rows[name], 'row')}, {_count(descriptors)}",
        )
        return folded(title, *shown, opened=opened and len(keys) <= MOST_UNFOLDED)

    def configuration(self) -> Markup:
        """Return the configuration of each device as a folded tree."""
        found: dict[str, Any] = {}
        for name, descriptors in self.descriptors.items():
            for descriptor in descriptors:
                given = descriptor.get("configuration")
                for device, said in given.items() if isinstance(given, Mapping) else ():
                    data = said.get("data") if isinstance(said, Mapping) else None
                    if isinstance(data, Mapping) and data:
                        found.setdefault(device, {}).setdefault(name, data)
        merged = {device: _merged(by_stream) for device, by_stream in found.items()}
        return folded_tree("configuration", merged, self._zone) if merged else Markup()


def _key_table(keys: Sequence[Sequence[str]]) -> Markup:
    """Return a table of data keys without the columns that are empty."""
    told = [position for position in range(len(HEADS)) if any(row[position] for row in keys)]
    rows: list[list[object]] = [[shortened(row[position]) for position in told] for row in keys]
    return html_table([HEADS[position] for position in told], rows)


def _merged(by_stream: Mapping[str, Any]) -> Any:
    """Return the configuration once if it is the same in all streams, else by stream."""
    first, *others = by_stream.values()
    return first if all(other == first for other in others) else by_stream


def _count(descriptors: Descriptors) -> str:
    return counted(len(data_keys_of(descriptors)), "data key")


def _rows(header: Header, streams: Mapping[str, Descriptors]) -> dict[str, int]:
    given = None if header.known_stop is None else header.known_stop.get("num_events")
    told: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    rows = {name: told[name] for name in streams if type(told.get(name)) is int}
    return rows if len(rows) == len(streams) else header.db.event_sources.count_rows(header.uid)


def _keys(start: Mapping[str, Any], descriptors: Descriptors) -> list[list[str]]:
    """Return key, role, units, dtype, shape and device of each data key.

    Motors come first, then detectors, then the others.
    """
    roles = roles_of(start, descriptors)
    found: dict[str, list[str]] = {}
    for descriptor in descriptors:
        devices = object_keys_of(descriptor)
        owners = {key: device for device, keys in devices.items() for key in keys}
        for key, claim in descriptor["data_keys"].items():
            claim = claim if isinstance(claim, Mapping) else {}
            shape = claim.get("shape")
            dtype = claim.get("dtype_numpy") or claim.get("dtype") or ""
            found.setdefault(
                key,
                [
                    key,
                    roles[key],
                    str(claim.get("units") or ""),
                    str(dtype) + (", external" if claim.get("external") else ""),
                    " × ".join(map(str, shape)) if isinstance(shape, (list, tuple)) else "",
                    str(claim.get("object_name") or owners.get(key, "")),
                ],
            )
    order = {"motor": 0, "detector": 1, "": 2}
    return sorted(found.values(), key=lambda row: order[row[1]])
