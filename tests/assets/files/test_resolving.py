"""Where files are, from documents of all ages."""

from __future__ import annotations

import os
import pickle

import pytest

from daskbroker.assets.files.readable import ReadableRoots
from daskbroker.assets.files.resolving import resolve
from daskbroker.core.documents import Document
from daskbroker.core.errors import FillError


def legacy(root, path, semantics=None, **more):
    doc = {"uid": "u", "spec": "X", "root": root, "resource_path": path, "resource_kwargs": {}}
    return doc | ({"path_semantics": semantics} if semantics else {}) | more


def uri(text):
    return {"uid": "u", "mimetype": "application/x-hdf5", "uri": text, "parameters": {}}


@pytest.mark.parametrize(
    ("doc", "root_map", "path"),
    [
        (legacy("/data", "a/f.h5", "posix"), {}, "/data/a/f.h5"),
        (legacy("/data/", "f.h5"), {}, "/data/f.h5"),
        (legacy("/data", "folder/"), {}, "/data/folder/"),
        (legacy("/", "", "posix"), {}, "/"),
        (legacy("", "/data/f.h5"), {}, "/data/f.h5"),
        (legacy("/data", "back\\slash"), {}, "/data/back\\slash"),
        (legacy("6dd0c365", "5357d9"), {"6dd0c365": "/pack/files"}, "/pack/files/5357d9"),
        (legacy("/data", "a/f"), {"/data": "/mnt/new"}, "/mnt/new/a/f"),
        (legacy("/data/sub", "a/f"), {"/data": "/mnt/new"}, "/mnt/new/sub/a/f"),
        (legacy("/data/sub", "f"), {"/data": "/m", "/data/sub": "/s"}, "/s/f"),
        (legacy("/database", "f"), {"/data": "/m"}, "/database/f"),
        (legacy("", "/data/a/f"), {"/data": "/mnt"}, "/mnt/a/f"),
        (legacy("C:\\data", "sub\\f.h5", "windows"), {"C:\\data": "/mnt"}, "/mnt/sub/f.h5"),
        (legacy("C:/Data", "sub\\f.h5", "windows"), {"c:\\data": "/mnt"}, "/mnt/sub/f.h5"),
        (legacy("", "C:\\data\\f.h5", "windows"), {"C:\\data": "/mnt"}, "/mnt/f.h5"),
        (legacy("/data", "sub\\f.h5", "windows"), {}, "/data/sub/f.h5"),
        (uri("file://localhost/data/f.h5"), {}, "/data/f.h5"),
        (uri("file://localhost//data/f.h5"), {}, "/data/f.h5"),
        (uri("file:///data/f.h5"), {}, "/data/f.h5"),
        (uri("file:/data/f.h5"), {}, "/data/f.h5"),
        (uri("FILE://LOCALHOST/data/tiffs/"), {}, "/data/tiffs/"),
        (uri("file:///data/a%20b%23%25.h5"), {}, "/data/a b#%.h5"),
        (uri("file:///data/a#1?.h5"), {}, "/data/a#1?.h5"),
        (uri("file:///data/%C3%BC"), {}, "/data/ü"),
        (uri("file:///data/f.h5"), {"/data": "/mnt"}, "/mnt/f.h5"),
        (uri("file:///C:/data/f.h5"), {"C:\\data": "/mnt"}, "/mnt/f.h5"),
    ],
)
def test_paths(doc, root_map, path):
    found = resolve(doc, root_map=root_map)
    assert found.path == path
    assert found.paths == (path,)


def test_a_path_that_begins_with_a_slash_is_absolute_or_below_the_root(tmp_path):
    (tmp_path / "f.h5").write_bytes(b"")
    doc = legacy(str(tmp_path), "/f.h5")
    assert resolve(doc).paths == ("/f.h5", f"{tmp_path}/f.h5")
    assert resolve(doc).path == f"{tmp_path}/f.h5"
    (tmp_path / "g").mkdir()
    absolute = legacy(str(tmp_path / "g"), str(tmp_path / "f.h5"))
    assert resolve(absolute).path == f"{tmp_path}/f.h5"
    stem = legacy(str(tmp_path), "/what_names_begin_with")
    assert resolve(stem).path == f"{tmp_path}/what_names_begin_with"
    assert resolve(legacy("/no/such/root", "/nor/this")).path == "/nor/this"


def test_relative_paths_count_from_where_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readable = ReadableRoots.of(["files"])
    found = resolve(legacy("hash", "f"), root_map={"hash": "files"}, readable=readable)
    monkeypatch.chdir("/")
    assert found.path == os.path.join(tmp_path, "files", "f")
    assert found.readable.roots == (str(tmp_path / "files"),)


@pytest.mark.parametrize(
    ("doc", "message"),
    [
        (uri("s3://bucket/f.h5"), "'s3://bucket/f.h5' is not a file"),
        (uri("https://user:secret@host/f.h5"), "'https://host/f.h5' is not a file"),
        (uri("file://otherhost/f.h5"), "'file://otherhost/f.h5' is not a file"),
        (uri("file:///a%00b"), "null character"),
        (legacy("/a", "b\0c"), "null character"),
        (legacy("C:\\data", "f.h5", "windows"), r"Windows path; set root_map=.*C:\\\\data"),
        (legacy("/a", "b") | {"spec": ""}, "neither 'spec' nor 'mimetype'"),
        (legacy("/a", "b") | {"resource_kwargs": ["x"]}, "resource_kwargs must be a mapping"),
        (uri("file:///a.h5") | {"parameters": b"x"}, "parameters must be a mapping"),
    ],
)
def test_what_cannot_be_a_path_here(doc, message):
    with pytest.raises(FillError, match=rf"run 'r': (stream_)?resource 'u': .*{message}") as caught:
        resolve(doc, where="run 'r'")
    assert "secret" not in str(caught.value)


def test_specs_and_parameters():
    stream = uri("file:///f") | {"data_key": "img", "parameters": {"dataset": "/d"}}
    found = resolve(stream | {"mimetype": "Multipart/Related; type=image/tiff"})
    assert found.spec == "multipart/related;type=image/tiff"
    assert (found.stream, found.data_key, found.kwargs) == (True, "img", {"dataset": "/d"})
    plain = resolve(legacy("/", "f", resource_kwargs={"n": 1}, id="legacy"))
    assert (plain.stream, plain.spec, plain.kwargs) == (False, "X", {"n": 1})


def test_stream_resources_from_before_mimetypes():
    old = legacy("/data", "f.h5", spec="AD_HDF5_SWMR_STREAM", resource_kwargs={"path": "/d"})
    assert resolve(old, stream=True).spec == "application/x-hdf5"
    assert resolve(old, stream=True).kwargs == {"path": "/d"}
    assert resolve(old).spec == "AD_HDF5_SWMR_STREAM"


def test_it_is_small_and_plain():
    doc = Document(legacy("/data", "f.h5", resource_kwargs=Document({"a": Document({"b": [1]})})))
    found = resolve(doc, readable=ReadableRoots.of(["/data"]))
    text = pickle.dumps(found)
    assert len(text) < 500
    assert pickle.loads(text) == found
    assert type(found.kwargs["a"]) is dict
