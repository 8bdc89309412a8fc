"""Timed requests to VirtualiZarr: references to an HDF5 file, read by xarray.

The peer's Python runs this file; see ``answering.py``. The time to make the references is not
counted, just as daskbroker makes its own when the run is inserted.
"""

import virtualizarr
import xarray
import zarr
from answering import answer
from obstore.store import LocalStore
from virtualizarr.parsers import HDFParser
from virtualizarr.registry import ObjectStoreRegistry


def versions():
    """Return a function that gives the versions of the packages that are compared."""
    modules = (virtualizarr, xarray, zarr)
    return lambda: {module.__name__: module.__version__ for module in modules}


def frames(path, dataset, row=None):
    """Read all frames, or one row of pixels of each; return a sum to compare."""
    group, _, name = dataset.strip("/").rpartition("/")
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    references = HDFParser(group=group)(url=f"file://{path}", registry=registry)

    def work():
        opened = xarray.open_zarr(references, consolidated=False, zarr_format=3, chunks=None)
        with opened:
            image = opened[name]
            values = (image if row is None else image[:, row]).to_numpy()
        return {"shape": values.shape, "last": int(values[-1].sum())}

    return work


if __name__ == "__main__":
    answer(versions, frames)
