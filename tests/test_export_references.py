"""Runs as references to their detectors' files, opened where there is no daskbroker."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import textwrap
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import h5py
import hdf5plugin
import icechunk
import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from typer.testing import CliRunner

import daskbroker
from daskbroker.cli import app
from daskbroker.core.errors import BadQuery, FillError, StoreError
from daskbroker.exporting.export_options import ExportOptions
from daskbroker.exporting.references.collecting import stream_arrays
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import (
    SHAPE,
    Squares,
    datum_run,
    image_claim,
    squares_run,
    stream_run,
)
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5, write_npys, write_tiffs
from daskbroker_codecs import decode_bitshuffle, decode_lz4

EVENTS = 6
DATA = frames(EVENTS, SHAPE)

pytestmark = pytest.mark.filterwarnings("ignore::daskbroker.core.errors.ClaimWarning")
"""Of files with more frames than events."""

# -- forms of run ----------------------------------------------------------------------------


def hdf5(folder, data=DATA, **options):
    """Datums of one file of a kind."""
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset(AD_DATASET, data=data, **options)
    return datum_run(folder, EVENTS, dtype_numpy=data.dtype.str)[0]


def in_files(folder, parts, *, per_event=1, spec="AD_HDF5", **options):
    """Datums of several files."""
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim((per_event, *SHAPE)), "x": 0.5})
    for number, part in enumerate(parts):
        write_hdf5(folder / f"{number}.h5", part, **options)
        place = {"root": str(folder), "resource_path": f"{number}.h5"}
        kwargs = {"frame_per_point": per_event}
        resource = run.resource(spec, **place, resource_kwargs=kwargs)
        for point in range(len(part) // per_event):
            run.event(
                descriptor, {"img": run.datum(resource, point_number=point), "x": point * 1.0}
            )
    return run.stop()


def numbered(folder, spec, keyword, resource, *, axis=False, **claim):
    """Datums of one resource of a spec, with a number each."""
    run = RunBuilder()
    shape = (1, *SHAPE) if axis else SHAPE
    descriptor = run.descriptor({"img": image_claim(shape, **claim)})
    uid = run.resource(spec, root=str(folder), **resource)
    for number in range(EVENTS):
        run.event(descriptor, {"img": run.datum(uid, **({keyword: number} if keyword else {}))})
    return run.stop()


def streamed(folder, mimetype, uri, shape=(1, *SHAPE), **parameters):
    """Stream_datums of one resource."""
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim(shape, external="STREAM:"), "x": 0.5})
    resource = run.stream_resource(
        "img", uri=f"file://localhost{uri}", mimetype=mimetype, parameters=parameters
    )
    run.stream_datum(resource, descriptor, (0, EVENTS))
    for number in range(EVENTS):
        run.event(descriptor, {"x": float(number)})
    return run.stop(num_events={"primary": EVENTS})


def stream_of_chunks(folder, **options):
    with h5py.File(folder / "s.h5", "w") as file:
        file.create_dataset("frames", data=DATA, **options)
    return streamed(folder, "application/x-hdf5", folder / "s.h5", dataset="frames")


def tiffs(folder, **options):
    write_tiffs(folder, DATA, "img_{:05d}.tif", **options)
    kwargs = {"template": "%s%s_%5.5d.tif", "filename": "img"}
    resource = {"resource_path": "", "resource_kwargs": kwargs}
    return numbered(folder, "AD_TIFF", "point_number", resource, axis=True)


def tiff_pages(folder, **options):
    tifffile.imwrite(folder / "p.tif", DATA, photometric="minisblack", **options)
    return streamed(folder, "image/tiff", folder / "p.tif")


def npys(folder):
    write_npys(folder / "f", DATA)
    return numbered(folder, "NPY_SEQ", "index", {"resource_path": "f"})


def npy_frames(folder):
    np.save(folder / "all.npy", DATA)
    return numbered(folder, "npy_FRAMEWISE", "frame_no", {"resource_path": "all.npy"})


def xspress3(folder, **options):
    """Spectra of two channels, each of which is a key."""
    data = np.arange(EVENTS * 3 * 16, dtype="<u4").reshape(EVENTS, 3, 16)
    write_hdf5(folder / "x.h5", data, "entry/instrument/detector/data", **options)
    run = RunBuilder()
    claim = image_claim((16,), dtype_numpy="<u4")
    descriptor = run.descriptor({"img": claim, "other": claim})
    uid = run.resource("XSP3", root=str(folder), resource_path="x.h5")
    for number in range(EVENTS):
        keys = {"img": 3, "other": 1}
        run.event(descriptor, {k: run.datum(uid, frame=number, channel=c) for k, c in keys.items()})
    return run.stop()


def of_zarr(folder, version, data=DATA, **options):
    options = {"chunks": (1, *SHAPE), "write_empty_chunks": True, **options}
    if options.pop("write_empty_chunks"):
        options["config"] = {"write_empty_chunks": True}
    array = folder / "z.zarr" / "det"
    zarr.create_array(str(array), data=data, zarr_format=version, **options)
    return streamed(folder, "application/x-zarr", folder / "z.zarr", dataset="det")


def virtual(folder):
    """A master whose frames are in two files, each with chunks."""
    layout = h5py.VirtualLayout((EVENTS, *SHAPE), DATA.dtype)
    for number in range(2):
        part = DATA[3 * number : 3 * number + 3]
        write_hdf5(folder / f"{number}.h5", part, "d", compression="gzip")
        source = h5py.VirtualSource(f"{number}.h5", "d", part.shape)
        layout[3 * number : 3 * number + 3] = source
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset(AD_DATASET, layout)
    return datum_run(folder, EVENTS)[0]


def eiger(folder):
    """A master that links to files of frames, all of which are one cell."""
    for number in range(2):
        part = DATA[3 * number : 3 * number + 3]
        write_hdf5(folder / f"s_1_data_{number}.h5", part, "d", compression="bitshuffle")
    with h5py.File(folder / "s_1_master.h5", "w") as file:
        for number in range(2):
            link = h5py.ExternalLink(f"s_1_data_{number}.h5", "d")
            file[f"entry/data/data_{number:06d}"] = link
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim((EVENTS, *SHAPE))})
    resource = run.resource("AD_EIGER2", root=str(folder), resource_path="s")
    run.event(descriptor, {"img": run.datum(resource, seq_id=1)})
    return run.stop()


def with_all_else(folder):
    """A second stream, and stored values of every kind."""
    write_hdf5(folder / "a.h5", DATA[:, :2])
    run = RunBuilder(hints={"dimensions": [[["x"], "primary"]]})
    row = {"x": 0.5, "n": 1, "label": "a", "on": True, "v": [0.5, 0.5], "gap": 1}
    row |= {"ragged": [1, 2], "map": {"a": 1}, "a/b": 1.0}
    keys = {**row, "img": image_claim((1, 2, SHAPE[1]))}
    descriptor = run.descriptor({k: v for k, v in keys.items() if k != "map"} | {"map": "a"})
    level = run.descriptor({"level": 0.5, "note": "a"}, "dark/1")
    resource = run.resource("AD_HDF5", root=str(folder), resource_path="a.h5")
    for n in range(EVENTS):
        ragged, gap = list(range(n % 3)), None if n % 2 else n
        values = {**row, "x": n / 2, "label": f"größe {n}", "ragged": ragged, "gap": gap}
        run.event(descriptor, {**values, "img": run.datum(resource, point_number=n)})
        run.event(level, {"level": 7.5, "note": "ü" * n})
    return run.stop()


FORMS = {
    "contiguous": hdf5,
    "gzip": lambda f: hdf5(f, chunks=(1, *SHAPE), compression="gzip"),
    "shuffle": lambda f: hdf5(f, chunks=(1, *SHAPE), compression="gzip", shuffle=True),
    "fletcher32": lambda f: hdf5(f, chunks=(1, *SHAPE), compression="gzip", fletcher32=True),
    "lz4": lambda f: hdf5(f, chunks=(1, *SHAPE), **hdf5plugin.LZ4(nbytes=32)),
    "zstd": lambda f: hdf5(f, chunks=(1, *SHAPE), **hdf5plugin.Zstd()),
    "blosc": lambda f: hdf5(f, chunks=(1, *SHAPE), **hdf5plugin.Blosc(cname="lz4", shuffle=2)),
    "bitshuffle": lambda f: hdf5(f, chunks=(1, 5, 7), **hdf5plugin.Bitshuffle()),
    "bitshuffle of floats": lambda f: hdf5(
        f, DATA.astype("<f8"), chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(nelems=16, cname="zstd")
    ),
    "tiles": lambda f: hdf5(f, chunks=(1, 3, 4), compression="gzip"),
    "tiles over the edge": lambda f: hdf5(f, chunks=(2, 4, 5)),
    "more in the file": lambda f: hdf5(f, frames(9, SHAPE), chunks=(4, *SHAPE)),
    "big-endian": lambda f: hdf5(f, DATA.astype(">u2"), chunks=(1, *SHAPE), compression="gzip"),
    "zeros": lambda f: hdf5(f, np.zeros_like(DATA), chunks=(1, *SHAPE), compression="gzip"),
    "files": lambda f: in_files(f, (DATA[:2], DATA[2:3], DATA[3:])),
    "files of chunks": lambda f: in_files(f, (DATA[:2], DATA[2:]), compression="gzip"),
    "frames a point": lambda f: in_files(f, (DATA[:4], DATA[4:]), per_event=2),
    "chunks in a point": lambda f: in_files(f, (DATA,), per_event=3, chunks=(1, 3, 8)),
    "points in a chunk": lambda f: in_files(f, (DATA,), per_event=2, chunks=(4, *SHAPE)),
    "stream": lambda f: stream_run(f, EVENTS)[0],
    "stream of two frames": lambda f: stream_run(f, EVENTS, per_event=2)[0],
    "stream of chunks": lambda f: stream_of_chunks(f, chunks=(2, *SHAPE), compression="gzip"),
    "tiff": tiffs,
    "tiff, deflate": lambda f: tiffs(f, compression="zlib", byteorder=">"),
    "tiff pages": tiff_pages,
    "tiff tiles": lambda f: tiff_pages(f, compression="zstd", tile=(16, 16)),
    "npy": npys,
    "npy frames": npy_frames,
    "virtual": virtual,
    "lzf": lambda f: hdf5(f, DATA.astype("<f8"), chunks=(1, *SHAPE), compression="lzf"),
    "xspress3": xspress3,
    "xspress3, channels apart": lambda f: xspress3(f, chunks=(2, 1, 16), compression="gzip"),
    "xspress3, plain chunks": lambda f: xspress3(f, chunks=(4, 2, 16)),
    "zarr 2": lambda f: of_zarr(
        f,
        2,
        DATA.astype(">u2"),
        chunk_key_encoding={"name": "v2", "configuration": {"separator": "/"}},
    ),
    "zarr 2 of tiles": lambda f: of_zarr(f, 2, chunks=(2, 4, 5), compressors=numcodecs.GZip()),
    "zarr 3": lambda f: of_zarr(f, 3, DATA.astype("<f4")),
    "zarr 3 of tiles": lambda f: of_zarr(
        f, 3, chunks=(2, 4, 5), compressors=zarr.codecs.BloscCodec()
    ),
    "eiger": eiger,
    "all else": with_all_else,
}


ODD = {"all else": "ü %20#x?"}
"""Names of folders that mean something else in URLs."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of all forms, and the folder of their files."""
    folder = tmp_path_factory.mktemp("runs")
    with daskbroker.connect(folder / "store") as db:
        headers = {}
        for name, make in FORMS.items():
            files = folder / ODD.get(name, name)
            files.mkdir()
            documents = make(files)
            insert_all(db, documents)
            headers[name] = db[documents[0][1]["uid"]]
        yield folder, headers


READ = """
    import sys
    sys.modules["daskbroker"] = None  # an import of it fails
    import json, warnings
    import numpy as np
    warnings.simplefilter("ignore")
    import icechunk, xarray as xr
    from fsspec.implementations.reference import LazyReferenceMapper
    import daskbroker_codecs
    daskbroker_codecs.register()
    place, protocol, found = *sys.argv[1:], {}
    for number, (path, groups) in enumerate(json.load(open(f"{place}/asked.json"))):
        for group in groups:
            if path.endswith(".icechunk"):
                storage = icechunk.local_filesystem_storage(path)
                config = icechunk.Repository.fetch_config(storage)
                allowed = {prefix: None for prefix in config.virtual_chunk_containers}
                repo = icechunk.Repository.open(storage, authorize_virtual_chunk_access=allowed)
                store = repo.readonly_session("main").store
                data = xr.open_zarr(store, group=group, consolidated=False, chunks=None)
            elif group is None and path.endswith(".json"):
                data = xr.open_dataset(path, engine="kerchunk", chunks=None)
            else:
                fo = path if path.endswith(".json") else LazyReferenceMapper(path, engine="pyarrow")
                about = {"fo": fo, "remote_protocol": protocol}
                if protocol != "file":
                    about["remote_options"] = {"asynchronous": True}
                about = {"storage_options": about, "group": group}
                data = xr.open_zarr("reference://", chunks=None, **about)
            for name, variable in data.variables.items():
                values = variable.values
                found[f"{number}|{group}|{name}"] = values
                found[f"{number}|{group}|{name}|about"] = json.dumps(
                    [list(variable.dims), name in data.coords, str(variable.attrs.get("units"))]
                )
    np.savez(f"{place}/found.npz", **found)
"""


def read_elsewhere(folder, asked, protocol="file"):
    """What a process without daskbroker reads of exports: by number, group and variable."""
    (folder / "asked.json").write_text(json.dumps([[str(p), g] for p, g in asked]))
    script = folder / "read.py"
    script.write_text(textwrap.dedent(READ))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder), protocol],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz", allow_pickle=True) as found:
        return {name: found[name] for name in found.files}


def check_same(found, number, group, dataset):
    expected = daskbroker.savable(dataset).compute()
    names = {key.split("|")[2] for key in found if key.startswith(f"{number}|{group}|")}
    assert names == set(expected.variables)
    for name, variable in expected.variables.items():
        values = found[f"{number}|{group}|{name}"]
        dims, is_coordinate, units = json.loads(str(found[f"{number}|{group}|{name}|about"]))
        assert (tuple(dims), is_coordinate) == (variable.dims, name in expected.coords), name
        assert units == str(variable.attrs.get("units")), name
        wanted = variable.values
        if wanted.dtype.kind in "iufc":
            assert values.dtype.newbyteorder("=") == wanted.dtype.newbyteorder("="), name
            np.testing.assert_array_equal(values, wanted, err_msg=f"{number} {name}")
        elif wanted.dtype.kind == "M":
            assert (values == wanted).all(), name
        else:
            assert values.tolist() == wanted.tolist(), name


AS_PARQUET = ("tiles", "files", "all else")
AS_ICECHUNK = (
    "lzf", "zarr 2 of tiles", "zarr 3 of tiles",
    "shuffle", "fletcher32", "lz4", "zstd", "blosc", "bitshuffle", "tiles over the edge",
    "big-endian", "zeros", "frames a point", "tiff, deflate", "all else",
)  # fmt: skip
"""Each codec, each layout."""


def test_references_are_what_the_dataset_is_without_daskbroker(runs, tmp_path, monkeypatch):
    _, headers = runs
    monkeypatch.setattr("daskbroker.exporting.references.kerchunk.RECORDS", 4)
    asked, expected = [], []
    for name, header in headers.items():
        out = tmp_path / name.replace(" ", "-")
        groups = [stream.replace("/", "%2F") for stream in header.streams]
        paths = header.export(out, "references")
        if name in AS_ICECHUNK:
            paths += header.export(out, "icechunk")
        if name in AS_PARQUET:
            paths += header.export(out / "as.parq")
            paths += header.export(out / "one.json", stream="primary")
        for path in paths:
            own = [None] if path.name == "one.json" else groups
            asked.append((path, own))
            expected.append(dict(zip(own, header.streams)))
            expected[-1] = {g: header.dataset(s) for g, s in expected[-1].items()}
        assert not list(out.rglob(".*.part"))
    parts = tmp_path / "tiles/as.parq/primary/img"
    assert len(list(parts.iterdir())) == EVENTS * 4 / 4
    found = read_elsewhere(tmp_path, asked)
    for number, datasets in enumerate(expected):
        for group, dataset in datasets.items():
            check_same(found, number, group, dataset)


def test_no_frame_is_in_the_references(runs):
    _, headers = runs
    for name, header in headers.items():
        refs = header.references()["refs"]
        chunks = {key: value for key, value in refs.items() if key.startswith("primary/img/")}
        assert json.loads(refs["primary/img/.zarray"])["fill_value"] is None, name
        places = [value for key, value in chunks.items() if "/." not in key]
        assert places, name
        assert all(url.startswith("file:///") for url, _, _ in places), name


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_codecs_refuse_blocks_that_are_too_short(packing):
    """What a damaged block does not fill is memory that was never set."""
    pack = {"lz4": imagecodecs.lz4_encode, "zstd": imagecodecs.zstd_encode}[packing]
    block = pack(bytes(504))
    data = struct.pack(">QII", 512, 512, len(block)) + block
    with pytest.raises(ValueError, match="a block has 504 bytes, not 512"):
        decode_bitshuffle(data, 1, packing)
    if packing == "lz4":
        with pytest.raises(ValueError, match="a block has 504 bytes, not 512"):
            decode_lz4(data)


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_codecs_refuse_bitshuffle_whose_last_elements_are_cut_off(cut):
    """Fewer than eight elements follow the blocks as they are."""
    block = imagecodecs.lz4_encode(bytes(16))
    data = struct.pack(">QII", 20, 128, len(block)) + block + bytes([1, 2, 3, 4])
    assert decode_bitshuffle(data, 2, "lz4")[16:].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="the chunk is cut off after its blocks"):
        decode_bitshuffle(data[:-cut], 2, "lz4")


# -- names of files --------------------------------------------------------------------------


def urls_of(references):
    return {value[0] for value in references["refs"].values() if isinstance(value, list)}


def test_files_are_called_as_others_see_them(runs):
    folder, headers = runs
    header = headers["files"]
    to = {str(folder): "s3://all", str(folder / "files"): "s3://bucket/run/"}
    expected = {f"s3://bucket/run/{number}.h5" for number in range(3)}
    assert urls_of(header.references(to=to)) == expected
    assert urls_of(header.references(to={"/": "/mnt/"})) == {
        f"file:///mnt{folder}/files/{number}.h5" for number in range(3)
    }
    with pytest.raises(BadQuery, match=r"to= has no folder that contains '.*0\.h5'.*'/gpfs'"):
        header.references(to={"/gpfs": "s3://x"})


def test_root_map_is_applied(db, tmp_path):
    documents, _ = datum_run(tmp_path, place={"root": "/gone"})
    insert_all(db, documents)
    with pytest.raises(FillError, match="no such file"):
        db[-1].references()
    with pytest.warns(daskbroker.ExportWarning, match="'img' .* are left out: .*no such file"):
        assert "primary/x/.zarray" in db[-1].references(arrays="drop")["refs"]
    mapped = daskbroker.DataBroker(
        db.header_source, db.event_sources, root_map={"/gone": str(tmp_path)}
    )
    assert urls_of(mapped[-1].references()) == {f"file://{tmp_path}/a.h5"}


class Ranges(SimpleHTTPRequestHandler):
    """Answers requests for a range of bytes, as every server of large files does."""

    def do_GET(self):
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
        data = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def served(runs):
    """URL of the folder of all runs, as a server of the network has it."""
    folder, _ = runs
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_frames_are_read_over_http(runs, served, tmp_path):
    folder, headers = runs
    asked, expected = [], []
    for name in ("files", "tiff, deflate", "zarr 3 of tiles", "all else"):
        header = headers[name]
        for suffix in ("json", "parq") if name == "all else" else ("json",):
            path = tmp_path / f"{name}.{suffix}"
            header.export(path, stream="primary", to={str(folder): served})
            asked.append((path, [None]))
            expected.append(header.dataset("primary"))
            assert daskbroker.verify_references(path) == []
    with pytest.raises(BadQuery, match="without its port"):
        header.export(tmp_path / "run.icechunk", to={str(folder): served})
    found = read_elsewhere(tmp_path, asked, "http")
    for number, dataset in enumerate(expected):
        check_same(found, number, None, dataset)


# -- what references cannot tell -------------------------------------------------------------


def half_written(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        dataset = file.create_dataset(AD_DATASET, DATA.shape, "u2", chunks=(1, *SHAPE))
        dataset[:3] = DATA[:3]
    return datum_run(folder, EVENTS)[0]


def masked(folder):
    documents = hdf5(folder, chunks=(1, *SHAPE), compression="gzip")
    with h5py.File(folder / "a.h5", "r+") as file:
        file[AD_DATASET].id.write_direct_chunk((2, 0, 0), DATA[2].tobytes(), filter_mask=1)
    return documents


def of_differing_files(folder):
    documents = in_files(folder, (DATA[:3], DATA[3:]))
    (folder / "1.h5").unlink()
    write_hdf5(folder / "1.h5", DATA[3:], compression="gzip")
    return documents


def damaged(folder):
    documents = hdf5(folder, chunks=(1, *SHAPE), compression="gzip")
    with h5py.File(folder / "a.h5") as file:
        place = file[AD_DATASET].id.get_chunk_info(0)
    with (folder / "a.h5").open("r+b") as file:
        file.seek(place.byte_offset)
        file.write(b"\0" * place.size)
    return documents


def backwards(folder):
    hdf5(folder, chunks=(2, *SHAPE))
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim((1, *SHAPE))})
    resource = run.resource("AD_HDF5", root=str(folder), resource_path="a.h5")
    for number in reversed(range(EVENTS)):
        run.event(descriptor, {"img": run.datum(resource, point_number=number)})
    return run.stop()


def with_gaps(folder):
    documents = hdf5(folder, DATA.astype("f4"))
    for name, doc in documents:
        if name == "event" and doc["seq_num"] == 3:
            doc["data"].pop("img")
            doc["timestamps"].pop("img")
            doc["filled"] = {}
    return documents


REFUSED = {
    r"3 chunks of .* were never written": half_written,
    r"1 chunks of .*filter_mask": masked,
    r"0\.h5' has the chunk of values without chunks, and .*1\.h5' \(1, 6, 8\)": of_differing_files,
    r"chunk \(0, .* does not decode": damaged,
    r"have 2 frames, and consecutive events": backwards,
    r"chunks of .* hold 3 channels": lambda f: xspress3(f, chunks=(1, 3, 16), compression="gzip"),
    r"several chunks in a file, as shards": lambda f: of_zarr(f, 3, shards=(2, *SHAPE)),
    r"coded by lz4, which": lambda f: of_zarr(f, 2, compressors=numcodecs.LZ4()),
    r"1 chunks of .*det' were never written": lambda f: of_zarr(
        f, 3, np.where(np.arange(EVENTS)[:, None, None] == 2, 0, DATA), write_empty_chunks=False
    ),
    r"filter 32026 .*blosc2": lambda f: hdf5(f, chunks=(1, *SHAPE), **hdf5plugin.Blosc2()),
    r"filter 6 .*scale": lambda f: hdf5(f, chunks=(1, *SHAPE), scaleoffset=True),
    r"cannot locate frames": lambda f: squares_run(),
    r"compressed by LZW": lambda f: tiffs(f, compression="lzw"),
    r"divided into strips of 4 lines": lambda f: tiffs(f, compression="zlib", rowsperstrip=4),
    r"1 events have no frames|shown as float32": with_gaps,
    r"chunks have 4 frames, and events 3": lambda f: in_files(
        f, (DATA,), per_event=3, chunks=(4, *SHAPE)
    ),
    r"only a part of the frames": lambda f: streamed(
        f, "application/x-hdf5", write_hdf5(f / "s.h5", DATA, "d"), (1, 3, 8), dataset="d",
        slice=":, 0:3, :",
    ),
}  # fmt: skip


def test_what_one_grid_cannot_say_is_refused_by_name(db, tmp_path):
    for number, (words, make) in enumerate(REFUSED.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        documents = make(folder)
        insert_all(db, documents)
        header = db[documents[0][1]["uid"]]
        db.register_handler("SQUARES", Squares, overwrite=True)
        for format in ("references", "icechunk"):
            with pytest.raises(BadQuery, match=rf"stream 'primary': the frames of 'img'.*{words}"):
                header.export(tmp_path / "out", format)
        with pytest.warns(daskbroker.ExportWarning, match=words):
            left = header.references("primary", arrays="drop")["refs"]
        assert "img/.zarray" not in left
        assert "seq_num/.zarray" in left
    assert not (tmp_path / "out").exists()


def test_options_and_places(db, tmp_path):
    insert_all(db, stream_run(tmp_path)[0])
    header = db[-1]
    for options, words in (
        ({"format": "references", "fill": True}, "does not contain them; leave out fill="),
        ({"format": "netcdf", "to": {"/": "/"}}, "netcdf has no references"),
    ):
        with pytest.raises(BadQuery, match=words):
            header.export(tmp_path / "out", **options)
    for name in ("mine.parq", "mine.icechunk"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()
        with pytest.raises(BadQuery, match="exists and is not a"):
            header.export(tmp_path / name)
        assert (tmp_path / name / "kept").exists()


def test_many_chunks_make_parquet_files(db, tmp_path, monkeypatch):
    insert_all(db, hdf5(tmp_path, chunks=(1, *SHAPE), compression="gzip"))
    for most, suffix in ((5, ".parq"), (6, ".json")):
        monkeypatch.setattr("daskbroker.exporting.references.kerchunk.MOST_IN_JSON", most)
        (path,) = db[-1].export(tmp_path / "out", "references")
        assert path.suffix == suffix
        assert list((tmp_path / "out").iterdir()) == [path]  # the other form is gone


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_files_that_change(db, tmp_path):
    documents = hdf5(tmp_path, chunks=(1, *SHAPE), compression="gzip")
    insert_all(db, documents)
    (path,) = db[-1].export(tmp_path / "run.icechunk")
    (arrays,) = stream_arrays(db[-1], ExportOptions("references"))
    arrays.check_files()
    later = os.stat(tmp_path / "a.h5").st_mtime + 10
    os.utime(tmp_path / "a.h5", (later, later))
    with pytest.raises(StoreError, match="changed while references to it were made"):
        arrays.check_files()
    # icechunk 1 has no name for access to local files.
    local = getattr(icechunk.credentials, "LocalFileSystemAccess", None)
    allowed = {f"file://{tmp_path}/": local}
    storage = icechunk.local_filesystem_storage(str(path))
    repo = icechunk.Repository.open(storage, authorize_virtual_chunk_access=allowed)
    store = repo.readonly_session("main").store
    with xr.open_zarr(store, group="primary", consolidated=False, chunks=None) as found:
        assert found["x"].values.tolist() == db[-1].dataset()["x"].values.tolist()
        with pytest.raises(icechunk.IcechunkError, match="checksum"):
            found["img"].load()


def test_replaced_files_are_noticed_on_request(db, tmp_path, monkeypatch):
    """By the states of files that references have; kerchunk's readers look at none."""
    place, out = tmp_path / "a.h5", tmp_path / "out"
    insert_all(db, hdf5(tmp_path, chunks=(1, *SHAPE), compression="gzip"))
    run = CliRunner().invoke
    to = {str(tmp_path): str(tmp_path / "mirror")}
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/a.h5").write_bytes(place.read_bytes())  # with a time of its own
    written = [db[-1].export(out / name)[0] for name in ("r.json", "r.parq", "r.icechunk")]
    elsewhere = db[-1].export(out / "elsewhere.json", to=to)
    call = ["verify", *map(str, [*written, *elsewhere])]
    assert daskbroker.verify_references(db[-1].references()) == []
    assert run(app, call).stdout == "0 files changed since 4 references were made\n"
    kept = [list(db().export(tmp_path / name, name)) for name in ("references", "icechunk")]
    again = {"resume": True}
    assert not any(list(db().export(tmp_path / n, n, **again)) for n in ("references", "icechunk"))

    later = os.stat(place).st_mtime + 10
    os.utime(place, (later, later))
    done = run(app, call)
    assert done.exit_code == 1
    told = f"file://{place}: was changed since, its size is the same"
    assert done.stdout.splitlines()[:-1] == [f"changed: {path}: {told}" for path in written]
    line = json.loads(run(app, ["verify", "--json", str(written[0])]).stdout.splitlines()[0])
    assert (line["url"], line["references"]) == (f"file://{place}", str(written[0]))
    # An export that goes on makes them again.
    assert [list(db().export(tmp_path / n, n, **again)) for n in ("references", "icechunk")] == kept
    assert daskbroker.verify_references(kept[0][0]) == []

    with (tmp_path / "mirror/a.h5").open("ab") as file:
        file.write(b"more")
    place.unlink()
    ((url, reason),) = [(f.url, f.reason) for f in daskbroker.verify_references(elsewhere[0])]
    assert url == f"file://{tmp_path}/mirror/a.h5"
    assert " bytes, and had " in reason
    (gone,) = daskbroker.verify_references(written[1])
    assert str(gone) == f"file://{place}: there is no such file"
    with pytest.raises(BadQuery, match="is a folder that holds no references itself; name the f"):
        daskbroker.verify_references(tmp_path)
    for name, text in (("of-others.json", '{"version": 1, "refs": {}}'), ("none.json", "no")):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadQuery, match=f"{name}' do not tell the size and time"):
            daskbroker.verify_references(tmp_path / name)
    with pytest.raises(StoreError, match=r"missing\.json"):
        daskbroker.verify_references(tmp_path / "missing.json")


def test_the_command_line(runs, tmp_path):
    folder, headers = runs
    uid = headers["gzip"].uid
    call = ["export", str(tmp_path), "--db", str(folder / "store"), "--uid", uid]
    done = CliRunner().invoke(
        app, [*call, "--format", "references", "--to", f"{folder}=s3://bucket"]
    )
    assert done.exit_code == 0, done.output
    references = json.loads((tmp_path / f"{uid}.json").read_text())
    assert urls_of(references) == {"s3://bucket/gzip/a.h5"}
