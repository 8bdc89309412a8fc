"""Runs that are too large to be recorded, composed with event_model: a fly scan and frames.

Uids and times are the same each time, so inserting them again adds nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from event_model import compose_run

from .frame_file import DATASET, FRAME_SIDE, FRAMES
from .recorded import Documents

FLY_ROWS = 100_000
"""Number of rows of the fly scan."""
EDGE = 8979.0
"""Energy of the K edge of copper, in electron volts."""
PAGE = 2_000
"""Number of rows of an event page, in which a flyer is collected."""
BEGIN = 1_795_696_800.0
"""POSIX time at which the fly scan begins; the recorded runs are some minutes older."""


def _uid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://daskbroker.example/demo/{name}"))


FLY_UID = _uid("fly")
FRAMES_UID = _uid("frames")


def fly_scan() -> Documents:
    """Return a run in which the energy is swept over an absorption edge.

    Twelve signals are collected in event pages.
    """
    columns = _spectrum()
    run, stream = _begun(FLY_UID, BEGIN, _fly_metadata(), {key: _claim() for key in columns})
    times = BEGIN + 0.5 + np.arange(FLY_ROWS) * 0.0005
    documents: Documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for first in range(0, FLY_ROWS, PAGE):
        rows = slice(first, first + PAGE)
        part = {key: values[rows] for key, values in columns.items()}
        documents.append(("event_page", _page(stream, "fly", first, times[rows], part)))
    documents.append(("stop", run.compose_stop(uid=_uid("fly/stop"), time=float(times[-1]) + 0.5)))
    return documents


def frames_run(uri: str) -> Documents:
    """Return a run of one signal and of detector frames in a file, referred to by stream documents.

    Parameters
    ----------
    uri
        URI of the HDF5 file with the frames.
    """
    begin = BEGIN + 120
    dims = ["frame", "y", "x"]
    image = _claim(
        "array", [1, FRAME_SIDE, FRAME_SIDE], dims=dims, dtype_numpy="<u2", external="STREAM:"
    )
    metadata = {"plan_name": "count", "scan_id": 45, "sample": "LaB6", "num_points": FRAMES}
    run, stream = _begun(FRAMES_UID, begin, metadata, {"i0": _claim(), "img": image})
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=uri,
        data_key="img",
        parameters={"dataset": DATASET, "chunk_shape": [1, FRAME_SIDE, FRAME_SIDE]},
        uid=_uid("frames/resource"),
    )
    documents: Documents = [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("stream_resource", resource.stream_resource_doc),
    ]
    current = np.random.default_rng(1).normal(100.0, 1.0, FRAMES)
    times = begin + 0.5 + np.arange(FRAMES) * 0.01
    for first in range(0, FRAMES, 100):
        rows = slice(first, first + 100)
        datum = resource.compose_stream_datum(
            indices={"start": first, "stop": first + 100},
            seq_nums={"start": first + 1, "stop": first + 101},
            descriptor=stream.descriptor_doc,
        )
        documents.append(("stream_datum", datum))
        documents.append(
            ("event_page", _page(stream, "frames", first, times[rows], {"i0": current[rows]}))
        )
    stop = run.compose_stop(uid=_uid("frames/stop"), time=float(times[-1]) + 0.5)
    documents.append(("stop", stop))
    return documents


def _fly_metadata() -> dict[str, Any]:
    return {
        "plan_name": "fly",
        "scan_id": 44,
        "sample": "Cu",
        "motors": ["energy"],
        "hints": {"dimensions": [[["energy"], "primary"]]},
    }


def _claim(dtype: str = "number", shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"source": "SIM", "dtype": dtype, "shape": shape or [], **more}


def _begun(
    uid: str, time: float, metadata: Mapping[str, Any], data_keys: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Return the composers of a run and of its primary stream."""
    run = compose_run(uid=uid, time=time, metadata=dict(metadata))
    stream = run.compose_descriptor(
        name="primary", data_keys=dict(data_keys), time=time + 0.25, uid=_uid(f"{uid}/primary")
    )
    return run, stream


def _page(
    stream: Any, name: str, first: int, times: np.ndarray, data: Mapping[str, np.ndarray]
) -> Any:
    moments = times.tolist()
    numbers = list(range(first + 1, first + len(moments) + 1))
    return stream.compose_event_page(
        data={key: values.tolist() for key, values in data.items()},
        timestamps=dict.fromkeys(data, moments),
        seq_num=numbers,
        uid=[_uid(f"{name}/{number}") for number in numbers],
        time=moments,
        validate=False,  # it takes a minute, and `insert` validates anyway
    )


def _spectrum() -> dict[str, np.ndarray]:
    """Return the columns of the fly scan: noisy counts, and values that drift slowly."""
    rng = np.random.default_rng(0)
    energy = np.linspace(EDGE - 79, EDGE + 221, FLY_ROWS)
    absorbed = _absorption(energy)
    ring = 200.0 - np.linspace(0.0, 1.0, FLY_ROWS)
    i0 = rng.normal(5.0e4, 250.0, FLY_ROWS) * ring / 200.0
    it = i0 * np.exp(-absorbed) + rng.normal(0.0, 120.0, FLY_ROWS)
    fluorescence = {f"fluo_{n}": rng.poisson(40 * absorbed * n) * 1.0 for n in (1, 2, 3, 4)}
    return {
        "energy": energy,
        "i0": i0,
        "it": it,
        "ir": it * 0.31 + rng.normal(0.0, 60.0, FLY_ROWS),
        **fluorescence,
        "encoder": np.round(energy * 811.0),
        "ring_current": ring,
        "temperature": 295.0
        + 0.2 * np.sin(np.arange(FLY_ROWS) / 9_000)
        + rng.normal(0, 0.01, FLY_ROWS),
        "dwell": np.full(FLY_ROWS, 0.0005),
    }


def _absorption(energy: np.ndarray) -> np.ndarray:
    """Return the absorption at some energies: an edge, its white line and its oscillations."""
    above = np.clip(energy - EDGE, 0.0, None)
    edge = 0.9 / (1 + np.exp((EDGE - energy) / 1.2))
    line = 0.35 * np.exp(-((above - 8.0) ** 2) / 50.0) * (above > 0)
    waves = 0.08 * np.sin(1.1 * np.sqrt(above) * 2.0) * np.exp(-above / 120.0)
    return 0.3 + edge + line + waves
