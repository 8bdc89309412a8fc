"""Reading a block: what can fail says where."""

from __future__ import annotations

import time

import numpy as np
import pytest

from daskbroker.assets.handlers import BlockHandler
from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames, write_hdf5


class Wrong(BlockHandler):
    def __init__(self, path, gives):
        self.gives = gives

    def read(self, datums, roi=()):
        return np.zeros(1) if self.gives == "too few" else iter(())


def test_a_missing_file_fails_at_once(tmp_path, reader):
    start = time.monotonic()
    where = r"run 'r', stream 's', key 'k', spec 'AD_HDF5(_SWMR)?', path '.*gone\.h5': no such file"
    for spec in ("AD_HDF5", "AD_HDF5_SWMR"):
        with pytest.raises(FillError, match=where):
            reader.resource(spec, tmp_path / "gone.h5", [{"point_number": 0}])
    assert time.monotonic() - start < 1


def test_a_missing_handler(reader):
    with pytest.raises(FillError, match="run 'r': no handler for spec 'ZZ'; register one"):
        reader.resource("ZZ", "/f", [{}])


def test_keywords_that_the_handler_lacks(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(2))
    with pytest.raises(FillError, match=r"key 'k'.*TypeError.*'frames'"):
        reader.resource("AD_HDF5", path, [{"point_number": 0}], frames=3)
    with pytest.raises(FillError, match=r"key 'k'.*lack 'point_number'; they have 'index'"):
        reader.resource("AD_HDF5", path, [{"index": 0}])


@pytest.mark.parametrize("gives", ["too few", "iterator"])
def test_a_handler_that_breaks_its_contract(reader, gives):
    reader.registry.register("W", Wrong)
    with pytest.raises(FillError, match="that is not a block of 2 cells"):
        reader.resource("W", "/f", [{}, {}], gives=gives)


def test_no_file_of_the_format(tmp_path, reader):
    (tmp_path / "f").write_text("hello")
    for spec, kwargs in (("AD_HDF5", {}), ("npy", {})):
        with pytest.raises(FillError, match=f"spec '{spec}'"):
            reader.resource(spec, tmp_path / "f", [{"point_number": 0}], **kwargs)
