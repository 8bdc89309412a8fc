"""Real runs to try daskbroker with, and a tour of what it shows of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .broker import DataBroker
from .core.errors import ConfigError
from .display.plots import save_plot
from .header import Header

__all__ = ["make_runs", "tour"]

Say = Callable[[str], None]


def make_runs(db: DataBroker) -> str:
    """Insert a few runs: by a bluesky RunEngine if it is installed, else by event_model.

    Returns
    -------
    str
        Which of the two made them.
    """
    if find_spec("bluesky") is not None and find_spec("ophyd") is not None:
        _run_engine(db)
        return "a bluesky RunEngine with ophyd's simulated devices"
    for name, doc in _composed():
        db.insert(name, doc)
    return "event_model (bluesky is not installed)"


def _run_engine(db: DataBroker) -> None:
    from bluesky import RunEngine
    from bluesky.plans import count, grid_scan, scan
    from bluesky.preprocessors import SupplementalData
    from ophyd.sim import det, det4, motor, motor1, motor2

    engine = RunEngine({})
    engine.subscribe(db.insert)
    engine.preprocessors.append(SupplementalData(baseline=[motor1, motor2]))
    engine(count([det], num=5), sample="empty")
    engine(grid_scan([det4], motor1, -2, 2, 8, motor2, -2, 2, 8), sample="Ag-3")
    engine(scan([det], motor, -5, 5, 101), sample="Ag-3", purpose="find the peak")


def _composed() -> Iterator[tuple[str, Any]]:
    """A scan of a peak, composed document by document."""
    from event_model import compose_run

    run = compose_run(
        metadata={
            "scan_id": 1,
            "plan_name": "scan",
            "sample": "Ag-3",
            "hints": {"dimensions": [[["motor"], "primary"]]},
        }
    )
    yield "start", run.start_doc
    keys = {key: {"dtype": "number", "shape": [], "source": "SIM"} for key in ("det", "motor")}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    yield "descriptor", stream.descriptor_doc
    for step in range(101):
        motor = -5 + step / 10
        data = {"det": math.exp(-(motor**2) / 2), "motor": motor}
        stamps = dict.fromkeys(data, run.start_doc["time"] + step / 10)
        yield "event", stream.compose_event(data=data, timestamps=stamps)
    yield "stop", run.compose_stop()


def tour(db: DataBroker, folder: Path, say: Say = print) -> None:
    """Show the catalogue, a lazy table, a dataset, the documents and a picture."""
    say("The catalogue: db[-5:]\n")
    say(repr(db[-5:]))
    header = db(plan_name="scan")[0]
    table = header.table()
    say(f"\nA lazy table: db(plan_name='scan')[0].table()\n\n{table}\n")
    say(f"Its computed head: table.head()\n\n{db.tz_convert(table.head()).to_string()}\n")
    dataset = header.dataset()
    dataset.attrs = {k: dataset.attrs[k] for k in ("run", "plan_name", "stream")}
    say(f"A dataset: header.dataset() (some attributes shown)\n\n{dataset}\n")
    say("The document stream: header.documents()\n")
    counts: dict[str, int] = {}
    for name, _ in header.documents():
        counts[name] = counts.get(name, 0) + 1
    say("  " + ", ".join(f"{number} {name}" for name, number in counts.items()) + "\n")
    say(_picture(header, folder / "picture.png"))


def _picture(header: Header, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_plot(path, [header])
    except ConfigError as error:  # matplotlib is not installed
        return f"No picture: {error}"
    return f"A picture: {path}"
