"""Iron on the heating stage of a powder diffraction beamline, simulated.

Ten runs heat it from 300 K to 1500 K. At 1185 K ferrite (body-centred) becomes austenite
(face-centred): the rings shift, and then other rings replace them. The detector has gaps between
its modules, and writes bitshuffle-LZ4 HDF5 files as an Eiger does. The ring current decays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from event_model import compose_run
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

DATASET = "/entry/data/data"
GAP = 65535
"""Value that the detector writes where it has no pixel."""

TRANSITION = 1185.0  # K
FERRITE = {"a": 2.866, "expansion": 12e-6, "squares": (2, 4, 6, 8, 10, 12)}
AUSTENITE = {"a": 3.572, "expansion": 23e-6, "squares": (3, 4, 8, 11, 12, 16)}


def geometry(side: int) -> dict[str, float]:
    """Return the geometry of a square detector, 77 mm wide, 20 cm behind the sample; 62 keV."""
    pixel = 0.0768 / side
    return {
        "dist": 0.2, "poni1": 0.0384, "poni2": 0.0384,
        "pixel1": pixel, "pixel2": pixel, "wavelength": 2e-11,
    }  # fmt: skip


def take(
    folder: Path, side: int, runs: int, frames: int, seed: int = 0
) -> Iterator[tuple[str, Any]]:
    """Yield the documents of all runs; their files are written below ``folder``."""
    rng = np.random.default_rng(seed)
    momentum = AzimuthalIntegrator(**geometry(side)).array_from_unit(
        (side, side), "center", "q_A^-1"
    )
    gaps = np.zeros((side, side), bool)
    gaps[side // 2 - side // 64 : side // 2 + side // 64] = True
    folder.mkdir(parents=True, exist_ok=True)
    temperatures = np.linspace(300, 1500, runs * frames).reshape(runs, frames)
    for number, ramp in enumerate(temperatures):
        monitor = 2e5 * np.exp(-0.02 * np.arange(frames)) * rng.normal(1, 0.01, frames)
        images = [
            expose(momentum, gaps, kelvin, current / 2e5, rng)
            for kelvin, current in zip(ramp, monitor)
        ]
        path = folder / f"heating_{number:02d}.h5"
        write(path, images)
        yield from documents(path, number, ramp, monitor, side)


def expose(
    momentum: np.ndarray,
    gaps: np.ndarray,
    kelvin: float,
    current: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a frame: the rings of the sample at a temperature, with counting noise."""
    austenite = 1 / (1 + np.exp((TRANSITION - kelvin) / 12))
    axis = np.linspace(0, momentum.max() * 1.01, 4000)
    profile = 30 + 60 * np.exp(-axis)
    for phase, share in ((FERRITE, 1 - austenite), (AUSTENITE, austenite)):
        lattice = phase["a"] * (1 + phase["expansion"] * (kelvin - 300))
        for squares in phase["squares"]:
            ring = 2 * np.pi * np.sqrt(squares) / lattice
            profile += share * 900 / squares * np.exp(-(((axis - ring) / 0.02) ** 2) / 2)
    image = rng.poisson(current * np.interp(momentum, axis, profile)).astype(np.uint16)
    image[gaps] = GAP
    return image


def write(path: Path, images: list[np.ndarray]) -> None:
    """Write one HDF5 file with a chunk per frame."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            DATASET,
            data=np.stack(images),
            chunks=(1, *images[0].shape),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )


def documents(
    path: Path, number: int, ramp: np.ndarray, monitor: np.ndarray, side: int
) -> Iterator[tuple[str, Any]]:
    """Yield the documents of one run, as a RunEngine does: an event and a frame per temperature."""
    first = 1_795_600_000.0 + 600 * number
    run = compose_run(
        time=first,
        metadata={"scan_id": number + 1, "plan_name": "heating", "sample": {"name": "iron"}},
    )
    yield "start", run.start_doc
    stream = run.compose_descriptor(
        name="primary",
        data_keys={
            "temperature": {"dtype": "number", "shape": [], "source": "SIM", "units": "K"},
            "i0": {"dtype": "number", "shape": [], "source": "SIM"},
            "img": {
                "dtype": "array", "shape": [side, side], "dtype_numpy": "<u2", "source": "SIM",
                "external": "STREAM:",
            },
        },
    )  # fmt: skip
    yield "descriptor", stream.descriptor_doc
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=path.resolve().as_uri(),
        data_key="img",
        parameters={"dataset": DATASET, "chunk_shape": [1, side, side]},
    )
    yield "stream_resource", resource.stream_resource_doc
    yield (
        "stream_datum",
        resource.compose_stream_datum(
            indices={"start": 0, "stop": len(ramp)},
            seq_nums={"start": 1, "stop": len(ramp) + 1},
            descriptor=stream.descriptor_doc,
        ),
    )
    for place, (kelvin, current) in enumerate(zip(ramp, monitor)):
        data = {"temperature": float(kelvin), "i0": float(current)}
        when = first + 10 * (place + 1)
        yield (
            "event",
            stream.compose_event(data=data, timestamps=dict.fromkeys(data, when), time=when),
        )
    yield "stop", run.compose_stop(time=first + 10 * (len(ramp) + 1))
