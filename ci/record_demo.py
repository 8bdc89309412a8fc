"""Record the documents of a RunEngine that ``daskbroker demo`` inserts.

    python ci/record_demo.py

Needs bluesky and ophyd. The recordings are part of the package, so that the demo shows the same
with and without bluesky. uids and times are those of the recording, so README's output changes
after a new one: run ``make -C docs readme``.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping

import numpy as np
from bluesky import RunEngine
from bluesky.plans import grid_scan, scan
from bluesky.preprocessors import SupplementalData
from ophyd.sim import SynAxis, SynSignal

from daskbroker.core.documents import plain
from daskbroker.core.json_text import to_json
from daskbroker.demo.recorded import RECORDED

KELVIN = range(300, 700, 10)
POINT = 0.06
"""Seconds per point of the run that the demo follows live."""


def main() -> None:
    """Take the runs, and write a file of each kind of run."""
    engine = RunEngine({})
    records: list[str] = []
    engine.subscribe(lambda name, doc: records.append(to_json([name, plain(doc)])))
    baseline = SupplementalData(baseline=[SynAxis(name="sample_x"), SynAxis(name="sample_y")])
    engine.preprocessors.append(baseline)
    rng = np.random.default_rng(19)

    motor = SynAxis(name="motor")
    for kelvin in KELVIN:
        center = -1 + 0.005 * (kelvin - 300) + rng.normal(0, 0.03)
        engine(
            scan([counter(rng, 9_000, 0.6, {motor: center})], motor, -3, 3, 31),
            sample="Ag-3",
            temperature=kelvin,
        )
    write(records, "furnace")

    engine(
        scan([counter(rng, 9_000, 0.9, {motor: 0.0})], motor, -5, 5, 101),
        sample="Ag-3",
        purpose="find the peak",
    )
    write(records, "scan")

    axes = SynAxis(name="motor1"), SynAxis(name="motor2")
    spot = counter(rng, 5_000, 0.8, {axes[0]: 0.4, axes[1]: -0.3})
    plan = grid_scan([spot], axes[0], -2, 2, 21, axes[1], -2, 2, 21, snake_axes=True)
    engine(plan, sample="Ag-3", purpose="find the grain")
    write(records, "grid")

    slow = SynAxis(name="motor", delay=POINT)
    engine(
        scan([counter(rng, 9_000, 0.6, {slow: 0.5})], slow, -3, 3, 31),
        sample="Au-1",
        purpose="watched while taken",
    )
    write(records, "live")


def counter(
    rng: np.random.Generator, most: float, width: float, centers: Mapping[SynAxis, float]
) -> SynSignal:
    """Return a detector of counts, with the maximum where its motors are at their centers."""

    def counts() -> int:
        away = sum((axis.position - center) ** 2 for axis, center in centers.items())
        return int(rng.poisson(most * np.exp(-away / (2 * width**2))))

    return SynSignal(counts, name="det", kind="hinted")


def write(records: list[str], name: str) -> None:
    """Write the documents since the last call; the same documents make the same bytes."""
    text = "".join(f"{record}\n" for record in records)
    (RECORDED / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    records.clear()


if __name__ == "__main__":
    main()
