"""Recorded documents in files of every known form, whole and damaged."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import re
import socket
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import msgpack
import numpy as np
import pytest

import daskbroker
from daskbroker.core.errors import BadRecording
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.work import recordings
from daskbroker.work.ingest import ingest
from daskbroker.work.recordings import find_recordings, read_recording

DOCUMENTS = make_run(3, sample={"name": "größe"})
RUN = DOCUMENTS[0][1]["uid"]
TEXT = json.dumps(DOCUMENTS, ensure_ascii=False).encode()
LINES = b"".join(json.dumps(pair).encode() + b"\n" for pair in DOCUMENTS)


def as_numpy(value):
    """As msgpack-numpy writes arrays and scalars."""
    if isinstance(value, np.ndarray):
        marks = {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape}
        return {**marks, b"data": value.tobytes()}
    return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}


PACKED = b"".join(msgpack.packb([name, doc]) for name, doc in DOCUMENTS)
FORMS = {
    "array": TEXT,
    "indented": json.dumps(DOCUMENTS, indent=1).encode(),
    "byte order mark": b"\xef\xbb\xbf" + TEXT,
    "lines": LINES,
    "lines of mappings": b"\n\n".join(
        json.dumps({"name": name, "doc": doc}).encode() for name, doc in DOCUMENTS
    ),
    "list of runs": json.dumps([DOCUMENTS]).encode(),
    "labelled runs": json.dumps({"first": {"again": DOCUMENTS}}).encode(),
    "msgpack": PACKED,
    "msgpack in one": msgpack.packb(DOCUMENTS),
    "gzip": gzip.compress(LINES),
    "gzip of gzip": gzip.compress(gzip.compress(TEXT)),
    "gzip of msgpack": gzip.compress(PACKED),
}


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_documents(tmp_path, form):
    found = list(read_recording(write(tmp_path / "any-name", FORMS[form])))
    assert [(item.name, item.doc) for item in found] == [(n, dict(d)) for n, d in DOCUMENTS]
    assert {item.run for item in found} == {RUN}


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_zip_gives_the_documents_of_its_recordings(tmp_path, method):
    path = tmp_path / "runs.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/run.json", TEXT)
        archive.writestr("a/readme.txt", "no recording")
        archive.writestr("a/external_files/frame.json", "{}")
        archive.writestr("b.jsonl.gz", gzip.compress(LINES))
    found = list(read_recording(path))
    assert len(found) == 2 * len(DOCUMENTS)
    assert {item.where.split("!")[1].split(",")[0] for item in found} == {
        "a/run.json",
        "b.jsonl.gz",
    }


def test_arrays_of_msgpack_numpy(tmp_path):
    doc = {"uid": "u", "a": np.arange(6, dtype=">i2").reshape(2, 3), "b": np.float32(0.5)}
    data = msgpack.packb(["event", doc], default=as_numpy)
    (item,) = read_recording(write(tmp_path / "x", data))
    assert item.doc["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert item.doc["b"] == 0.5


@pytest.mark.parametrize(
    "mark",
    [
        {"nd": True, "type": "O", "data": b"\x80\x04N.", "shape": [1]},
        {"nd": True, "type": "<f4", "data": b"1234"},
        {"nd": False, "type": "<f4", "data": b""},
        {"nd": True, "type": "<f4", "data": b"1234", "shape": [7]},
        {"nd": True, "type": "no type", "data": b"1234", "shape": [1]},
        {"nd": True, "type": "<f4", "data": "text", "shape": [1]},
    ],
    ids=repr,
)
def test_what_only_looks_like_an_array_is_refused(tmp_path, mark):
    data = PACKED + msgpack.packb(["event", {"uid": "u", "a": mark}])
    with pytest.raises(BadRecording, match=r"item 7.*msgpack"):
        list(read_recording(write(tmp_path / "x", data)))


def test_a_masked_array_without_its_mask_is_refused(tmp_path):
    values = {"nd": True, "type": "<f8", "data": bytes(16), "shape": [2]}
    data = msgpack.packb(["event", {"uid": "u", "a": {**values, "data": values}}])
    with pytest.raises(BadRecording, match=r"item 1: .*a masked array, .*without its mask"):
        list(read_recording(write(tmp_path / "x", data)))


def damaged(data, choose):
    data = bytearray(data)
    place = choose.randrange(len(data))
    kind = choose.randrange(4)
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        return bytes(data[:place] + data[place + choose.randrange(1, 50) :])
    if kind == 2:
        return bytes(data[:place] + choose.randbytes(10) + data[place:])
    for _ in range(choose.choice([1, 3, 30])):
        data[choose.randrange(len(data))] = choose.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("form", ["array", "lines", "msgpack", "gzip", "zip", "zip of lzma"])
def test_damaged_files_give_documents_or_one_error(tmp_path, form):
    if form.startswith("zip"):
        method = zipfile.ZIP_LZMA if "lzma" in form else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(tmp_path / "whole.zip", "w", method) as archive:
            archive.writestr("run.jsonl", LINES)
        whole = (tmp_path / "whole.zip").read_bytes()
    else:
        whole = FORMS[form]
    choose = random.Random(form)
    for _ in range(150):
        path = write(tmp_path / "damaged", damaged(whole, choose))
        try:
            for item in read_recording(path):
                assert isinstance(item.name, str)
                assert isinstance(item.doc, dict)
        except BadRecording as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("form", ["array", "lines", "msgpack", "gzip"])
def test_a_truncated_file_gives_what_is_whole_and_says_where_it_ends(tmp_path, form):
    found = []
    path = write(tmp_path / "run", FORMS[form][:-15])
    with pytest.raises(BadRecording, match=r"run.*(truncated|damaged)"):
        collect(read_recording(path), found)
    assert_documents_equal(DOCUMENTS[: len(found)], found)


def test_msgpack_that_ends_between_two_keys_is_truncated(tmp_path):
    whole = msgpack.packb(["start", {"a": 1, "b": 2}])
    with pytest.raises(BadRecording, match="truncated"):
        list(read_recording(write(tmp_path / "x", whole[:-3])))


def collect(items, found):
    for item in items:
        found.append((item.name, item.doc))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "msgpack"),
        (b"%PDF-1.7", "neither JSON"),
        (b"[1, 2]", "is not a document"),
        (b'{"a": {"b": 1}}', "is not a document"),
        (b'["event", {"uid": "\xff"}]\n', "is not UTF-8"),
        (b"[" * 100_000, "damaged JSON"),
        (b'[["start", {}], ["event"', "truncated JSON"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, data, message):
    with pytest.raises(BadRecording, match=message):
        list(read_recording(write(tmp_path / "x", data)))


def test_a_file_that_unpacks_out_of_proportion_is_refused(tmp_path):
    bomb = gzip.compress(gzip.compress(b'["start", {"a": "' + b"0" * 90_000_000 + b'"}]'))
    with pytest.raises(BadRecording, match="unpacks to more than"):
        list(read_recording(write(tmp_path / "x", bomb)))


def test_templates(tmp_path):
    text = '["start", {"uid": "{{ uuid }}", "time": 1, "root": "{{root_path}}", "x": "{{ x }}"}]\n'
    path = write(tmp_path / "x", text.encode())
    first, again = (next(iter(read_recording(path))).doc for _ in range(2))
    assert first == again
    assert len(first["uid"]) == 23
    assert first["root"] == tmp_path.as_posix()
    assert first["x"] == "{{ x }}"
    named = next(iter(read_recording(path, {"x": 'a"b', "uuid": "u"}))).doc
    assert (named["uid"], named["x"]) == ("u", 'a"b')


def test_finding(tmp_path):
    for name in ("a.json", "b.jsonl.gz", "c.zip", "sub/d.msgpack", "sub/e.ndjson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("readme.json", ".hidden.json", "f.h5", "manifest.json", "catalog.json"):
        (tmp_path / name).touch()
    for folder in (".git", "external_files"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "g.json").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_recordings(tmp_path)]
    assert found == ["a.json", "b.jsonl.gz", "c.zip", "sub/d.msgpack", "sub/e.ndjson"]
    assert find_recordings(tmp_path / "f.h5") == [tmp_path / "f.h5"]
    with pytest.raises(BadRecording, match="no such file"):
        find_recordings(tmp_path / "absent")


def as_nobody(function):
    """Call a function in a process of an unprivileged user, and return its result."""
    read, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            os.write(write_end, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read) as told:
        found = json.load(told)
    os.waitpid(child, 0)
    return found


def test_what_must_not_be_read_is_named_and_costs_nothing_else():
    with tempfile.TemporaryDirectory(prefix="daskbroker-test-") as place:
        folder = Path(place)
        for name in ("sound.json", "locked.json", "secret/run.json"):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            write(path, TEXT)
        folder.chmod(0o755)
        (folder / "sound.json").chmod(0o644)
        (folder / "locked.json").chmod(0)
        (folder / "secret").chmod(0)

        def outcome(path):
            try:
                return len(list(read_recording(path)))
            except BadRecording as error:
                return str(error)

        try:
            told = as_nobody(lambda: [outcome(path) for path in find_recordings(folder)])
        finally:
            (folder / "secret").chmod(0o755)
    locked, secret, documents = told
    assert documents == len(DOCUMENTS)
    assert re.search(r"locked.json: .*Permission denied", locked)
    assert re.search(r"secret: .*Permission denied", secret)


def test_a_path_that_cannot_be_looked_at_stops_no_search(tmp_path, monkeypatch):
    (tmp_path / "group").mkdir()
    write(tmp_path / "group/sound.json", TEXT)
    write(tmp_path / "sound.json", TEXT)

    def fail(path):
        raise OSError(errno.EIO, "input/output error", str(path))

    monkeypatch.setattr(recordings, "is_ours", fail)
    assert [path.name for path in find_recordings(tmp_path)] == ["sound.json"] * 2
    monkeypatch.setattr(recordings, "is_zarr", lambda path: fail(path) if path != tmp_path else 0)
    assert [path.name for path in find_recordings(tmp_path)] == ["group", "sound.json"]


def test_one_path_or_several(tmp_path, db):
    path = tmp_path / "run.json"
    write(path, TEXT)
    for given in (path, str(path), [path], tmp_path):
        assert ingest(db, given).documents == len(DOCUMENTS)
    report = ingest(db, "")
    assert (report.files, report.refused) == (0, 1)
    assert "no such file" in report.refusals[0].reason


# -- what is no file, and what claims to be large --------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "linked pipe", "socket", "device"])
def test_only_regular_files_are_read(tmp_path, kind, monkeypatch):
    """Opening a pipe to read would wait for a writer for ever."""
    path = tmp_path / "run.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "linked pipe":
        os.mkfifo(tmp_path / "p")
        path.symlink_to("p")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("run.json")
    word = kind.split()[-1]
    with pytest.raises(BadRecording, match=f"is a {word}; only regular files are read"):
        list(read_recording(path))
    with daskbroker.temp() as db:
        write(tmp_path / "sound.json", TEXT)
        report = ingest(db, [tmp_path])
        assert (report.documents, report.refused) == (len(DOCUMENTS), 1)
        assert "only regular files" in report.refusals[0].reason


def test_files_of_the_system_are_empty(tmp_path):
    (tmp_path / "run.json").symlink_to("/proc/self/mountinfo")
    with pytest.raises(BadRecording, match="the file is empty"):
        list(read_recording(tmp_path / "run.json"))


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\x7f\xff\xff\xff",  # a list
        b"\xdf\x7f\xff\xff\xff",  # a mapping
        b"\x92\xa5event\xdd\x7f\xff\xff\xff",
        gzip.compress(b"\xdd\x7f\xff\xff\xff"),
        msgpack.packb(["event", {"nd": True, "type": "<f4", "data": b"", "shape": [2**40, 0]}]),
    ],
    ids=["list", "mapping", "inside", "gzip", "empty lists"],
)
def test_lists_that_are_announced_take_no_memory(tmp_path, data):
    path = write(tmp_path / "x", data)
    tracemalloc.start()
    with pytest.raises(BadRecording, match="msgpack"):
        list(read_recording(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_gzip_that_unpacks_to_gzip_for_ever(tmp_path):
    data = TEXT
    for _ in range(40):
        data = gzip.compress(data)
    with pytest.raises(BadRecording, match="compressed by gzip more than"):
        list(read_recording(write(tmp_path / "x", data)))


def test_a_zip_that_lies_about_its_size(tmp_path):
    """What a member may unpack to does not follow from what it says that it has."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"[" + b" " * (80 * 2**20))
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x01\x02", 20), (b"PK\x03\x04", 18)):
        at = data.index(signature) + place
        data[at : at + 4] = (2**31 - 1).to_bytes(4, "little")
    with pytest.raises(BadRecording, match=r"unpacks to more|damaged"):
        list(read_recording(write(path, data)))
