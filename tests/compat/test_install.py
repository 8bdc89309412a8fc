"""``import databroker`` finds our interfaces after install(), and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest

import daskbroker.compat
from daskbroker.core.errors import ConfigError

INSTALLED = """
import sys
import daskbroker
assert not any(name.startswith("daskbroker.compat") for name in sys.modules)
try:
    import databroker
except ImportError:
    pass
else:
    raise SystemExit("databroker is found without being asked for")

import daskbroker.compat
daskbroker.compat.install()
daskbroker.compat.install()

import databroker
import databroker.v1
from databroker import ALL, Broker, catalog, temp
import databroker._drivers.mongo_normalized as drivers
from databroker.core import BlueskyRun, discover_handlers
from databroker.queries import TimeRange
from daskbroker.testing import make_run

db = temp()
for name, doc in make_run(3):
    db.insert(name, doc)
assert len(db[-1].table()) == 3
assert isinstance(db.v2[-1], BlueskyRun)
assert isinstance(db, Broker) and databroker.v1.Broker is Broker
assert isinstance(db.v2, drivers.BlueskyMongoCatalog)
assert discover_handlers()["NPY_SEQ"].__module__ == "ophyd.sim"

from databroker._drivers.msgpack import BlueskyMsgpackCatalog
from databroker.assets.handlers import AreaDetectorTiffHandler
from databroker.assets.handlers_base import HandlerBase
from databroker.core import parse_handler_registry
from databroker.v2 import Broker as CatalogOfRuns

class Handler(HandlerBase):
    specs = {"MINE"} | HandlerBase.specs

with Handler() as handler:
    assert handler.specs == {"MINE"}
assert AreaDetectorTiffHandler.__module__ == "area_detector_handlers.handlers"
assert not hasattr(sys.modules["databroker.assets"], "NoSuchHandler")
parsed = parse_handler_registry({"A": "area_detector_handlers.handlers.AreaDetectorTiffHandler"})
assert parsed == {"A": AreaDetectorTiffHandler} == parse_handler_registry(parsed)
assert isinstance(databroker.v2.temp(), CatalogOfRuns) and BlueskyMsgpackCatalog is CatalogOfRuns
assert databroker.__version__.startswith("1.2")
assert databroker.catalog_search_path()[0].endswith("configurations")
catalog.force_reload()

mine = catalog["mine"]
assert list(catalog) == databroker.list_configs() == ["mine"]
assert list(mine) == list(catalog.mine) == []
assert "nosuch" not in catalog and not hasattr(catalog, "nosuch")
assert list(Broker.named("mine")()) == []
"""


@pytest.fixture
def configured(tmp_path, monkeypatch):
    with daskbroker.connect(tmp_path / "store"):
        pass
    (tmp_path / "configurations").mkdir()
    (tmp_path / "configurations" / "mine.yml").write_text(f"uri: {tmp_path / 'store'}\n")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("DASKBROKER_PATH", str(tmp_path / "configurations"))


def test_on_request_only(configured):
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_databroker_itself_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "databroker").mkdir()
    (tmp_path / "databroker" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="pip uninstall databroker"):
        daskbroker.compat.install()
    assert "databroker" not in sys.modules
