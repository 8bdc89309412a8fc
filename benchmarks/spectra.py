"""A run with a spectrum in each event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import daskbroker
from benchmarks.checks import equals, has_count, holds
from benchmarks.data import Run, plain_file
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.tables import count_events

__all__ = ["spectra"]


def spectra(sizes: Sizes, folder: Path) -> Workload:
    """20,000 events with 1,024 floats each: table, dataset, documents, beside a plain file."""
    random = np.random.default_rng(3)
    shape = (sizes.spectra, sizes.spectrum_length)
    columns = {"x": random.normal(size=sizes.spectra), "spectrum": random.normal(size=shape)}
    run = Run(columns)
    broker = daskbroker.connect(folder / "store")
    run.insert(broker)
    path = plain_file(folder / "plain.parquet", columns)
    cases = [
        Case(
            "floor",
            lambda: pq.read_table(path).to_pandas(),
            holds("spectrum", columns["spectrum"], 4),
        ),
        Case(
            "table",
            lambda: broker[run.uid].table().compute(),
            holds("spectrum", columns["spectrum"], 3),
            (Against("floor"), Against("databroker spectra")),
        ),
        Case(
            "dataset",
            lambda: broker[run.uid].dataset().compute()["spectrum"].to_numpy(),
            equals(columns["spectrum"]),
            (Against("floor"), Against("databroker spectra")),
        ),
        Case(
            "dataset, lazy without dask",
            lambda: broker[run.uid].dataset(chunks=None)["spectrum"].to_numpy(),
            equals(columns["spectrum"]),
            (Against("floor"),),
        ),
        Case(
            "documents",
            lambda: count_events(broker[run.uid].documents()),
            has_count(sizes.spectra),
            (Against("floor"),),
            sizes.spectra,
            "documents",
        ),
    ]
    return Workload(cases, broker.close)
