"""Times of other programs for the same tasks, to compare with."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTE", "REFERENCE", "Reference"]

NOTE = "measured once on one machine of this kind"


class Reference(NamedTuple):
    """One number of another program; ``unit`` is ``"s"`` or a rate."""

    program: str
    what: str
    value: float
    unit: str = "s"


DATABROKER, TILED, FLOOR = "databroker 1.2.5", "tiled 0.2.20", "pyarrow"

REFERENCE: dict[str, Reference] = {
    "databroker table": Reference(DATABROKER, "table of 100k events x 12 columns", 11.3),
    "databroker documents": Reference(DATABROKER, "documents of the same run", 9.8),
    "databroker 200 runs": Reference(DATABROKER, "search and table of 200 short runs", 17.8),
    "databroker search": Reference(DATABROKER, "the search for these 200 runs alone", 6.7),
    "databroker spectra": Reference(DATABROKER, "table of 20,000 spectra of 1,024 floats", 5.6),
    "databroker insert": Reference(DATABROKER, "inserting events", 2_100, "documents/s"),
    "databroker fill": Reference(DATABROKER, "table of 1,000 frames 512 x 512 from HDF5", 3.7),
    "databroker row": Reference(DATABROKER, "a row of pixels of these frames", 0.66),
    "tiled table": Reference(TILED, "table of 100k events x 12 columns", 0.54),
    "recorded floor": Reference(FLOOR, "read_table().to_pandas() of that table", 0.019),
    "recorded floor, one column": Reference(FLOOR, "the same of one column", 0.005),
}
