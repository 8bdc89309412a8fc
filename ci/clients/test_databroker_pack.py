"""databroker-pack: runs as files, from Python and from the command line, and back."""

from __future__ import annotations

import json

import databroker
import pytest
import suitcase.jsonl
import yaml
from databroker_pack import export_catalog, export_run, export_uids, unpack_inplace
from databroker_pack import unpack_mongo_normalized as unpack_into_mongodb

import daskbroker
from daskbroker.cli import app
from daskbroker.core.errors import ConfigError


def ingested(folder, *files):
    """Return a store into which packed documents are ingested."""
    from typer.testing import CliRunner

    given = ["ingest", *map(str, files), "--db", str(folder / "again")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    return daskbroker.connect(folder / "again")


def test_export_uids(beamline, tmp_path):
    uids = [beamline.db[n].uid for n in (1, 2)]
    serializer = suitcase.jsonl.Serializer
    artifacts, files, failed, *_ = export_uids(
        beamline.v2, uids, str(tmp_path), strict=True, serializer_class=serializer
    )
    assert not failed
    assert not files
    assert len(artifacts["all"]) == 2
    with ingested(tmp_path, *artifacts["all"]) as again:
        for uid in uids:
            given = list(beamline.db[uid].documents(fill=False))
            assert list(again[uid].documents(fill=False)) == given


def test_export_catalog_with_its_files(beamline, tmp_path):
    _, files, failed, *_ = export_catalog(beamline.v2, str(tmp_path), strict=True)
    assert not failed
    listed = {path for several in files.values() for path in several}
    assert {path.parent.name for path in map(tmp_path.__class__, listed)} == {"files"}
    assert len(listed) == 2


def test_export_run_filled(beamline, tmp_path):
    export_run(
        beamline.v2[3],
        str(tmp_path),
        lambda root: root,
        external="fill",
        serializer_class=suitcase.jsonl.Serializer,
    )
    (file,) = tmp_path.rglob("*.jsonl")
    pages = [json.loads(line) for line in file.read_text().splitlines()]
    pages = [doc for name, doc in pages if name == "event_page" and "img" in doc["data"]]
    images = [image for page in pages for image in page["data"]["img"]]
    assert images == beamline.frames.tolist()


def test_command_line(beamline, tmp_path, command):
    assert "beamline" in command("databroker_pack.commandline.pack", "--list-catalogs").split()
    words = ["beamline", "--query", "{'sample': 'gold'}", tmp_path / "pack", "--copy-external"]
    command("databroker_pack.commandline.pack", *words)
    assert len(list((tmp_path / "pack" / "documents").glob("*.msgpack"))) == 2
    assert len(list((tmp_path / "pack" / "external_files").rglob("*.npy"))) == 2
    (source,) = yaml.safe_load((tmp_path / "pack" / "catalog.yml").read_text())["sources"].values()
    assert source["driver"] == "bluesky-msgpack-catalog"


@pytest.fixture(scope="session")
def packed(beamline, command):
    """Return a folder with all runs, packed by the command."""
    command("databroker_pack.commandline.pack", "beamline", "--all", beamline.folder / "pack")
    return beamline.folder / "pack"


@pytest.fixture
def pack(packed, tmp_path, monkeypatch):
    """Return that folder; the names under which it is unpacked are kept in ``tmp_path``."""
    monkeypatch.setenv("DASKBROKER_PATH", str(tmp_path))
    return packed


def test_unpack_inplace(pack, tmp_path):
    file = unpack_inplace(str(pack), "packed")
    assert yaml.safe_load(file.read_text())["sources"]["packed"]["driver"]
    with ingested(tmp_path, pack / "documents") as again:
        assert [run.start["scan_id"] for run in again()] == [4, 3, 2, 1]


class Recordings(Exception):
    """What :func:`test_unpacked_catalog` meets, and nothing else."""


@pytest.mark.xfail(
    strict=True,
    raises=Recordings,
    reason="a folder of documents is no store; `daskbroker ingest` makes one of it",
)
def test_unpacked_catalog(pack):
    unpack_inplace(str(pack), "packed")
    try:
        catalog = databroker.catalog["packed"]
    except ConfigError as error:
        if "by `daskbroker ingest FOLDER" in str(error):
            raise Recordings from error
        raise
    assert len(catalog) == 4


class NoDriver(Exception):
    """What :func:`test_unpack_mongo_normalized` lacks, and nothing else."""


@pytest.mark.xfail(
    strict=True,
    raises=NoDriver,
    reason="reads the pack by databroker's own intake driver, which is not there",
)
def test_unpack_mongo_normalized(pack, server, request):
    name = "unpacked_" + request.node.callspec.params["beamline"]
    try:
        unpack_into_mongodb(str(pack), f"{server}/{name}", "packed")
    except KeyError as error:
        if error.args == ("bluesky-msgpack-catalog",):
            raise NoDriver from error
        raise
    with daskbroker.connect(f"{server}/{name}") as again:
        assert [run.start["scan_id"] for run in again()] == [4, 3, 2, 1]
