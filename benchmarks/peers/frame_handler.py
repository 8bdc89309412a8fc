"""The handler with which both databrokers read frames; their Pythons import it."""

import h5py


class FrameHandler:
    """Read one frame of an HDF5 file per call, as area-detector-handlers does."""

    specs = frozenset({"AD_HDF5"})

    def __init__(self, path, frame_per_point=1):
        self._file = h5py.File(path)
        self._dataset = self._file["/entry/data/data"]

    def __call__(self, point_number):
        return self._dataset[point_number : point_number + 1]

    def close(self):
        self._file.close()
