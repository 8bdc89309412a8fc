"""The steps of the demo."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
from distributed import Client

from ..broker import DataBroker
from ..connect import connect
from ..core.errors import ConfigError
from ..header import Header
from ..work.reprocess import reprocess
from .composed import FLY_ROWS, FLY_UID, FRAMES_UID
from .frame_file import FRAME_SIDE, FRAMES
from .making import insert_fly_scan, insert_frames, insert_recorded, take_live
from .picture import peaks_of, save_picture
from .recorded import recorded_runs
from .shown import Rate, Shown, timed

MEGABYTE = 1e6


def run_demo(folder: Path, say: Callable[[str], None] = print) -> None:
    """Make runs, and show what can be done with them.

    Parameters
    ----------
    folder
        Folder for two stores and a picture. Stores of an earlier demo in it are used again.
    say
        Function that shows a text, which may have several lines.
    """
    shown = Shown(say)
    say("daskbroker demo: runs of a beamline are stored, and read in several ways.")
    with connect(folder / "store") as db, connect(folder / "results") as results:
        file = _store(shown, db, folder)
        _find(shown, db)
        _read_table(shown, db[FLY_UID])
        _read_grid(shown, db)
        with _two_workers(file.parent) as client:
            mean = _average_frames(shown, db[FRAMES_UID])
            _follow(shown, db, client)
            _read_many(shown, db)
            _derive(shown, db, results)
        _draw(shown, db, results, mean, folder / "demo.png")
    made = shlex.join([str(folder), str(file.parent)])
    say(
        f"\nGo on with the tour of README.md, or:\n"
        f"daskbroker ls --db {shlex.quote(str(folder / 'store'))}\n"
        f"\nTwo stores and the picture are in {folder}, frames in\n"
        f"{file.parent}. To remove them:\n"
        f"rm -r {made}"
    )


@contextmanager
def _two_workers(scratch: Path) -> Iterator[Client]:
    """Start a quiet ``Client(n_workers=2)`` with a dashboard at a free port, files in a folder."""
    quiet = logging.CRITICAL
    with (
        dask.config.set({"temporary-directory": str(scratch)}),
        Client(n_workers=2, dashboard_address="127.0.0.1:0", silence_logs=quiet) as client,
    ):
        yield client


def _store(shown: Shown, db: DataBroker, folder: Path) -> Path:
    """Insert the runs into the store; return the path of the file of frames."""
    shown.step("Store what a RunEngine emits (here it was recorded)")
    place = (folder / "store").as_posix()
    shown.call(f'db = daskbroker.connect("{place}")', "RE.subscribe(db.insert)")
    new = insert_recorded(db)
    shown.result(f"{new} new runs of bluesky: scans in a furnace, one more scan, a grid scan")
    seconds = insert_fly_scan(db)
    if seconds is None:
        shown.result("0 new fly scan")
    else:
        shown.result(Rate("1 new fly scan, 12 columns", seconds, FLY_ROWS, "rows"))
    file, new = insert_frames(db)
    raw, size = FRAMES * FRAME_SIDE * FRAME_SIDE * 2 / MEGABYTE, file.stat().st_size / MEGABYTE
    told = f"{FRAMES:,} frames, {raw:.0f} MB in a file of {size:.0f} MB (bitshuffle-LZ4)"
    shown.result(f"{new:d} new run of {told}")
    return file


def _find(shown: Shown, db: DataBroker) -> None:
    shown.step("Find runs")
    shown.call('db(sample="Ag-3", temperature={"$gte": 650})')
    shown.result(db(sample="Ag-3", temperature={"$gte": 650}))


def _read_table(shown: Shown, header: Header) -> None:
    shown.step(f"A table of {FLY_ROWS:,} rows: lazy, a dask.dataframe")
    shown.call(
        'fly = db(sample="Cu")[0]',
        "table = fly.table()",
        'table[["energy", "i0", "it", "temperature"]].head(3)',
    )
    table = header.table()
    shown.result(table[["energy", "i0", "it", "temperature"]].head(3).to_string())
    shown.call(
        "table.compute()",
        '[doc["data"] for name, doc in fly.documents() if name == "event"]',
    )
    frame, seconds = timed(table.compute)
    looped, of_loop = timed(lambda: pd.DataFrame([doc["data"] for doc in _events(header)]))
    shown.beside(
        Rate("as a table", seconds, FLY_ROWS, "rows"),
        Rate("by a loop over its events", of_loop, FLY_ROWS, "rows"),
        equal=np.array_equal(frame[looped.columns], looped),
    )
    shown.call('table["it"].mean().compute()  # reads this column only')
    mean, seconds = timed(table["it"].mean().compute)
    shown.result(f"{mean:.3f}")
    shown.result(Rate("one column", seconds, FLY_ROWS, "rows"))


def _events(header: Header) -> Any:
    return (doc for name, doc in header.documents() if name == "event")


def _read_grid(shown: Shown, db: DataBroker) -> None:
    shown.step("A grid scan as a grid: an xarray.Dataset")
    shown.call('grid = db(plan_name="grid_scan")[0].dataset(grid=True)')
    grid = db(plan_name="grid_scan")[0].dataset(grid=True)
    shown.result(dict(grid.sizes))
    shown.call('grid["det"].sel(motor1=0.4, method="nearest").max().values')
    shown.result(grid["det"].sel(motor1=0.4, method="nearest").max().values)


def _average_frames(shown: Shown, header: Header) -> np.ndarray:
    """Average the frames on the workers; return the mean frame."""
    shown.step(f"{FRAMES:,} compressed frames, averaged by two worker processes")
    shown.call(
        "client = Client(n_workers=2)",
        'frames = db(sample="LaB6")[0]',
        'img = frames.dataset()["img"]',
        'img.mean("time").compute()',
        'for name, doc in frames.documents(): total += doc["data"]["img"]',
    )
    image = header.dataset()["img"]
    image[:2].mean("time").compute()  # the first task of a worker imports modules
    mean, seconds = timed(image.mean("time").compute)
    total, of_loop = timed(lambda: sum(doc["data"]["img"].astype(float) for doc in _events(header)))
    megabytes = image.nbytes / MEGABYTE
    shown.beside(
        Rate("on the workers", seconds, megabytes, "MB"),
        Rate("by a loop over its events", of_loop, megabytes, "MB"),
        equal=np.allclose(mean, total / FRAMES),
    )
    shown.call('img[:, 0, 256, 180:186].mean("time").values  # six pixels of each frame')
    shown.result(image[:, 0, 256, 180:186].mean("time").values)
    return mean.values[0]


def _follow(shown: Shown, db: DataBroker, client: Any) -> None:
    shown.step("A run while another process takes it")
    uid = next(recorded_runs("live"))[0][1]["uid"]
    there = uid in db and db[uid].stop is not None
    shown.call(
        'live = db(sample="Au-1")[0]',
        'for rows in live.follow("primary", format="dataframe"): ...',
    )
    ages: list[float] = []
    taking = None
    if not there:
        begun = db.watch(sample="Au-1", interval=0.05, timeout=60)
        taking = client.submit(take_live, db.uri, pure=False)
        if uid not in db:
            next(begun)
    live = db[uid]
    state = "it has ended" if there else "it is in progress (live.stop is None)"
    for rows in live.follow("primary", format="dataframe", interval=0.05, timeout=60):
        now = pd.Timestamp.now("UTC")
        ages += [(now - taken).total_seconds() for taken in rows["time"]]
    shown.result(f"{state}; {len(ages)} events, and its stop: {live.stop['exit_status']}")
    if taking is not None:
        taking.result()
        shown.result(f"each was here {np.median(ages):.2f} s after it was taken (median)")


def _read_many(shown: Shown, db: DataBroker) -> None:
    shown.step("Many runs as one table, with what their start documents say")
    shown.call(
        'runs = db(temperature={"$exists": True})',
        'table = runs.table(fields=["motor", "det", "start:temperature"])',
        'table.groupby("start:temperature")["det"].sum().compute().head(3)',
    )
    runs = db(temperature={"$exists": True})
    table = runs.table(fields=["motor", "det", "start:temperature"])
    counts = table.groupby("start:temperature")["det"].sum().compute()
    shown.result(counts.head(3).to_string())
    shown.result(f"{len(runs)} runs, {len(table):,} rows in {table.npartitions} partition")


def peak(header: Header) -> pd.DataFrame:
    """Return the position of a scan's peak, its centre of mass, as a DataFrame of one row."""
    frame = header.table(fields=["motor", "det"]).compute(scheduler="synchronous")
    position = np.average(frame["motor"], weights=frame["det"])
    return pd.DataFrame({"position": [position]})


def _derive(shown: Shown, db: DataBroker, results: DataBroker) -> None:
    shown.step("Derived runs: a function of each run, on the workers, each made once")
    shown.call(
        "def peak(header):",
        '    frame = header.table(fields=["motor", "det"]).compute()',
        '    position = np.average(frame["motor"], weights=frame["det"])',
        '    return pd.DataFrame({"position": [position]})',
        'daskbroker.reprocess(runs, peak, into=results, name="peak")',
    )
    runs = db(temperature={"$exists": True})
    shown.result(reprocess(runs, peak, results, name="peak", progress=False))
    shown.call(
        'peaks = results(descriptor={"data_keys.position": {"$exists": True}})',
        'table = peaks.table(fields=["position", "start:temperature"])',
        'table[["position", "start:temperature"]].nsmallest(3, "position").compute()',
    )
    table = peaks_of(results).table(fields=["position", "start:temperature"])
    table = table[["position", "start:temperature"]]
    shown.result(table.nsmallest(3, "position").compute().to_string())


def _draw(shown: Shown, db: DataBroker, results: DataBroker, mean: np.ndarray, path: Path) -> None:
    shown.step("A picture of it all")
    try:
        save_picture(path, db, results, mean)
    except ConfigError as error:  # matplotlib is not installed
        shown.result(f"none: {error}")
    else:
        shown.result(path)
