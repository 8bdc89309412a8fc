"""Configurations by name: where they are found, what they mean, what is never shown."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import time
from pathlib import Path

import dask
import pymongo
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import daskbroker
from daskbroker.configuration import (
    find_configuration,
    list_configurations,
    place_settings,
    read_configuration,
    settings_of,
    target_of,
    unreadable_files,
)
from daskbroker.core.errors import ConfigError, StoreError, StoreReadOnly
from daskbroker.core.redaction import has_login, label_of, redacted
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

OLD = {
    "description": "as databroker's documentation has it",
    "metadatastore": {
        "module": "databroker.headersource.mongo",
        "class": "MDS",
        "config": {
            "host": "localhost",
            "port": 27017,
            "database": "mds",
            "timezone": "US/Eastern",
        },
    },
    "assets": {
        "module": "databroker.assets.mongo",
        "class": "Registry",
        "config": {"host": "localhost", "port": 27017, "database": "filestore"},
    },
    "handlers": {"FOO": {"module": "facility.handlers", "class": "FooHandler"}},
    "root_map": {"/old/root": "/new/root"},
}
CATALOG = {
    "sources": {
        "beamline": {
            "driver": "bluesky-mongo-normalized-catalog",
            "args": {
                "metadatastore_db": "mongodb://one:27017,two:27017/mds?replicaSet=rs",
                "asset_registry_db": "mongodb://one:27017,two:27017/assets",
                "handler_registry": {"FOO": "facility.handlers.FooHandler"},
                "root_map": {"abc": "external_files/abc"},
            },
        },
        "other": {
            "driver": ["bluesky-mongo-embedded-catalog"],
            "args": {"datastore_db": "mongodb://host/permanent"},
        },
        "spreadsheet": {"driver": "csv", "args": {"urlpath": "x.csv"}},
    }
}


def changed(content, path, value):
    """A copy with a value somewhere below replaced."""
    content = copy.deepcopy(content)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory without any configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "DASKBROKER_PATH",
        "INTAKE_PATH",
        "INTAKE_CONF_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / name).write_text(text)
    return folder / name


# -- what the forms mean ---------------------------------------------------------------------


def test_configuration_of_databroker_1():
    assert settings_of(OLD) == {
        "mongo": {
            "uri": "mongodb://localhost:27017/mds",
            "assets": "mongodb://localhost:27017/filestore",
            "layout": "normalized",
        },
        "timezone": "US/Eastern",
        "handlers": {"FOO": "facility.handlers:FooHandler"},
        "root_map": {"/old/root": "/new/root"},
    }


@pytest.mark.parametrize(
    ("config", "uri"),
    [
        ({"host": "h", "database": "d"}, "mongodb://h/d"),
        ({"database": "d"}, "mongodb://localhost/d"),
        ({"uri": "mongodb://h:1", "database": "d"}, "mongodb://h:1/d"),
        ({"uri": "mongodb://h1,h2/?w=1", "database": "d"}, "mongodb://h1,h2/d?w=1"),
        (
            {"host": "h", "port": 1, "database": "d", "mongo_user": "u", "mongo_pwd": "p"},
            "mongodb://u:p@h:1/d?authSource=admin",
        ),
        (
            {"host": "h", "port": 1, "database": "d", "mongo_user": "u", "mongo_pwd": "p%40/@"},
            "mongodb://u:p%2540%2F%40@h:1/d?authSource=admin",
        ),
        (
            {"host": "h", "port": 1, "database": "d", "mongo_user": "u", "mongo_pwd": "p%40"},
            "mongodb://u:p%40@h:1/d?authSource=admin",
        ),
        (
            {"uri": "mongodb://u:p@h/", "database": "d", "authsource": "who"},
            "mongodb://u:p@h/d?authSource=who",
        ),
        (
            {"uri": "mongodb://u:p@h/who", "database": "d"},
            "mongodb://u:p@h/d?authSource=who",
        ),
        (
            {"uri": "mongodb://u:p@h/?authSource=x", "database": "d"},
            "mongodb://u:p@h/d?authSource=x",
        ),
        (
            {"uri": "mongodb://u@h/?authMechanism=MONGODB-X509", "database": "d"},
            "mongodb://u@h/d?authMechanism=MONGODB-X509",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_database_is_reached_as_databroker_would(config, uri):
    found = settings_of(changed(OLD, "metadatastore.config", config))
    assert found["mongo"]["uri"] == uri


def test_one_database_for_both_is_not_named_twice():
    content = changed(OLD, "assets.config", OLD["metadatastore"]["config"])
    assert settings_of(content)["mongo"]["assets"] is None


def test_read_only_class_opens_read_only():
    assert settings_of(changed(OLD, "metadatastore.class", "MDSRO"))["mode"] == "r"


def test_catalog_of_databroker_2(tmp_path):
    file = write(tmp_path, "catalog.yml", CATALOG)
    assert read_configuration(f"{file}#beamline").settings() == {
        "mongo": {
            "uri": "mongodb://one:27017,two:27017/mds?replicaSet=rs",
            "assets": "mongodb://one:27017,two:27017/assets",
            "layout": "normalized",
        },
        "handlers": {"FOO": "facility.handlers:FooHandler"},
        "root_map": {"abc": str(tmp_path / "external_files/abc")},
    }
    mongo = read_configuration(f"{file}#other").settings()["mongo"]
    assert mongo == {"uri": "mongodb://host/permanent", "assets": None, "layout": "embedded"}


def test_own_form_has_paths_relative_to_its_file(tmp_path):
    file = write(
        tmp_path / "conf",
        "mine.yml",
        {
            "uri": "../store",
            "timezone": "Europe/Berlin",
            "mode": "r",
            "handlers": {"A": "m:C"},
            "readable_roots": ["/data", "../detector"],
        },
    )
    assert read_configuration(file).settings() == {
        "embedded": str(tmp_path / "store"),
        "timezone": "Europe/Berlin",
        "mode": "r",
        "handlers": {"A": "m:C"},
        "readable_roots": ["/data", str(tmp_path / "detector")],
    }


def test_placeholders_are_filled_in_and_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("STORE_HOST", "there")
    monkeypatch.delenv("ABSENT", raising=False)
    assert target_of(settings_of({"uri": "mongodb://{{ env(STORE_HOST) }}/d"})) == (
        "mongodb://there/d"
    )
    file = write(tmp_path, "a.yml", {"uri": "{{ CATALOG_DIR }}/store"})
    assert read_configuration(file).settings()["embedded"] == str(tmp_path / "store")
    for text, hint in (("env(ABSENT)", "ABSENT"), ("shell(touch x)", "shell"), ("a|b", "env")):
        with pytest.raises(ConfigError, match=hint):
            settings_of({"uri": "mongodb://{{ " + text + " }}/d"})


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "uri"),
        (["uri"], "uri"),
        ({"urn": "x"}, "metadatastore"),
        ({"uri": 5}, "'uri'"),
        ({"uri": "redis://h/0"}, "redis"),
        ({"uri": "http://host:8000"}, "in a Tiled server are copied by `daskbroker copy tiled"),
        ({"uri": "mongodb://h"}, "database"),
        ({"uri": "mongodb://h/d", "layout": "upright"}, "upright"),
        ({"uri": "store", "assets": "mongodb://h/d"}, "assets"),
        ({"uri": "store", "timezon": "UTC"}, "timezon"),
        ({"uri": "store", "handlers": {"A": "nothing"}}, "handlers.A"),
        ({"uri": "store", "root_map": {"a": "relative"}}, "root_map.a"),
        ({"uri": "store", "readable_roots": "/data"}, "readable_roots"),
        (changed(OLD, "metadatastore.module", "databroker.headersource.sqlite"), "sqlite"),
        (changed(OLD, "assets.class", "Mine"), "Mine"),
        (changed(OLD, "assets.config", None), "assets: 'config'"),
        (changed(OLD, "assets.config", {"host": "h"}), "'database'"),
        (changed(OLD, "assets.config", {"uri": "mongodb://h", "port": 1, "database": "d"}), "uri"),
        ({k: v for k, v in OLD.items() if k != "assets"}, "'assets'"),
        (CATALOG, "beamline, other"),
        ({"driver": "bluesky-jsonl-catalog", "args": {"paths": []}}, "daskbroker ingest"),
        ({"driver": "csv"}, "csv"),
        ({"driver": "bluesky-mongo-normalized-catalog"}, "args"),
    ],
    ids=str,
)
def test_what_cannot_be_opened_is_said(content, hint):
    with pytest.raises(ConfigError, match=hint):
        settings_of(content)


@pytest.mark.parametrize("key", ["event_sources", "transforms"])
def test_what_is_not_applied_is_said(key):
    with pytest.warns(UserWarning, match=key):
        assert "mongo" in settings_of(changed(OLD, key, {"x": "y"}))


# -- files and names -------------------------------------------------------------------------


def test_all_folders_are_searched_and_the_first_one_counts(home, monkeypatch):
    monkeypatch.setenv("DASKBROKER_PATH", str(home / "chosen"))
    write(home / "chosen", "a.yml", {"uri": str(home / "chosen-a")})
    write(home / ".config/daskbroker", "a.yml", {"uri": str(home / "user-a")})
    write(home / ".config/daskbroker", "b.yaml", {"uri": str(home / "user-b")})
    write(home / ".config/databroker", "old.yml", OLD)
    write(home / ".config/databroker", "_legacy_config.yml", OLD)
    write(home / ".local/share/intake", "catalog.yml", CATALOG)
    write(home / ".intake", "conf.yaml", {"catalog_path": [str(home / "more"), "s3://x/y.yml"]})
    write(home / "more", "z.yaml", {"sources": {"far": CATALOG["sources"]["other"]}})
    found = {c.name: c.form for c in list_configurations() if home in c.file.parents}
    assert found == {
        "a": "daskbroker",
        "b": "daskbroker",
        "old": "databroker",
        "beamline": "catalog",
        "other": "catalog",
        "far": "catalog",
    }
    assert find_configuration("a").target() == str(home / "chosen-a")
    assert find_configuration("spreadsheet") is None


def test_one_bad_file_hides_no_other(home):
    folder = home / ".config/databroker"
    write(folder, "bad.yml", "metadatastore: {config: {mongo_pwd: *secret}}")
    write(folder, "evil.yml", "uri: !!python/object/apply:os.system ['touch ran']")
    write(folder, "good.yml", OLD)
    assert [c.name for c in list_configurations() if home in c.file.parents] == ["good"]
    messages = [text for text in unreadable_files() if str(home) in text]
    assert len(messages) == 2
    assert "line 1" in messages[0]
    assert "secret" not in "".join(messages)
    assert not (home / "ran").exists()
    for ask in (daskbroker.connect, daskbroker.DataBroker.named):
        with pytest.raises(ConfigError, match=r"not readable: .*bad.yml: .* line 1"):
            ask("bad")


def test_a_name_opens_and_the_same_broker_again(home):
    write(home / ".config/daskbroker", "mine.yml", {"uri": "store", "timezone": "Asia/Tokyo"})
    with daskbroker.connect("mine") as db:
        assert db.uri == str(home / ".config/daskbroker/store")
        assert db.timezone == "Asia/Tokyo"
        assert daskbroker.DataBroker.named("mine") is db
        assert daskbroker.connect(db.uri, timezone="Asia/Tokyo") is db
        assert daskbroker.connect({"uri": db.uri, "timezone": "Asia/Tokyo"}) is db


def test_the_zone_of_this_machine_is_looked_up_when_it_is_opened(home, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        write(home / ".config/daskbroker", "mine.yml", {"uri": "store", "timezone": "local"})
        with daskbroker.connect("mine") as db:
            assert db.timezone == "Asia/Tokyo"
            assert json.loads(db.key)["timezone"] == "Asia/Tokyo"
            assert daskbroker.connect(db.uri, timezone="Asia/Tokyo") is db
            assert pickle.loads(pickle.dumps(db)) is db
            with dask.config.set({"daskbroker.timezone": "local"}):
                assert daskbroker.connect(db.uri) is db
            assert daskbroker.connect(db.uri).timezone == "UTC"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    with pytest.raises(ConfigError, match=r"no time zone 'Mars/Base'.*'local'"):
        daskbroker.connect(home / "store", timezone="Mars/Base")


def test_stores_go_before_names_and_slashes_mean_paths(home):
    write(home / ".config/daskbroker", "mine.yml", {"uri": "store"})
    (home / "mine").mkdir()
    with daskbroker.connect("mine") as db:  # the folder holds no store
        assert db.uri == str(home / ".config/daskbroker/store")
    with daskbroker.connect("./mine") as db:
        assert db.uri == str(home / "mine")
    with daskbroker.connect("mine") as db:
        assert db.uri == str(home / "mine")
    with daskbroker.DataBroker.named("mine") as db:
        assert db.uri == str(home / ".config/daskbroker/store")


@pytest.mark.parametrize("options", [{}, {"create": False}, {"mode": "r"}], ids=repr)
def test_a_bare_word_makes_no_store(home, options, monkeypatch):
    write(home / ".config/daskbroker", "beamline.yml", {"uri": "store"})
    (home / "data").mkdir()
    before = sorted(home.rglob("*"))
    words = {
        "beamlin": r"the names are: .*beamline.*connect\(\"./beamlin\"\)",
        "data": r"a folder 'data' is here, but it holds no store.*connect\(\"./data\"\)",
        "store.d": r"neither a store in the current folder nor the name",
        "": r"not empty text: '.' is the current folder",
    }
    for word, message in words.items():
        with pytest.raises(ConfigError, match=message):
            daskbroker.connect(word, **options)
    monkeypatch.setenv("DASKBROKER_URI", "beamlin")
    with pytest.raises(ConfigError, match="the names are"):
        daskbroker.connect(**options)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("place", ["./beamlin", Path("beamlin"), "sub/beamlin", "~/beamlin"])
def test_a_path_makes_a_store(home, place):
    with daskbroker.connect(place) as db:
        assert Path(db.uri).name == "beamlin"
        assert Path(db.uri).is_dir()


def test_the_current_folder_is_a_path(home, monkeypatch):
    (home / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(home / "here" / "below")
    for place, uri in ((".", home / "here" / "below"), ("..", home / "here")):
        with daskbroker.connect(place) as db:
            assert db.uri == str(uri)


def test_an_unknown_name_makes_nothing(home):
    write(home / ".config/daskbroker", "mine.yml", {"uri": "store"})
    with pytest.raises(ConfigError, match="mine"):
        daskbroker.DataBroker.named("main")
    assert sorted(p.name for p in home.iterdir()) == [".config"]


def test_mode_of_the_configuration_holds_unless_another_is_given(home):
    (home / "store").mkdir()
    with daskbroker.connect(home / "store"):
        pass
    config = {"uri": str(home / "store"), "mode": "r"}
    name, doc = make_run(1)[0]
    with (
        daskbroker.DataBroker.from_config(config) as db,
        pytest.raises(StoreReadOnly, match="was opened to read only"),
    ):
        db.insert(name, doc)
    with daskbroker.DataBroker.from_config(config, mode="a") as db:
        db.insert(name, doc)
        assert len(db) == 1


def test_filling_settings_reach_the_broker_also_unpickled(home):
    write(
        home / ".config/daskbroker",
        "mine.yml",
        {
            "uri": str(home / "store"),
            "handlers": {"A": "m.C"},
            "root_map": {"/a": "/b"},
            "readable_roots": ["/b"],
        },
    )
    with daskbroker.connect("mine") as db:
        data = pickle.dumps(db)
    (home / ".config/daskbroker/mine.yml").unlink()  # without password it is not needed again
    again = pickle.loads(data)
    assert again.handler_registry.specs()["A"] == "m:C"
    assert (again.root_map, again.readable_roots) == ({"/a": "/b"}, ["/b"])
    again.close()


def test_named_temp_is_a_new_store_each_time(home):
    one, two = daskbroker.DataBroker.named("temp"), daskbroker.DataBroker.named("temp")
    assert one.uri != two.uri
    one.close()
    two.close()


# -- secrets ---------------------------------------------------------------------------------


@given(user=st.text(), password=st.text())
def test_no_password_is_ever_shown(user, password):
    text = f"cannot reach mongodb+srv://{user}:{password}@host/d?tlsCertificateKeyFilePassword=x"
    hidden = redacted(text)
    assert hidden in (
        "cannot reach mongodb+srv://***@host/d?tlsCertificateKeyFilePassword=***",
        "cannot reach mongodb+srv://***",  # nobody knows where the password ends
    )
    assert redacted(hidden) == hidden
    assert has_login(text)
    assert not has_login(hidden)


SIGNS = ("", "/", "@", ":", "?", "#", "%", "%zz", ",", "[", "&", "=", "\\", " ", ";")


@pytest.mark.parametrize(
    "uri",
    ["mongodb://u:{}@host/d", "mongodb://host/d?tlsCertificateKeyFilePassword={}"],
)
def test_no_malformed_uri_shows_its_password(uri):
    for before, after in itertools.product(SIGNS, SIGNS):
        whole = uri.format(f"{before}s3cret{after}")
        shown = [redacted(whole), label_of(whole)]
        try:
            shown.append(target_of(place_settings(whole)))
        except ConfigError as error:
            shown.append(str(error))
        assert "s3cret" not in "".join(shown)


def test_errors_and_reprs_hide_passwords(home):
    for uri in ("mongodb://u:s3cret@h", "mongodb://u:s3cr/et@h/d", "redis://u:s3cret@h/0"):
        with pytest.raises(
            ConfigError, match=r"a MongoDB URI with a database is needed|no store opens redis://"
        ) as caught:
            daskbroker.connect(uri)
        assert "s3cr" not in str(caught.value)
    # The command line redacts the whole text of an error once more.
    with pytest.raises(ConfigError, match="database is needed") as caught:
        daskbroker.connect("mongodb://host")
    assert redacted(str(caught.value)) == str(caught.value)
    login = {"database": "d", "mongo_user": "u", "mongo_pwd": "s3cret"}
    write(home / ".config/databroker", "old.yml", changed(OLD, "assets.config", login))
    assert "s3cret" not in repr(list_configurations())


# -- MongoDB ---------------------------------------------------------------------------------

LOGIN = {"mongo_user": "reader", "mongo_pwd": "s3cret/pass"}


@pytest.fixture
def old_configuration(home, mongo_database):
    """A configuration of databroker, with a password, of a database that lets that user in."""
    server, _, database = mongo_database.rpartition("/")
    host, _, port = server.removeprefix("mongodb://").partition(":")
    place = {"host": host, "port": int(port), "database": database, "authsource": database}
    content = changed(OLD, "metadatastore.config", place | LOGIN | {"timezone": "Asia/Tokyo"})
    content = changed(content, "assets.config", place | LOGIN)
    with pymongo.MongoClient(server) as client:
        client[database].command(
            "createUser", LOGIN["mongo_user"], pwd=LOGIN["mongo_pwd"], roles=["readWrite"]
        )
        yield write(home / ".config/databroker", "facility.yml", content)
        client[database].command("dropUser", LOGIN["mongo_user"])


def test_a_configuration_of_databroker_opens_its_database(old_configuration):
    with daskbroker.connect("facility") as db:
        assert db.timezone == "Asia/Tokyo"
        insert_all(db, make_run(3))
        assert db[-1].table()["x"].compute().tolist() == [1.0, 1.5, 2.0]
    with daskbroker.connect(old_configuration, mode="r") as db:
        assert len(db) == 1


@pytest.mark.parametrize("form", ["name", "file"])
def test_nothing_that_is_sent_or_shown_holds_the_password(old_configuration, form):
    place = "facility" if form == "name" else old_configuration
    with daskbroker.connect(place) as db:
        insert_all(db, make_run(3))
        header = db[-1]
        things = [db, header, db(), header.table(), header.dataset(), header.portable()]
        sent = [pickle.dumps(thing) for thing in things]
        shown = [repr(thing) for thing in [*things, db.uri, db.header_source, db.event_sources]]
        shown.append(repr(db.event_sources["mongo"].store.reader))
    for text in [*map(repr, sent), *shown]:
        assert "s3cret" not in text
    table = pickle.loads(sent[3])  # reads the configuration anew
    assert table["x"].compute().tolist() == [1.0, 1.5, 2.0]
    pickle.loads(sent[0]).close()


def test_a_worker_without_the_configuration_says_what_it_lacks(old_configuration):
    with daskbroker.connect("facility") as db:
        data = pickle.dumps(db)
    old_configuration.unlink()
    with pytest.raises(ConfigError, match="facility"):
        pickle.loads(data)


def test_a_wrong_password_is_not_repeated(old_configuration):
    text = old_configuration.read_text().replace("s3cret/pass", "s3cret/wrong")
    old_configuration.write_text(text)
    with pytest.raises(
        StoreError, match="the server refuses access; check user, password and roles"
    ) as caught:
        daskbroker.connect("facility")
    assert "user, password and roles" in str(caught.value)
    assert "s3cret" not in str(caught.value)
