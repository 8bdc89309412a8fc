"""A notebook session with xarray: open lazily, select, reduce, and see where it comes from."""

from __future__ import annotations

import numpy as np

import daskbroker
from daskbroker.testing import RunBuilder

with daskbroker.temp() as db:
    run = RunBuilder(hints={"dimensions": [[["motor"], "primary"]]}, sample={"name": "Ag"})
    spectrum = {"source": "det", "dtype": "array", "shape": [256], "dims": ["energy"], "units": "1"}
    descriptor = run.descriptor({"motor": 0.5, "spectrum": spectrum})
    energy = np.arange(256)
    for position in np.linspace(-1, 1, 21):
        peak = np.exp(-(((energy - 128) / 20) ** 2)) * np.exp(-(position**2))
        run.event(descriptor, {"motor": position, "spectrum": peak})
    for name, doc in run.stop():
        db.insert(name, doc)

    dataset = db[-1].dataset()  # reads time and seq_num, no spectrum
    print(dataset["spectrum"])
    part = dataset["spectrum"][:, 100:156]  # reads these 56 channels, when computed
    curve = part.sum("energy").swap_dims(time="motor")
    print("highest at motor =", float(curve.idxmax("motor").compute()))
    print(
        "from run",
        dataset.attrs["run"],
        "of sample",
        daskbroker.attrs(dataset)["start"].sample.name,
    )
