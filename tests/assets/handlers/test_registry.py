"""Which handler reads a spec, and how it travels."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import pytest
from area_detector_handlers.handlers import AreaDetectorTiffHandler

from daskbroker.assets.filling.filling import Filling
from daskbroker.assets.handlers.hdf5.frames import AreaDetectorHDF5, StreamHDF5
from daskbroker.assets.handlers.registry import OWN, Factory, HandlerRegistry
from daskbroker.assets.handlers.tiff import StreamTIFF
from daskbroker.core.errors import FillError, HandlerExists, HandlerNotFound


class Mine:
    """A handler of the user."""


def test_registered_then_ours_then_installed():
    registry = HandlerRegistry()
    assert registry.find("AD_HDF5").load() is AreaDetectorHDF5
    installed = registry.find("SPECS_HDF5_SINGLE_DATAFRAME").reference
    assert installed == "area_detector_handlers.handlers:SpecsHDF5SingleHandlerDataFrame"
    registry.register("AD_HDF5", Mine)
    assert registry.find("AD_HDF5").load() is Mine
    registry.unregister("AD_HDF5")
    assert registry.find("AD_HDF5").load() is AreaDetectorHDF5


def test_overrides_of_a_call():
    registry = HandlerRegistry({"X": Mine})
    by_spec = {"X": AreaDetectorTiffHandler}
    by_key = {"img": "ophyd.sim:NumpySeqHandler"}
    assert registry.registered(by_spec)["X"].load() is AreaDetectorTiffHandler
    assert registry.registered()["X"].load() is Mine
    overrides = {key: Factory.of("X", handler) for key, handler in by_key.items()}
    filling = Filling({}, registry.registered(by_spec), overrides, root_map={})
    assert filling.handler_reference("X", "img") == "ophyd.sim:NumpySeqHandler"
    assert filling.handler_reference("X", "other").endswith(":AreaDetectorTiffHandler")


def test_registering_twice():
    registry = HandlerRegistry({"X": Mine})
    registry.register("X", Mine)
    with pytest.raises(HandlerExists, match=r"Mine.*overwrite=True"):
        registry.register("X", AreaDetectorTiffHandler)
    registry.register("X", AreaDetectorTiffHandler, overwrite=True)
    assert registry.find("X").load() is AreaDetectorTiffHandler
    registry.unregister("X")
    for forget in (registry.unregister, registry.find):
        with pytest.raises(HandlerNotFound, match="'X'"):
            forget("X")


@pytest.mark.parametrize("bad", [3, "no colon", ":x", None])
def test_what_is_no_handler(bad):
    with pytest.raises(FillError, match="is not a valid handler for 'X'"):
        HandlerRegistry().register("X", bad)


def test_mimetypes_are_specs_whatever_their_case_and_blanks():
    registry = HandlerRegistry()
    assert registry.find("Application/X-HDF5").load() is StreamHDF5
    assert registry.find("multipart/related; type=image/tiff").load() is StreamTIFF
    registry.register("image/x-mine ", Mine)
    assert registry.find("image/X-mine").load() is Mine


def test_specs_lists_all():
    specs = HandlerRegistry({"X": Mine}).specs()
    assert specs["X"].endswith(":Mine")
    assert specs["AD_HDF5"] == "daskbroker.assets.handlers.hdf5.frames:AreaDetectorHDF5"
    assert {"AD_CBF", "NPY_SEQ", "application/x-hdf5"} <= specs.keys()


def test_every_own_handler_says_its_specs():
    for spec, reference in OWN.items():
        assert spec in Factory(spec, reference).load().specs


def test_classes_travel_by_reference():
    for handler in (Mine, AreaDetectorTiffHandler, "ophyd.sim:NumpySeqHandler"):
        factory = Factory.of("X", handler)
        assert isinstance(factory.reference, str)
        assert len(pickle.dumps(factory)) < 250
        assert pickle.loads(pickle.dumps(factory)) == factory


def test_classes_made_in_a_function_travel_by_value():
    class Local:
        def __init__(self, path):
            self.path = path

    factory = pickle.loads(pickle.dumps(Factory.of("X", Local)))
    assert factory.load()("/f").path == "/f"
    assert factory.load() is factory.load()
    assert "by value" in repr(factory)


SCRIPT = """
import pickle, sys
from daskbroker.assets.handlers.registry import HandlerRegistry

class Doubles:
    def __init__(self, path): pass
    def __call__(self, x): return 2 * x

sys.stdout.buffer.write(pickle.dumps(HandlerRegistry({"X": Doubles}).find("X")))
"""


def test_a_class_of_a_script_is_found_elsewhere():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert pickle.loads(run.stdout).load()("/")(x=4) == 8


@pytest.mark.parametrize("text", ["no_such_module:X", "os:no_such_name"])
def test_what_cannot_be_imported(text):
    factory = HandlerRegistry({"X": text}).find("X")
    with pytest.raises(FillError, match=rf"spec 'X'.*{text}.*cannot be imported here"):
        factory.load()


def test_threads_may_register_at_once():
    registry = HandlerRegistry()

    def work(number: int) -> None:
        for turn in range(200):
            registry.register(f"{number}", Mine)
            assert registry.find(f"{number}").load() is Mine
            registry.specs()
            if turn < 199:
                registry.unregister(f"{number}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {"0", "1", "2", "3"} <= registry.specs().keys()
