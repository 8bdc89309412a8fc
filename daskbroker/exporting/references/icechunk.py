"""Export of runs to repositories of Icechunk, with frames as virtual chunks in detector files.

Icechunk notes the time at which a file was last changed, and refuses to read a file that was
changed later.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from ...assets.handlers.stored_frames import Codec
from ...core.documents import ALL
from ...core.errors import BadQuery, ConfigError, StoreError
from ...views.dataset.attributes import root_attrs
from ..export_options import Destination, ExportOptions, storing
from ..folder_exports import replacing_folder
from .collecting import StreamArrays, stream_arrays
from .file_states import write_states
from .frame_grid import FrameGrid
from .locations import QUOTED, location_of

if TYPE_CHECKING:
    from ...header import Header

REPOSITORY_FOLDERS = ("snapshots",)
"""Names in every folder that is a repository."""
LOCAL_STORE = "file"
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
WRAPPED = {
    "zlib": "Zlib",
    "gzip": "GZip",
    "bz2": "BZ2",
    "shuffle": "Shuffle",
    "fletcher32": "Fletcher32",
}
"""Names of the classes by which Zarr wraps codecs of numcodecs."""


def write_icechunk(
    header: Header, destination: Destination, options: ExportOptions
) -> Iterator[Path]:
    """Write a repository of a run, with one commit, and yield its path.

    Raises
    ------
    ConfigError
        If icechunk or zarr is not installed.
    BadQuery
        See :func:`.collecting.stream_arrays`.
    """
    if find_spec("icechunk") is None or find_spec("zarr") is None:
        raise ConfigError("to write Icechunk, install daskbroker[icechunk]")
    if options.lacks_stream(header):
        return
    target = destination.of_run(header, options)
    streams = list(stream_arrays(header, options))
    with storing(target), replacing_folder(target, REPOSITORY_FOLDERS) as temporary:
        with warnings.catch_warnings():
            # Zarr warns of codecs and text that its format 3 does not specify. Readers are warned
            # as well.
            warnings.filterwarnings("ignore", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*[Zz]arr.*")
            with _errors(target):
                _write(header, streams, temporary, options)
        write_states(temporary, streams, options.to)
        for stream in streams:
            stream.check_files()
    yield target


@contextmanager
def _errors(target: Path) -> Iterator[None]:
    """Turn errors of icechunk into those of the system that they tell of, or into StoreErrors."""
    import icechunk

    try:
        yield
    except icechunk.IcechunkError as error:
        text = str(error).strip()
        found = re.search(r"\(os error (\d+)\)", text)
        if found is None:
            raise StoreError(f"the export {target} cannot be written: {text}") from error
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(target)) from error


def _write(
    header: Header, streams: list[StreamArrays], folder: Path, options: ExportOptions
) -> None:
    import icechunk
    import zarr

    locations = {
        file.path: _quoted(location_of(file.path, options.to))
        for stream in streams
        for grid in stream.grids.values()
        for file in grid.files
    }
    config = icechunk.RepositoryConfig.default()
    for prefix in _prefixes(list(locations.values())):
        config.set_virtual_chunk_container(_container(prefix))
    storage = icechunk.local_filesystem_storage(str(folder))
    session = icechunk.Repository.create(storage, config).writable_session("main")
    store = session.store
    if options.stream is ALL:
        attributes = root_attrs(header.start, header.known_stop)
        zarr.create_group(store, attributes=attributes, zarr_format=3)
    for stream in streams:
        group = stream.group if options.stream is ALL else ""
        _write_stream(store, stream, group, locations, checked=options.to is None)
    session.commit(f"run {header.uid}")


def _write_stream(
    store: Any, stream: StreamArrays, group: str, locations: dict[str, str], *, checked: bool
) -> None:
    import zarr

    stored = stream.dataset.drop_vars(list(stream.grids))
    stored.to_zarr(store, group=group or None, mode="a", zarr_format=3, consolidated=False)
    for name, grid in stream.grids.items():
        path = f"{group}/{name}" if group else name
        variable = stream.dataset[name].variable
        zarr.create_array(
            store,
            name=path,
            shape=grid.shape,
            chunks=grid.chunk,
            dtype=grid.dtype,
            serializer=zarr.codecs.BytesCodec(
                endian="big" if grid.dtype.str.startswith(">") else "little"
            ),
            compressors=[_codec(codec, grid.dtype.itemsize) for codec in grid.codecs] or None,
            filters=None,
            fill_value=0,
            attributes=_attributes(variable.attrs, stream, name),
            dimension_names=[str(dim) for dim in variable.dims],
            zarr_format=3,
        )
        refused = store.set_virtual_refs(f"/{path}", _chunks(grid, locations, checked=checked))
        if refused:  # which would be read as fill values
            raise StoreError(f"Icechunk refused references to {len(refused):,} chunks of {path!r}")


def _attributes(attrs: Any, stream: StreamArrays, name: str) -> dict[str, Any]:
    """Return the attributes with the names of non-dimension coordinates, as xarray writes them."""
    data = stream.dataset[name]
    # The attribute separates names by spaces, so names that have spaces are left out, as in netCDF.
    beside = [str(c) for c in data.coords if c not in data.dims and " " not in str(c)]
    return {**attrs, **({"coordinates": " ".join(sorted(beside))} if beside else {})}


def _chunks(grid: FrameGrid, locations: dict[str, str], *, checked: bool) -> list[Any]:
    import icechunk

    names = [locations[file.path] for file in grid.files]
    times = [_changed(file.state[3]) if checked and file.state else None for file in grid.files]
    entries = zip(grid.numbers.flat, grid.offsets.flat, grid.sizes.flat)
    return [
        icechunk.VirtualChunkSpec(
            index=list(index),
            location=names[int(number)],
            offset=int(offset),
            length=int(size),
            last_updated_at_checksum=times[int(number)],
        )
        for index, (number, offset, size) in zip(np.ndindex(grid.numbers.shape), entries)
    ]


def _changed(nanoseconds: int) -> datetime:
    """Return the time of a file's last change, rounded up, as Icechunk compares whole seconds."""
    return datetime.fromtimestamp(-(-nanoseconds // 10**9), UTC)


def _codec(codec: Codec, itemsize: int) -> Any:
    """Return a codec as an object of Zarr's format 3."""
    import zarr.codecs
    from zarr.codecs import numcodecs as wrapped

    from daskbroker_codecs import for_zarr

    config = {key: value for key, value in codec.items() if key != "id"}
    match codec["id"]:
        case "zstd":
            return zarr.codecs.ZstdCodec(level=config["level"], checksum=False)
        case "blosc":
            config["shuffle"] = SHUFFLES[config["shuffle"]]
            return zarr.codecs.BloscCodec(typesize=itemsize, **config)
        case "hdf5_lz4":
            return for_zarr.LZ4Codec()
        case "hdf5_lzf":
            return for_zarr.LZFCodec(**config)
        case "hdf5_bitshuffle":
            return for_zarr.BitshuffleCodec(**config)
    return getattr(wrapped, WRAPPED[codec["id"]])(**config)


# -- where chunks may be ---------------------------------------------------------------------


def _quoted(location: str) -> str:
    """Return a location with its path quoted, as Icechunk reads locations as URLs."""
    scheme, _, rest = location.partition("://")
    if scheme in QUOTED:  # it is already
        return location
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{quote(path)}"


def _prefixes(locations: Iterable[str]) -> list[str]:
    """Return the prefixes of URLs: a common folder of this machine, and buckets of others."""
    begin = f"{LOCAL_STORE}://"
    folders = {
        os.path.dirname(url.removeprefix(begin)) for url in locations if url.startswith(begin)
    }
    local = [_container_folder(os.path.commonpath(folders))] if folders else []
    parts = [urlsplit(url) for url in locations if not url.startswith(begin)]
    return [f"{begin}{folder}" for folder in local] + sorted(
        {f"{part.scheme}://{part.netloc}/" for part in parts}
    )


def _container_folder(folder: str) -> str:
    """Return the folder, or its closest parent, whose path needs no quoting in URLs.

    Icechunk does not accept others as containers of virtual chunks.
    """
    while quote(folder) != folder or "%" in folder:
        folder = os.path.dirname(folder)
    return f"{folder.rstrip('/')}/"


def _container(prefix: str) -> Any:
    import icechunk

    scheme = urlsplit(prefix).scheme
    if scheme in QUOTED and urlsplit(prefix).port is not None:
        raise BadQuery(
            f"Icechunk reads {prefix!r} without its port, so it finds no file there: export to "
            "'references', or name a URL without a port by to="
        )
    made = {
        LOCAL_STORE: lambda: icechunk.local_filesystem_store(prefix.removeprefix("file://")),
        "s3": icechunk.s3_store,
        "gs": icechunk.gcs_store,
        "http": lambda: icechunk.http_store({"allow_http": "true"}),
        "https": icechunk.http_store,
    }
    if scheme not in made:
        raise BadQuery(f"Icechunk has no container for {prefix!r}; it has {', '.join(made)}")
    return icechunk.VirtualChunkContainer(prefix, made[scheme]())
