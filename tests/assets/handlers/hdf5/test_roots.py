"""With readable roots HDF5 opens no file by itself, and all files inside of the roots are read."""

from __future__ import annotations

import os
import struct

import h5py
import numpy as np
import pytest
from h5py import h5d, h5l, h5p, h5s, h5t

from daskbroker.assets.files.readable import ReadableRoots
from daskbroker.assets.filling.open_handlers import open_handlers
from daskbroker.assets.handlers.hdf5.open_datasets import OpenDatasets
from daskbroker.core.errors import FillError
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

HDF5 = "application/x-hdf5"
SHAPE = (3, 6, 8)
POINT = [{"point_number": 0}]


@pytest.fixture
def places(tmp_path):
    """Make a readable folder, and one beside it with a file that may not be read."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    write_hdf5(outside / "secret.h5", frames(3))
    frames(3).tofile(outside / "secret.raw")
    return inside, outside


def virtual(file, name, source, dataset=AD_DATASET, shape=SHAPE):
    """Make a virtual dataset of another complete dataset."""
    layout = h5py.VirtualLayout(shape, np.uint16)
    layout[:] = h5py.VirtualSource(str(source), dataset, shape)
    file.create_virtual_dataset(name, layout)


def virtual_of_same_file(file, name, dataset):
    virtual(file, name, ".", dataset)


def raw(file, name, target):
    file.create_dataset(name, SHAPE, np.uint16, external=[(str(target), 0, h5py.h5f.UNLIMITED)])


def printf(file, name, source, dataset=AD_DATASET, frames=1):
    """A mapping of blocks to files by their number, as ``%b`` stands for it."""
    endless = h5s.UNLIMITED
    target = h5s.create_simple((0, 6, 8), (endless, 6, 8))
    target.select_hyperslab((0, 0, 0), (endless, 1, 1), (frames, 1, 1), (frames, 6, 8))
    plist = h5p.create(h5p.DATASET_CREATE)
    of_each = h5s.create_simple((frames, 6, 8))
    plist.set_virtual(target, str(source).encode(), dataset.encode(), of_each)
    group, last = name.rsplit("/", 1)
    where = file.require_group(group)
    space = h5s.create_simple((0, 6, 8), (endless, 6, 8))
    h5d.create(where.id, last.encode(), h5t.STD_U16LE, space, plist)


# -- ways out --------------------------------------------------------------------------------


def external_link(file, inside, outside):
    file[AD_DATASET] = h5py.ExternalLink(str(outside / "secret.h5"), AD_DATASET)


def relative_link(file, inside, outside):
    file[AD_DATASET] = h5py.ExternalLink("../out/secret.h5", AD_DATASET)


def linked_group(file, inside, outside):
    file["/entry/data"] = h5py.ExternalLink(str(outside / "secret.h5"), "/entry/data")


def soft_link_to_external_link(file, inside, outside):
    file["/hidden"] = h5py.ExternalLink(str(outside / "secret.h5"), "/entry")
    file["/entry"] = h5py.SoftLink("/hidden")


def soft_link_through_external_group(file, inside, outside):
    file["/hidden"] = h5py.ExternalLink(str(outside / "secret.h5"), "/")
    file["/entry/data"] = h5py.SoftLink("/./hidden//entry/data")


def chain_of_files(file, inside, outside):
    with h5py.File(inside / "b.h5", "w") as other:
        other["/x"] = h5py.ExternalLink(str(outside / "secret.h5"), AD_DATASET)
    with h5py.File(inside / "a.h5", "w") as other:
        other["/y"] = h5py.ExternalLink("b.h5", "/x")
    file[AD_DATASET] = h5py.ExternalLink("a.h5", "/y")


def symlink(file, inside, outside):
    (inside / "s.h5").symlink_to(outside / "secret.h5")
    file[AD_DATASET] = h5py.ExternalLink("s.h5", AD_DATASET)


def symlink_to_folder(file, inside, outside):
    (inside / "folder").symlink_to(outside)
    file[AD_DATASET] = h5py.ExternalLink("folder/secret.h5", AD_DATASET)


def base_name(file, inside, outside):
    """HDF5 looks for the last part of an absolute name that is not there."""
    (inside / "secret.h5").symlink_to(outside / "secret.h5")
    file[AD_DATASET] = h5py.ExternalLink("/nowhere/secret.h5", AD_DATASET)


def base_name_of_source(file, inside, outside):
    (inside / "secret.h5").symlink_to(outside / "secret.h5")
    virtual(file, AD_DATASET, "/nowhere/secret.h5")


def virtual_source(file, inside, outside):
    virtual(file, AD_DATASET, outside / "secret.h5")


def virtual_source_by_symlink(file, inside, outside):
    (inside / "s.h5").symlink_to(outside / "secret.h5")
    virtual(file, AD_DATASET, "s.h5")


def virtual_of_same_file_to_external_link(file, inside, outside):
    file["/x"] = h5py.ExternalLink(str(outside / "secret.h5"), AD_DATASET)
    virtual_of_same_file(file, AD_DATASET, "/x")


def virtual_of_same_file_through_soft_links(file, inside, outside):
    file["/x"] = h5py.ExternalLink(str(outside / "secret.h5"), "/entry")
    file["/y"] = h5py.SoftLink("/x")
    virtual_of_same_file(file, AD_DATASET, "/y/data/data")


def virtual_of_same_file_to_raw_storage(file, inside, outside):
    raw(file, "/x", outside / "secret.raw")
    virtual_of_same_file(file, AD_DATASET, "/x")


def virtual_of_same_file_to_virtual(file, inside, outside):
    virtual(file, "/x", outside / "secret.h5")
    virtual_of_same_file(file, AD_DATASET, "/x")


def virtual_of_virtual_of_other_file(file, inside, outside):
    with h5py.File(inside / "a.h5", "w") as other:
        virtual(other, "/x", outside / "secret.h5")
    virtual(file, AD_DATASET, "a.h5", "/x")


def virtual_source_behind_external_link(file, inside, outside):
    with h5py.File(inside / "a.h5", "w") as other:
        other["/x"] = h5py.ExternalLink(str(outside / "secret.h5"), AD_DATASET)
    virtual(file, AD_DATASET, "a.h5", "/x")


def source_named_as_itself(file, inside, outside):
    """A virtual dataset that names its own file in place of "."."""
    file["/x"] = h5py.ExternalLink(str(outside / "secret.h5"), AD_DATASET)
    virtual(file, AD_DATASET, "f.h5", "/x")


def raw_storage(file, inside, outside):
    raw(file, AD_DATASET, outside / "secret.raw")


def raw_storage_by_symlink(file, inside, outside):
    (inside / "secret.raw").symlink_to(outside / "secret.raw")
    raw(file, AD_DATASET, inside / "secret.raw")


def printf_name(file, inside, outside):
    for number in range(3):
        write_hdf5(outside / f"p_{number}.h5", frames(1, start=number))
    printf(file, AD_DATASET, outside / "p_%b.h5")


def printf_name_by_symlinks(file, inside, outside):
    for number in range(3):
        write_hdf5(outside / f"p_{number}.h5", frames(1, start=number))
        (inside / f"p_{number}.h5").symlink_to(outside / f"p_{number}.h5")
    printf(file, AD_DATASET, "p_%b.h5")


def printf_dataset(file, inside, outside):
    for number in range(3):
        file[f"/x_{number}"] = h5py.ExternalLink(str(outside / f"p_{number}.h5"), AD_DATASET)
        write_hdf5(outside / f"p_{number}.h5", frames(1, start=number))
    printf(file, AD_DATASET, ".", "/x_%b")


def doubled_percent(file, inside, outside):
    """``%%`` stands for ``%``, so the name that is written is not the one that is opened."""
    (inside / "a%%.h5").write_bytes(b"")
    (inside / "a%.h5").symlink_to(outside / "secret.h5")
    virtual(file, AD_DATASET, "a%%.h5")


WAYS_OUT = [
    external_link,
    relative_link,
    linked_group,
    soft_link_to_external_link,
    soft_link_through_external_group,
    chain_of_files,
    symlink,
    symlink_to_folder,
    base_name,
    base_name_of_source,
    virtual_source,
    virtual_source_by_symlink,
    virtual_of_same_file_to_external_link,
    virtual_of_same_file_through_soft_links,
    virtual_of_same_file_to_raw_storage,
    virtual_of_same_file_to_virtual,
    virtual_of_virtual_of_other_file,
    virtual_source_behind_external_link,
    source_named_as_itself,
    raw_storage,
    raw_storage_by_symlink,
    printf_name,
    printf_name_by_symlinks,
    printf_dataset,
    doubled_percent,
]
UNRESOLVED = [
    virtual_of_same_file_to_raw_storage,
    raw_storage,
    raw_storage_by_symlink,
    printf_name,
    printf_name_by_symlinks,
    printf_dataset,
    doubled_percent,
]
"""Refused wherever they lead to."""


@pytest.mark.parametrize("way", WAYS_OUT)
def test_every_way_out_is_refused(places, reader, way):
    inside, outside = places
    with h5py.File(inside / "f.h5", "w", libver="latest") as file:
        way(file, inside, outside)
    got = reader.resource("AD_HDF5", inside / "f.h5", POINT)
    np.testing.assert_array_equal(got, frames(1)[None])  # the trick is one
    open_handlers().clear()
    reader.roots = [inside]
    with pytest.raises(FillError, match=r"path '.*f\.h5'.*(secret|p_|x_|a%)") as caught:
        reader.resource("AD_HDF5", inside / "f.h5", POINT)
    assert "readable roots" in str(caught.value)


@pytest.mark.parametrize("way", [way for way in WAYS_OUT if way not in UNRESOLVED])
def test_the_same_ways_are_open_where_all_folders_are_roots(places, reader, way):
    inside, outside = places
    with h5py.File(inside / "f.h5", "w", libver="latest") as file:
        way(file, inside, outside)
    reader.roots = [inside, outside]
    got = reader.resource("AD_HDF5", inside / "f.h5", POINT)
    np.testing.assert_array_equal(got, frames(1)[None])


@pytest.mark.parametrize("variable", ["HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX"])
def test_folders_of_the_environment(places, reader, monkeypatch, variable):
    inside, outside = places
    monkeypatch.setenv(variable, str(outside))
    with h5py.File(inside / "f.h5", "w") as file:
        if variable == "HDF5_EXT_PREFIX":
            file[AD_DATASET] = h5py.ExternalLink("secret.h5", AD_DATASET)
        else:
            virtual(file, AD_DATASET, "secret.h5")
    reader.roots = [inside]
    with pytest.raises(FillError, match="outside the readable roots"):
        reader.resource("AD_HDF5", inside / "f.h5", POINT)
    reader.roots = [inside, outside]
    got = reader.resource("AD_HDF5", inside / "f.h5", POINT)
    np.testing.assert_array_equal(got, frames(1)[None])


def test_links_of_kinds_that_libraries_define(places, reader):
    """Written as an external link; then the kind in the file is made another one."""
    inside, _ = places
    with h5py.File(inside / "f.h5", "w") as file:  # of the oldest format, without checksums
        file["mark_of_link"] = h5py.ExternalLink("secret.h5", "/x")
    data = (inside / "f.h5").read_bytes()
    place = data.index(b"mark_of_link")
    head = data.rindex(struct.pack("B", h5l.TYPE_EXTERNAL), 0, place)
    changed = bytearray(data)
    changed[head] = 200
    (inside / "f.h5").write_bytes(changed)
    reader.roots = [inside]
    with pytest.raises(FillError, match="libraries define themselves"):
        reader.stream(HDF5, inside / "f.h5", (1,), [0], dataset="/mark_of_link")


@pytest.mark.parametrize("name", ["/a", "/x/a", "/self", "/far"])
def test_links_that_lead_on_and_on(places, reader, name):
    inside, _ = places
    with h5py.File(inside / "f.h5", "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/a")
        file["x"] = h5py.SoftLink("/x/x")
        file["self"] = h5py.ExternalLink("f.h5", "/self")
        file["far"] = h5py.ExternalLink("g.h5", "/far")
    with h5py.File(inside / "g.h5", "w") as file:
        file["far"] = h5py.ExternalLink("f.h5", "/far")
    reader.roots = [inside]
    with pytest.raises(FillError, match="links lead from one to the next"):
        reader.stream(HDF5, inside / "f.h5", (1,), [0], dataset=name)


def test_virtual_datasets_that_lead_on_and_on(places, reader):
    inside, _ = places
    with h5py.File(inside / "f.h5", "w") as file:
        virtual_of_same_file(file, "/a", "/b")
        virtual_of_same_file(file, "/b", "/a")
    reader.roots = [inside]
    with pytest.raises(FillError, match="virtual datasets refer from one to the next"):
        reader.stream(HDF5, inside / "f.h5", (1, 6, 8), [0], dataset="/a")


def test_a_name_with_a_null(places, reader):
    inside, _ = places
    write_hdf5(inside / "f.h5", frames(2))
    reader.roots = [inside]
    with pytest.raises(FillError, match="null character"):
        reader.stream(HDF5, inside / "f.h5", (1, 6, 8), [0], dataset=AD_DATASET + "\0x")


def test_a_link_that_comes_into_the_way(places, monkeypatch):
    """Between checking a path and opening it."""
    inside, outside = places
    path = write_hdf5(inside / "f.h5", frames(2))
    check = ReadableRoots.check

    def swap(self, name):
        real = check(self, name)
        path.unlink()
        path.symlink_to(outside / "secret.h5")
        return real

    monkeypatch.setattr(ReadableRoots, "check", swap)
    with pytest.raises(FillError, match=r"secret\.h5.*outside the readable roots"):
        OpenDatasets(str(path), swmr=False).get(AD_DATASET, ReadableRoots.of([inside]))


def test_another_file_that_comes_into_the_way(places, monkeypatch):
    """Between opening it to see what it is, and HDF5's opening it."""
    inside, outside = places
    path = write_hdf5(inside / "f.h5", frames(2))
    opened = ReadableRoots.open

    def swap(self, name):
        file = opened(self, name)
        path.unlink()
        path.symlink_to(outside / "secret.h5")
        return file

    monkeypatch.setattr(ReadableRoots, "open", swap)
    with pytest.raises(FillError, match=r"replaced|outside"):
        OpenDatasets(str(path), swmr=False).get(AD_DATASET, ReadableRoots.of([inside]))


# -- what goes on working --------------------------------------------------------------------


def eiger_by_links(folder, count=3):
    """A master whose data files are linked one by one."""
    for number in range(count):
        write_hdf5(
            folder / f"scan_data_{number + 1:06d}.h5",
            frames(4, start=4 * number),
            chunks=(1, 6, 8),
            compression="bitshuffle",
        )
    with h5py.File(folder / "scan_master.h5", "w") as file:
        for number in range(1, count + 1):
            file[f"/entry/data/data_{number:06d}"] = h5py.ExternalLink(
                f"scan_data_{number:06d}.h5", AD_DATASET
            )
    return folder / "scan_master.h5"


def test_eiger_master_of_links(places, reader):
    inside, _ = places
    master = eiger_by_links(inside)
    reader.roots = [inside]
    for number in (1, 2, 3):
        name = f"/entry/data/data_{number:06d}"
        with h5py.File(master) as file:
            expected = file[name][:]
        datums = [{"dataset": name, "frame": frame} for frame in (3, 0, 1)]
        got = reader.resource("AD_HDF5_SWMR_STREAM", master, datums)
        np.testing.assert_array_equal(got[:, 0], expected[[3, 0, 1]])


def over_files(folder, file):
    """A master with one virtual dataset over the data files, as some Eigers write."""
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((12, 6, 8), np.uint16)
    for n in range(3):
        name = f"scan_data_{n + 1:06d}.h5"
        layout[4 * n : 4 * n + 4] = h5py.VirtualSource(name, AD_DATASET, (4, 6, 8))
    return layout


def over_links(folder, file):
    """A master with a virtual dataset over the links in the master itself."""
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((12, 6, 8), np.uint16)
    for n in range(3):
        file[f"/links/{n}"] = h5py.ExternalLink(f"scan_data_{n + 1:06d}.h5", AD_DATASET)
        layout[4 * n : 4 * n + 4] = h5py.VirtualSource(".", f"/links/{n}", (4, 6, 8))
    return layout


def interleaved(folder, file):
    """Frames of several writers in turn."""
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((12, 6, 8), np.uint16)
    for n in range(3):
        name = f"scan_data_{n + 1:06d}.h5"
        layout[n::3] = h5py.VirtualSource(name, AD_DATASET, (4, 6, 8))
    return layout


def with_gaps(folder, file):
    """Modules of a detector, with gaps between them that have the fill value."""
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((4, 20, 8), np.uint16)
    for n in range(3):
        name = f"scan_data_{n + 1:06d}.h5"
        layout[:, 7 * n : 7 * n + 6, :] = h5py.VirtualSource(name, AD_DATASET, (4, 6, 8))
    return layout


def parts_of_sources(folder, file):
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((6, 3, 4), np.uint16)
    for n in range(3):
        source = h5py.VirtualSource(f"scan_data_{n + 1:06d}.h5", AD_DATASET, (4, 6, 8))
        layout[2 * n : 2 * n + 2] = source[1:4:2, ::2, 4:]
    return layout


def frame_by_frame(folder, file):
    """Files of one frame without an axis of frames."""
    layout = h5py.VirtualLayout((5, 6, 8), np.uint16)
    for n in range(5):
        write_hdf5(folder / f"one_{n}.h5", frames(5)[n], "/frame")
        layout[n] = h5py.VirtualSource(f"one_{n}.h5", "/frame", (6, 8))
    return layout


def picked_rows(folder, file):
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((9, 6, 8), np.uint16)
    source = h5py.VirtualSource("scan_data_000001.h5", AD_DATASET, (4, 6, 8))
    layout[[0, 3, 4, 8]] = source
    return layout


def of_virtual(folder, file):
    """A virtual dataset over virtual datasets of several files."""
    inner = folder / "inner.h5"
    with h5py.File(inner, "w") as other:
        other.create_virtual_dataset("/v", interleaved(folder, other))
    layout = h5py.VirtualLayout((24, 6, 8), np.uint16)
    layout[:12] = h5py.VirtualSource("inner.h5", "/v", (12, 6, 8))
    layout[12:] = h5py.VirtualSource("inner.h5", "/v", (12, 6, 8))
    return layout


def of_other_dtype(folder, file):
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((4, 6, 8), ">f4")
    layout[:] = h5py.VirtualSource("scan_data_000001.h5", AD_DATASET, (4, 6, 8))
    return layout


def overlapping(folder, file):
    """A virtual dataset with overlapping mappings, of which the last one counts."""
    eiger_by_links(folder)
    layout = h5py.VirtualLayout((4, 6, 8), np.uint16)
    for n in range(3):
        name = f"scan_data_{n + 1:06d}.h5"
        layout[n : n + 2] = h5py.VirtualSource(name, AD_DATASET, (4, 6, 8))[:2]
    return layout


VIRTUAL = [
    over_files,
    over_links,
    interleaved,
    with_gaps,
    parts_of_sources,
    frame_by_frame,
    picked_rows,
    of_virtual,
    of_other_dtype,
    overlapping,
]
REGIONS = [
    (),
    (slice(1, 3),),
    (slice(None), 2),
    (2, slice(None, None, -2)),
    (np.array([2, 0, 0]), np.array([1, 3])),
    (slice(0, 0),),
]


@pytest.mark.parametrize("make", VIRTUAL)
@pytest.mark.parametrize("fill", [0, 7])
def test_virtual_datasets_as_h5py_reads_them(places, reader, make, fill):
    inside, _ = places
    with h5py.File(inside / "f.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("/v", make(inside, file), fillvalue=fill)
    with h5py.File(inside / "f.h5") as file:
        expected = file["/v"][:]
    assert len(np.unique(expected)) > 20
    reader.roots = [inside]
    rows = np.array([1, len(expected) - 1, 0, 1])
    for events in (range(len(expected)), rows):
        for roi in REGIONS:
            wanted = expected[np.asarray(events)]
            for axis, item in reversed(list(enumerate(roi, 1))):
                wanted = wanted[(slice(None),) * axis + (item,)]
            got = reader.stream(
                HDF5, inside / "f.h5", expected.shape[1:], events, roi, dataset="/v"
            )
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == expected.dtype.newbyteorder("=")


def test_a_source_that_is_missing_is_an_error_for_its_part_only(places, reader):
    """HDF5 would give fill values."""
    inside, _ = places
    with h5py.File(inside / "f.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("/v", over_files(inside, file))
    (inside / "scan_data_000002.h5").unlink()
    reader.roots = [inside]
    read = lambda rows: reader.stream(HDF5, inside / "f.h5", (6, 8), rows, dataset="/v")  # noqa: E731
    np.testing.assert_array_equal(read([0, 11]), frames(12)[[0, 11]])
    with pytest.raises(FillError, match=r"scan_data_000002\.h5', which is not there"):
        read([5])
    write_hdf5(inside / "scan_data_000002.h5", frames(4, start=4))
    np.testing.assert_array_equal(read([5]), frames(12)[[5]])


def test_a_source_that_is_too_short(places, reader):
    inside, _ = places
    write_hdf5(inside / "s.h5", frames(2))
    with h5py.File(inside / "f.h5", "w") as file:
        layout = h5py.VirtualLayout(SHAPE, np.uint16)
        layout[:] = h5py.VirtualSource("s.h5", AD_DATASET, (5, 6, 8))[:3]
        file.create_virtual_dataset("/v", layout)
    reader.roots = [inside]
    read = lambda rows: reader.stream(HDF5, inside / "f.h5", (6, 8), rows, dataset="/v")  # noqa: E731
    with pytest.raises(FillError, match="too small for position 2"):
        read([0, 2])
    np.testing.assert_array_equal(read([1, 0]), frames(2)[[1, 0]])


def test_values_that_the_virtual_dataset_cannot_hold(places, reader):
    inside, _ = places
    write_hdf5(inside / "s.h5", frames(3) + 300)
    with h5py.File(inside / "f.h5", "w") as file:
        layout = h5py.VirtualLayout(SHAPE, np.uint8)
        layout[:] = h5py.VirtualSource("s.h5", AD_DATASET, SHAPE)
        file.create_virtual_dataset("/v", layout)
    reader.roots = [inside]
    with pytest.raises(FillError, match="values of uint16 that uint8 cannot hold"):
        reader.stream(HDF5, inside / "f.h5", (6, 8), [0], dataset="/v")


@pytest.mark.parametrize("shape", [(144,), (3, 7, 8)])
def test_mappings_to_another_shape_are_refused(places, reader, shape):
    inside, _ = places
    write_hdf5(inside / "s.h5", np.zeros(shape, np.uint16), "/x")
    with h5py.File(inside / "f.h5", "w") as file:
        layout = h5py.VirtualLayout(SHAPE, np.uint16)
        layout[:] = h5py.VirtualSource("s.h5", "/x", (144,) if shape == (144,) else SHAPE)
        file.create_virtual_dataset("/v", layout)
    reader.roots = [inside]
    with pytest.raises(FillError, match=r"'/x' of 's.h5', of the shape .*, is mapped to a part"):
        reader.stream(HDF5, inside / "f.h5", (6, 8), [0], dataset="/v")


def test_a_symlink_inside_finds_what_lies_beside_either(places, reader):
    """HDF5 looks beside the name it was given, then beside the file itself."""
    inside, _ = places
    (inside / "far").mkdir()
    write_hdf5(inside / "beside_name.h5", frames(2))
    write_hdf5(inside / "far" / "beside_file.h5", frames(2))
    with h5py.File(inside / "far" / "f.h5", "w") as file:
        file["/a"] = h5py.ExternalLink("beside_name.h5", AD_DATASET)
        file["/b"] = h5py.ExternalLink("beside_file.h5", AD_DATASET)
    (inside / "f.h5").symlink_to("far/f.h5")
    for reader.roots in (None, [inside]):
        for name in ("/a", "/b"):
            got = reader.stream(HDF5, inside / "f.h5", (6, 8), [1], dataset=name)
            np.testing.assert_array_equal(got, frames(2)[[1]])


@pytest.mark.parametrize("rooted", [False, True])
def test_files_that_grow_behind_a_master(places, reader, rooted):
    """By a link, by a virtual dataset, and by one that is mapped without end."""
    inside, _ = places
    reader.roots = [inside] if rooted else None
    endless = h5s.UNLIMITED
    with h5py.File(inside / "data.h5", "w", libver="latest") as writer:
        dataset = writer.create_dataset(
            "/d", (1, 6, 8), np.uint16, chunks=(1, 6, 8), maxshape=(None, 6, 8)
        )
        dataset[:] = frames(1)
        writer.swmr_mode = True
        with h5py.File(inside / "master.h5", "w", libver="latest") as file:
            file["/link"] = h5py.ExternalLink("data.h5", "/d")
            plist = h5p.create(h5p.DATASET_CREATE)
            space = h5s.create_simple((0, 6, 8), (endless, 6, 8))
            for_both = space.copy()
            for_both.select_hyperslab((0, 0, 0), (endless, 1, 1), (1, 6, 8), (1, 6, 8))
            plist.set_virtual(for_both, b"data.h5", b"/d", for_both)
            h5d.create(file.id, b"endless", h5t.STD_U16LE, space, plist)
        for total in (1, 2, 5, 9):
            dataset.resize(total, axis=0)
            dataset[:] = frames(total)
            dataset.flush()
            for name in ("/link", "/endless") if rooted else ("/link",):
                got = reader.stream(HDF5, inside / "master.h5", (6, 8), range(total), dataset=name)
                np.testing.assert_array_equal(got, frames(total))
                with pytest.raises(FillError, match="too few"):
                    reader.stream(HDF5, inside / "master.h5", (6, 8), [total], dataset=name)


def test_no_other_file_is_even_opened(places, reader):
    """By anyone: an access time would tell, an open one does."""
    inside, outside = places
    with h5py.File(inside / "f.h5", "w", libver="latest") as file:
        printf(file, AD_DATASET, outside / "p_%b.h5")
        virtual(file, "/v", outside / "secret.h5")
    os.unlink(outside / "secret.h5")
    os.mkfifo(outside / "secret.h5")  # would hang
    os.mkfifo(outside / "p_0.h5")
    reader.roots = [inside]
    for name in (AD_DATASET, "/v"):
        with pytest.raises(FillError, match="readable roots"):
            reader.stream(HDF5, inside / "f.h5", (6, 8), [0], dataset=name)
