"""Fixtures of handlers: reading by a document, and no file left open."""

from __future__ import annotations

import gc
import os

import pytest

from daskbroker.assets.files.readable import ReadableRoots
from daskbroker.assets.files.resolving import resolve
from daskbroker.assets.filling.blocks import BlockReader
from daskbroker.assets.filling.open_handlers import open_handlers
from daskbroker.assets.handlers import Datums
from daskbroker.assets.handlers.registry import HandlerRegistry


class Reader:
    """Read cells as a task does, by the documents."""

    def __init__(self) -> None:
        self.registry = HandlerRegistry()
        self.roots = None
        self.root_map = None

    def _found(self, doc):
        resource = resolve(
            doc, readable=ReadableRoots.of(self.roots), root_map=self.root_map, where="run 'r'"
        )
        return resource, self.registry.find(resource.spec, where="run 'r'")

    def resource(self, spec, path, datums, roi=(), **kwargs):
        doc = {
            "uid": "u",
            "spec": spec,
            "root": "",
            "resource_path": str(path),
            "resource_kwargs": kwargs,
        }
        datums = datums if isinstance(datums, Datums) else Datums.of(datums)
        return BlockReader(*self._found(doc), {}, "run 'r', stream 's', key 'k'").read(datums, roi)

    def stream(self, mimetype, uri, shape, datums, roi=(), **parameters):
        doc = self._stream(mimetype, uri, parameters)
        datums = datums if isinstance(datums, Datums) else Datums({"index": datums}, len(datums))
        return BlockReader(*self._found(doc), {"shape": list(shape)}).read(datums, roi)

    def stream_shape(self, mimetype, uri, shape, **parameters):
        doc = self._stream(mimetype, uri, parameters)
        reader = BlockReader(*self._found(doc), {"shape": list(shape)})
        return reader.cell_shape(Datums.range(0, 1))

    def _stream(self, mimetype, uri, parameters):
        return {
            "uid": "u",
            "mimetype": mimetype,
            "uri": f"file://localhost{uri}",
            "data_key": "k",
            "parameters": parameters,
        }


@pytest.fixture
def reader():
    return Reader()


def open_files(folder) -> list[str]:
    """Paths below a folder that this process has open, as the system tells; no open stores."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if path.startswith(os.path.realpath(folder) + os.sep) and ".sqlite" not in path:
            found.append(path)
    return found


@pytest.fixture(autouse=True)
def no_file_left_open(tmp_path_factory):
    """Check that a test leaves no new file open after the cache of handlers is emptied."""
    folder = tmp_path_factory.getbasetemp()
    before = open_files(folder)
    yield
    open_handlers().clear()
    if not set(open_files(folder)) <= set(before):
        gc.collect()  # tracebacks of expected errors hold on to what failed
    assert set(open_files(folder)) <= set(before)
