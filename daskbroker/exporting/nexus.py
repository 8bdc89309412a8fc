"""Export of a run to a NeXus file: NXentry with NXsample, NXinstrument and NXdata.

=============================== ==================================================================
``/entry``                      NXentry: ``title``, ``entry_identifier`` (uid), ``start_time``,
                                ``end_time``, ``scan_id``, ``plan_name``, ``exit_status``
``/entry/<stream>``             NXdata: every variable of ``h.dataset(stream)``, ``time`` in seconds
                                since the run began; NXcollection if it has no numbers to plot
``/entry/data``                 NXdata, the default plot: signals and axes as given by hints
``/entry/instrument/<device>``  NXpositioner or NXdetector: data and configuration of the device
``/entry/sample``               NXsample: content of ``start.sample``
``/entry/start``, ``stop``      NXnote: the documents as JSON text
=============================== ==================================================================

Data is stored once, in the group of the stream, and the other groups have links to it. Names with
characters that NeXus does not allow are changed, and names that become equal by that get a number;
the original is in an attribute ``daskbroker_name``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xarray as xr

from ..core.clock import seconds_of
from ..core.documents import is_unicode, to_json
from ..core.durable_files import replacing
from ..core.errors import BadQuery, ExportWarning
from ..core.numbered_names import free_name
from ..core.user_warnings import warn_caller
from ..display.facts import sample_of, text_of
from ..display.hints import TIME_COLUMN, Hints, object_keys_of, roles_of
from ..views.dataset.attributes import plain_attr, restored_units
from ..views.dataset.savable import savable
from .export_options import Destination, ExportOptions, storing
from .frame_links import FrameLink, frame_links
from .hdf5_file import hdf5_file
from .verifying import WrittenParts, regions_of, values_digest

if TYPE_CHECKING:
    from ..header import Header

ENTRY, PLOT = "entry", "data"
UNPLOTTED = (TIME_COLUMN, "seq_num")
"""Fields that are never plotted as signals."""
TAKEN = (PLOT, "instrument", "sample", "start", "stop", "title", "start_time", "end_time")


def write_nexus(header: Header, destination: Destination, options: ExportOptions) -> Iterator[Path]:
    """Write a NeXus file of a run and yield its path.

    External frames are links to the detectors' files, or copies if ``fill`` is set. An
    ExportWarning is given for frames that cannot be linked.
    """
    target = destination.of_run(header, options)
    with storing(target), replacing(target) as temporary:
        written = WrittenParts()
        with hdf5_file(temporary) as written_to, h5py.File(written_to, "w") as file:
            _Entry(header, file, options, written).write()
        if options.verify:
            written.check(_read_back(temporary, written), "the field", target)
    yield target


def _read_back(path: Path, written: WrittenParts) -> Iterator[tuple[Any, bytes]]:
    """Yield the name and the digest of each part that was written, as read from the file."""
    with h5py.File(path) as file:
        for (name, region), _ in written.parts:
            field = file[name]
            source = field.asstr() if h5py.check_string_dtype(field.dtype) else field
            yield name, values_digest(np.asarray(source[region]))


class _Entry:
    """The one entry of a NeXus file."""

    def __init__(
        self, header: Header, file: h5py.File, options: ExportOptions, written: WrittenParts
    ) -> None:
        self._written = written
        self._header = header
        self._options = options
        self._began = seconds_of(header.start, 0.0)
        # Once, as a run may have thousands of streams.
        self._descriptors = header.descriptors
        file.attrs["default"] = ENTRY
        self._entry = _group(file, ENTRY, "NXentry")
        self._names_in_file: dict[tuple[str, str], str] = {}
        """Name of what is already in a group, by the path of the group and the original name."""

    def write(self) -> None:
        """Write the whole entry."""
        header = self._header
        streams = self._options.streams(header)
        self._write_facts()
        _write_sample(self._entry, header.start)
        links = {} if self._options.fill else frame_links(header)
        groups = {stream: self._write_stream(stream, links.get(stream, {})) for stream in streams}
        descriptors = {stream: self._descriptors[stream] for stream in streams}
        hints = Hints.of(header.start, descriptors)
        instrument = _group(self._entry, "instrument", "NXinstrument")
        # A device that is in several streams has the fields of the plotted stream, which is first.
        for stream in sorted(streams, key=lambda name: hints is None or name != hints.stream):
            self._write_devices(instrument, stream, groups[stream])
        if hints is not None:
            self._write_plot(hints, groups[hints.stream])
        # No plot was written, so the first stream that can be plotted is shown.
        if "default" not in self._entry.attrs:
            self._note_default(groups.values())

    def _note_default(self, groups: Iterable[Mapping[str, str]]) -> None:
        """Make the first stream that can be plotted the default, for a run without hints."""
        for fields in groups:
            path = next((path.rpartition("/")[0] for path in fields.values()), ENTRY)
            if self._entry.file[path].attrs["NX_class"] == "NXdata":
                self._entry.attrs["default"] = path.rpartition("/")[2]
                return

    def _write_facts(self) -> None:
        start, stop, entry = self._header.start, self._header.known_stop, self._entry
        facts = {
            "title": sample_of(start) or text_of(start.get("plan_name")) or self._header.uid,
            "entry_identifier": self._header.uid,
            "start_time": _time_text(start),
            "scan_id": start.get("scan_id"),
            "plan_name": start.get("plan_name"),
        }
        if stop is not None:
            facts |= {"end_time": _time_text(stop), "exit_status": stop.get("exit_status")}
        for name, value in facts.items():
            _put(entry, name, value)
        # The documents are added as JSON, as NeXus has no fields for much of their content.
        for name, document in (("start", start), ("stop", stop)):
            if document is not None:
                note = _group(entry, name, "NXnote")
                _put(note, "type", "application/json")
                _put(note, "data", to_json(document))

    # -- streams -----------------------------------------------------------------------------

    def _write_stream(self, stream: str, links: Mapping[str, FrameLink]) -> dict[str, str]:
        """Write the variables of a stream and return the path of each field by its name."""
        data = savable(self._header.dataset(stream, fill=self._options.fill))
        group = _group(self._entry, stream, "NXdata", taken=TAKEN)
        found: dict[str, str] = {}
        for name, variable in data.variables.items():
            # Frames are linked, not written.
            if name in links:
                continue
            # NeXus wants times as seconds since a start.
            if name == TIME_COLUMN:
                variable = _since(variable, self._began)
            field = _write_variable(group, str(name), variable, self._written)
            if name == TIME_COLUMN:
                field.attrs["start"] = _time_text(self._header.start)
            found[str(name)] = field.name
        for key, link in links.items():
            found |= self._link(group, stream, key, link, found)
        self._note_signal(group, stream, found)
        return found

    def _note_signal(self, group: h5py.Group, stream: str, fields: Mapping[str, str]) -> None:
        """Set the signal and axes of a stream; without a signal it becomes an NXcollection."""
        descriptors = {stream: self._descriptors[stream]}
        hints = Hints.of(self._header.start, descriptors, stream)
        hinted = () if hints is None else (*hints.signals, *hints.images)
        names = [name for name in (*hinted, *fields) if name in fields and name not in UNPLOTTED]
        signal = next((fields[n] for n in names if _is_plottable(group.file, fields[n])), None)
        # Without a signal the group would not be valid NXdata.
        if signal is None:
            group.attrs["NX_class"] = "NXcollection"
            return
        group.attrs["signal"] = signal.rpartition("/")[2]
        _note_axes(
            group,
            [TIME_COLUMN] if TIME_COLUMN in fields else [],
            group.attrs["signal"],
            is_map=False,
        )

    def _link(
        self,
        group: h5py.Group,
        stream: str,
        key: str,
        link: FrameLink,
        fields: Mapping[str, str],
    ) -> dict[str, str]:
        """Link the frames of a key; return the path of each link by a name not in ``fields``."""
        where = f"run {self._header.uid!r}, stream {stream!r}: the frames of {key!r}"
        # The files cannot be described; the export goes on with all the rest.
        if not link.targets:
            warn_caller(
                f"{where} cannot be linked: {link.problem}. Copy them by fill=True (--fill)",
                ExportWarning,
            )
            return {}
        names = (
            [key] if len(link.targets) == 1 else [f"{key}_{n}" for n in range(len(link.targets))]
        )
        found = {}
        for name, (path, dataset) in zip(names, link.targets):
            placed = _free_name(group, name)
            group[placed] = h5py.ExternalLink(path, dataset)
            found[placed if name in fields else name] = f"{group.name}/{placed}"
        return found

    # -- devices -----------------------------------------------------------------------------

    def _write_devices(
        self, instrument: h5py.Group, stream: str, fields: Mapping[str, str]
    ) -> None:
        descriptors = self._descriptors[stream]
        roles = roles_of(self._header.start, descriptors)
        known = {key for descriptor in descriptors for key in descriptor["data_keys"]}
        for descriptor in descriptors:
            for device, keys in object_keys_of(descriptor).items():
                own = [name for key in keys for name in _names_of(key, fields, known)]
                # Devices of which no field was written have no group.
                if not own:
                    continue
                is_motor = any(roles.get(key) == "motor" for key in keys)
                nexus_class = "NXpositioner" if is_motor else "NXdetector"
                # A device in several streams has one group.
                if (instrument.name, device) not in self._names_in_file:
                    made = _group(instrument, device, nexus_class)
                    self._names_in_file[instrument.name, device] = made.name
                group = instrument.file[self._names_in_file[instrument.name, device]]
                for field in own:
                    self._link_to(group, field, fields[field])
                usual = "value" if is_motor else "data"
                # NeXus's own name for the main field of a positioner or detector.
                if group.get(usual, getlink=True) is None:
                    group[usual] = _linked(group.file, fields[_most(group.file, own, fields)])
                self._write_configuration(group, descriptor, device)

    def _write_configuration(
        self, group: h5py.Group, descriptor: Mapping[str, Any], device: str
    ) -> None:
        configuration = descriptor.get("configuration")
        of_device = configuration.get(device) if isinstance(configuration, Mapping) else None
        data = of_device.get("data") if isinstance(of_device, Mapping) else None
        claims = of_device.get("data_keys") if isinstance(of_device, Mapping) else None
        for key, value in (data or {}).items() if isinstance(data, Mapping) else ():
            # Of several streams, or beside a data key of the same name.
            if (group.name, f"configuration:{key}") not in self._names_in_file:
                self._names_in_file[group.name, f"configuration:{key}"] = key
                field = _put(group, key, value)
                claim = claims.get(key) if isinstance(claims, Mapping) else None
                units = claim.get("units") if isinstance(claim, Mapping) else None
                # Units of other types are not valid in NeXus.
                if field is not None and isinstance(units, str):
                    field.attrs["units"] = plain_attr(units)

    # -- the default plot --------------------------------------------------------------------

    def _write_plot(self, hints: Hints, fields: Mapping[str, str]) -> None:
        numbers = [name for name in hints.signals if name in fields]
        signals = numbers or [name for name in hints.images if name in fields][:1]
        if not signals:
            return
        self._entry.attrs["default"] = PLOT
        group = _group(self._entry, PLOT, "NXdata")
        grid = self._grid(hints, signals)
        axes = [name for name in hints.across if grid is not None or name in fields]
        placed: dict[str, str] = {}
        for name in (*axes, *signals):
            # Without a grid the stream's own fields are linked, not written again.
            if grid is None:
                placed[name] = self._link_to(group, name, fields[name])
            elif name not in placed:
                field = _write_variable(group, name, grid.variables[name], self._written)
                placed[name] = field.name.rpartition("/")[2]
        axes, signals = [placed[name] for name in axes], [placed[name] for name in signals]
        group.attrs["signal"] = signals[0]
        if signals[1:]:
            group.attrs["auxiliary_signals"] = signals[1:]
        _note_axes(group, axes, signals[0], is_map=grid is not None)

    def _link_to(self, group: h5py.Group, name: str, path: str) -> str:
        """Link a field into a group, unless the group has it, and return its name there."""
        if (group.name, name) not in self._names_in_file:
            placed = _free_name(group, path.rpartition("/")[2])
            item = _linked(group.file, path)
            group[placed] = item
            if isinstance(item, h5py.Dataset):
                item.attrs["target"] = path  # NeXus distinguishes a link from its target by this
            self._names_in_file[group.name, name] = placed
        return self._names_in_file[group.name, name]

    def _grid(self, hints: Hints, signals: Sequence[str]) -> xr.Dataset | None:
        """Return the signals on the grid that was scanned; None if no grid was scanned."""
        # Images are shown along the events.
        if hints.shape is None or signals[0] in hints.images:
            return None
        try:
            found = self._header.dataset(hints.stream, fill=False, grid=True)
        # It was no complete grid; the plot is along the events then.
        except BadQuery:
            return None
        wanted = (*hints.across, *signals)
        if any(name not in found.variables for name in wanted):
            return None
        # A signal that is not on the grid, such as one with an array in each event.
        if any(found.variables[name].dims != hints.across for name in signals):
            return None
        return found


def _is_plottable(file: h5py.File, path: str) -> bool:
    found = _form(file, path)
    return found is not None and len(found[0]) > 0 and found[1].kind in "iuf"


def _form(file: h5py.File, path: str) -> tuple[tuple[int, ...], np.dtype] | None:
    """Return shape and dtype of a field; None if it is a link to a file that is not here.

    Links to files are followed here. HDF5 would open the other file by the object of Python that
    the first one is written by.
    """
    link = file.get(path, getlink=True)
    if not isinstance(link, h5py.ExternalLink):
        return file[path].shape, file[path].dtype
    try:
        with h5py.File(link.filename, "r") as other:
            return other[link.path].shape, other[link.path].dtype
    except (OSError, KeyError):
        return None


def _names_of(key: str, fields: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Return the fields of a data key: its own or the links to its files, and its cell lengths.

    Those of other keys, which are in ``known``, are not among them.
    """
    pattern = re.compile(re.escape(key) + r"(_\d+|_length(_\d+)?)")
    return [
        name for name in fields if name == key or (name not in known and pattern.fullmatch(name))
    ]


def _most(file: h5py.File, names: Sequence[str], fields: Mapping[str, str]) -> str:
    """Return the field with the most dimensions, which for a detector is its image."""

    def rank(name: str) -> int:
        found = _form(file, fields[name])
        # A link to a file that does not exist here should be one to a stack of images.
        return 3 if found is None else len(found[0])

    return max(names, key=rank)


def _note_axes(group: h5py.Group, axes: Sequence[str], signal: str, *, is_map: bool) -> None:
    """Set the attributes that tell which axis belongs to which dimension of the signal.

    The axes of scattered points all belong to the first dimension. Nothing is set if the signal is
    a link to a file that does not exist here.
    """
    found = _form(group.file, f"{group.name}/{signal}")
    # The signal is a link to a file that does not exist here.
    if found is None:
        return
    shape = found[0]
    along = [axis for axis in axes if is_map or group[axis].shape[:1] == shape[:1]]
    shown = along if is_map else along[:1]
    group.attrs["axes"] = [*shown, *["."] * (len(shape) - len(shown))]
    for position, axis in enumerate(along):
        group.attrs[f"{axis}_indices"] = position if is_map else 0


# -- HDF5 --------------------------------------------------------------------------------------


def _valid(name: str) -> str:
    """Return a name with every character that NeXus does not allow replaced by an underscore."""
    text = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    return text if text[:1].isalpha() or text[:1] == "_" else f"_{text}"


def _free_name(group: h5py.Group, name: str, taken: Sequence[str] = ()) -> str:
    """Return a valid name that no item of the group has, soft and broken links included."""
    return free_name(
        _valid(name), lambda free: free in taken or group.get(free, getlink=True) is not None
    )


def _group(
    parent: h5py.Group, name: str, nexus_class: str, taken: Sequence[str] = ()
) -> h5py.Group:
    placed = _free_name(parent, name, taken)
    group = parent.create_group(placed)
    group.attrs["NX_class"] = nexus_class
    _note_name(group, placed, name)
    return group


def _note_name(item: Any, written: str, name: str) -> None:
    if written != name:
        item.attrs["daskbroker_name"] = plain_attr(name)


def _put(group: h5py.Group, name: str, value: object) -> h5py.Dataset | None:
    """Create a field with a value of a document.

    Text and numbers are written as they are, anything else as JSON. None is not written.
    """
    if value is None:
        return None
    placed = _free_name(group, name)
    plain = value if isinstance(value, bool) else plain_attr(value)
    data = plain.replace("\0", "\\0") if isinstance(plain, str) else plain
    field = group.create_dataset(placed, data=data)
    _note_name(field, placed, name)
    return field


def _linked(file: h5py.File, path: str) -> Any:
    """Return what to assign to a second name: the dataset itself, or an equal external link."""
    link = file.get(path, getlink=True)
    return link if isinstance(link, h5py.ExternalLink) else file[path]


def _write_variable(
    group: h5py.Group, name: str, variable: xr.Variable, written: WrittenParts
) -> h5py.Dataset:
    """Write a variable as a field, block by block if it is lazy, and note the digests."""
    placed = _free_name(group, name)
    # Text has no fixed width in HDF5, and null characters would end it.
    if variable.dtype.kind in "OTU" or str(variable.dtype) == "str":
        texts = np.array([_text(cell) for cell in np.ravel(variable.values)], dtype=object)
        texts = texts.reshape(variable.shape)
        field = group.create_dataset(placed, data=texts, dtype=h5py.string_dtype())
        written.note((field.name, ...), values_digest(texts))
    else:
        field = group.create_dataset(placed, variable.shape, variable.dtype)
        for region in regions_of(variable) if variable.size else ():
            values = np.asarray(variable[region].values)
            field[region] = values
            written.note((field.name, region), values_digest(values))
    for key, value in restored_units(variable.attrs).items():
        # A name that NeXus does not allow would make the file invalid.
        if _valid(str(key)) == key:
            field.attrs[key] = plain_attr(value) if value is not None else ""
    _note_name(field, placed, name)
    return field


def _text(cell: object) -> str:
    text = "" if cell is None or cell != cell else str(cell)
    return text.replace("\0", "\\0") if is_unicode(text) else to_json(text)


def _since(time: xr.Variable, began: float) -> xr.Variable:
    origin = np.datetime64(round(began * 1e6), "us")
    seconds = (time.values.astype("datetime64[us]") - origin) / np.timedelta64(1, "s")
    return xr.Variable(time.dims, seconds, {"units": "s"})


def _time_text(document: Mapping[str, Any]) -> str:
    seconds = seconds_of(document, 0.0)
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a year beyond 9999, as of milliseconds
        return f"{np.datetime64(round(seconds * 1e3), 'ms')}+00:00"


def _write_sample(entry: h5py.Group, start: Mapping[str, Any]) -> None:
    group = _group(entry, "sample", "NXsample")
    _put(group, "name", sample_of(start))
    sample = start.get("sample")
    for key, value in sample.items() if isinstance(sample, Mapping) else ():
        # The name is written above.
        if key != "name":
            _put(group, str(key), value)
