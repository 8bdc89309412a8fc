"""Export to kerchunk's format of references: one mapping, in JSON or, for many chunks, Parquet.

Keys are those of a Zarr group of format 2. A value is text (metadata, or bytes in base64), or
``[url, offset, size]``. The ``fill_value`` of frames is null, because with 0 xarray would take
zeros for missing values. ``.zmetadata`` is written because Zarr cannot list the groups of fsspec's
reference file system.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...core.documents import ALL, StreamName
from ...core.durable_files import replacing
from ...views.dataset.attributes import root_attrs
from ..export_options import Destination, ExportOptions, storing
from ..folder_exports import replacing_folder
from .collecting import StreamArrays, stream_arrays
from .file_states import STATES_KEY, file_states, write_states
from .frame_grid import FrameGrid
from .inline import InlineArray, attributes_of, encoded_variables, inline_array
from .locations import location_of

if TYPE_CHECKING:
    from ...header import Header

MOST_IN_JSON = 20_000
"""Maximum number of chunks of frames in JSON. Parquet files are read only as they are needed."""
MOST_INLINE = 8 * 2**20
"""Maximum bytes of the store's own values in JSON."""
RECORDS = 10_000
"""Number of chunks in a Parquet file."""

JSON_SUFFIX, PARQUET_SUFFIX = ".json", ".parq"


class _Named(NamedTuple):
    """An array, its path in the group, and the URLs of its files."""

    path: str
    array: FrameGrid | InlineArray
    urls: list[str]


class _Group:
    """Metadata and arrays of a run."""

    def __init__(self, header: Header, options: ExportOptions) -> None:
        self.metadata: dict[str, Any] = {".zgroup": {"zarr_format": 2}}
        self.arrays: list[_Named] = []
        self._streams: list[StreamArrays] = []
        self._to = options.to
        if options.stream is ALL:
            self.metadata[".zattrs"] = root_attrs(header.start, header.known_stop)
        for stream in stream_arrays(header, options):
            self._streams.append(stream)
            self._add(stream, f"{stream.group}/" if options.stream is ALL else "")

    def _add(self, stream: StreamArrays, begin: str) -> None:
        variables, attributes = encoded_variables(stream.dataset)
        self.metadata[f"{begin}.zgroup"] = {"zarr_format": 2}
        self.metadata[f"{begin}.zattrs"] = attributes
        for name, variable in variables.items():
            path = f"{begin}{name}"
            grid = stream.grids.get(name)
            if grid is None:
                array, attrs = inline_array(name, variable)
                self.metadata[f"{path}/.zarray"] = array.metadata
                self.arrays.append(_Named(path, array, []))
            else:
                attrs = attributes_of(variable, dict(variable.attrs))
                self.metadata[f"{path}/.zarray"] = _grid_metadata(grid)
                urls = [location_of(file.path, self._to) for file in grid.files]
                self.arrays.append(_Named(path, grid, urls))
            self.metadata[f"{path}/.zattrs"] = attrs

    def check_files(self) -> None:
        """See :meth:`StreamArrays.check_files`."""
        for stream in self._streams:
            stream.check_files()

    @property
    def fits_json(self) -> bool:
        """Whether the references are few enough to be read as a whole."""
        grids = [one.array for one in self.arrays if isinstance(one.array, FrameGrid)]
        inline = [one.array for one in self.arrays if isinstance(one.array, InlineArray)]
        chunks = sum(grid.numbers.size for grid in grids)
        return chunks <= MOST_IN_JSON and sum(array.nbytes for array in inline) <= MOST_INLINE

    def mapping(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        refs: dict[str, Any] = {path: json.dumps(entry) for path, entry in self.metadata.items()}
        refs[".zmetadata"] = json.dumps(self.consolidated)
        for path, array, urls in self.arrays:
            for index, value in _references(array, urls):
                refs[f"{path}/{'.'.join(map(str, index)) or '0'}"] = value
        return {"version": 1, "refs": refs, STATES_KEY: file_states(self._streams, self._to)}

    def write_states(self, folder: Path) -> None:
        """See :func:`.file_states.write_states`."""
        write_states(folder, self._streams, self._to)

    @property
    def consolidated(self) -> dict[str, Any]:
        """Content of ``.zmetadata``: the metadata of all groups and arrays."""
        return {"zarr_consolidated_format": 1, "metadata": self.metadata}


def _grid_metadata(grid: FrameGrid) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": list(grid.shape),
        "chunks": list(grid.chunk),
        "dtype": grid.dtype.str,
        "filters": [dict(codec) for codec in grid.codecs] or None,
        "compressor": None,
        "fill_value": None,
        "order": "C",
    }


def _references(
    array: FrameGrid | InlineArray, urls: list[str]
) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield the index in the grid and the reference of each chunk."""
    if isinstance(array, InlineArray):
        for index, data in array.chunks():
            yield index, f"base64:{base64.b64encode(data).decode()}"
        return
    entries = zip(array.numbers.flat, array.offsets.flat, array.sizes.flat)
    for index, (number, offset, size) in zip(np.ndindex(array.numbers.shape), entries):
        yield index, [urls[int(number)], int(offset), int(size)]


def references(
    header: Header, stream: StreamName, to: Mapping[str, str] | None, arrays: str
) -> dict[str, Any]:
    """Return the references of a run as a mapping; see :meth:`daskbroker.Header.references`.

    Parameters
    ----------
    header
        Header of the run.
    stream, to, arrays
        See :func:`daskbroker.exporting.runs.export`.

    Raises
    ------
    BadQuery
        If references cannot describe some frames, unless ``arrays`` is ``"drop"``.
    """
    options = ExportOptions("references", stream, arrays=arrays, to=to)
    group = _Group(header, options)
    found = group.mapping()
    group.check_files()
    return found


def write_references(
    header: Header, destination: Destination, options: ExportOptions
) -> Iterator[Path]:
    """Write a JSON file of a run, or a folder of Parquet files if it has many chunks.

    The suffix of a file that the user has named decides in any case. The path is yielded.
    """
    if options.lacks_stream(header):
        return
    group = _Group(header, options)
    target = destination.of_run(header, options)
    as_parquet = not group.fits_json
    # A file that the caller named has the form that its suffix says.
    if destination.is_file:
        as_parquet = target.suffix.lower() == PARQUET_SUFFIX
    elif as_parquet:
        target = target.with_name(target.name.removesuffix(JSON_SUFFIX) + PARQUET_SUFFIX)
    if as_parquet:
        with storing(target), replacing_folder(target, (".zmetadata",)) as temporary:
            _write_parquet(group, temporary)
            group.write_states(temporary)
            group.check_files()
    else:
        with storing(target), replacing(target) as temporary:
            temporary.write_text(json.dumps(group.mapping()), encoding="utf8")
            group.check_files()
    yield target
    if not destination.is_file:
        _drop_other_form(target)


def _drop_other_form(target: Path) -> None:
    """Remove the other form, written when the run had fewer or more chunks."""
    if target.suffix == PARQUET_SUFFIX:
        target.with_suffix(JSON_SUFFIX).unlink(missing_ok=True)
    else:
        with suppress(FileNotFoundError):
            shutil.rmtree(target.with_suffix(PARQUET_SUFFIX))


# -- Parquet ---------------------------------------------------------------------------------


def _write_parquet(group: _Group, folder: Path) -> None:
    """Write files ``<array>/refs.<n>.parq`` of :data:`RECORDS` chunks, in C order of the grid."""
    folder.mkdir(parents=True)
    text = json.dumps({**group.consolidated, "record_size": RECORDS})
    (folder / ".zmetadata").write_text(text, encoding="utf8")
    for path, array, urls in group.arrays:
        (folder / path).mkdir(parents=True, exist_ok=True)
        table = _inline_table(array) if isinstance(array, InlineArray) else _grid_table(array, urls)
        for number, first in enumerate(range(0, table.num_rows, RECORDS)):
            part, file = table.slice(first, RECORDS), folder / path / f"refs.{number}.parq"
            pq.write_table(part, file, compression="zstd")


def _grid_table(grid: FrameGrid, urls: list[str]) -> pa.Table:
    numbers = pa.array(grid.numbers.ravel().astype(np.int32))
    columns = {
        "path": pa.DictionaryArray.from_arrays(numbers, pa.array(urls, pa.string())),
        "offset": pa.array(grid.offsets.ravel().astype(np.int64)),
        "size": pa.array(grid.sizes.ravel().astype(np.int64)),
    }
    return pa.table(columns)


def _inline_table(array: InlineArray) -> pa.Table:
    data = [data for _, data in array.chunks()]
    zeros = pa.array(np.zeros(len(data), np.int64))
    columns = {
        "path": pa.nulls(len(data), pa.string()),
        "offset": zeros,
        "size": zeros,
        "raw": pa.array(data, pa.binary()),
    }
    return pa.table(columns)
