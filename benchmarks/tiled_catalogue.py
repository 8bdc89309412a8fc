"""Many runs served by Tiled, from daskbroker and from Tiled's own catalogue; frames of a file.

    python -m benchmarks.tiled_catalogue [--runs 10000] [--frames 200] [--repeat 5]

Both servers are processes of their own on the loopback interface, with the same start and stop
documents. Tiled's catalogue is SQLite, as made by ``tiled serve catalog``. The client is the same.
Times are medians in milliseconds; the two servers take turns in each repetition. For frames, the
time that the server takes to read them is printed as well, and the CPU time of both processes. The
rest is spent by Tiled, which hashes, packs and sends them.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import psutil
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri
from tiled.queries import Comparison, Eq, FullText, Like
from tiled.structures.core import Spec

import daskbroker
from daskbroker.testing import RunBuilder

KEY = "measured"
SAMPLES = ("silver", "gold", "copper", "iron", "glass", "nickel", "salt", "empty")
SIDE = 512
CONFIGURATION = """
authentication: {{single_user_api_key: {key}}}
trees:
  - path: /
    tree: catalog
    args: {{uri: "sqlite:///{folder}/catalog.db", writable_storage: ["{folder}/data"],
            readable_storage: ["{folder}"], init_if_not_exists: true}}
"""


@contextmanager
def serving(command: list[str], port: int) -> Iterator[Any]:
    """Start a server, and yield its client."""
    environment = {**os.environ, "TILED_SINGLE_USER_API_KEY": KEY}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [*command, "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for _ in range(1200):
                try:
                    httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            client = from_uri(f"{url}/?api_key={KEY}")
            client.context.server_pid = process.pid
            yield client
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def documents(number: int) -> list[tuple[str, dict[str, Any]]]:
    start = {"sample": {"name": SAMPLES[number % 8]}, "scan_id": number + 1}
    run = RunBuilder(plan_name="scan", num_points=number % 97, user=f"user{number % 31}", **start)
    descriptor = run.descriptor({"x": 1.0})
    run.event(descriptor, {"x": 0.5})
    return run.stop()


def fill(db: Any, client: Any, runs: int) -> None:
    """Insert the same runs into both catalogues; into Tiled's like TiledWriter, without tables."""
    spec = [Spec("BlueskyRun", version="3.0")]

    def create(docs: list[tuple[str, dict[str, Any]]]) -> None:
        metadata = {"start": docs[0][1], "stop": docs[-1][1]}
        client.create_container(key=docs[0][1]["uid"], metadata=metadata, specs=spec)

    with db.batch(), ThreadPoolExecutor(4) as threads:
        given = [documents(number) for number in range(runs)]
        waiting = threads.map(create, given)
        for name, doc in chain.from_iterable(given):
            db.insert(name, doc)
        list(waiting)  # raises what failed


def operations(runs: int) -> dict[str, Callable[[Any, str], Any]]:
    return {
        "first page of 100": lambda c, uid: [v.metadata for v in c.values()[:100]],
        "last page of 100": lambda c, uid: [
            v.metadata for v in c.values()[max(0, runs - 100) : runs]
        ],
        "keys of a page in the middle": lambda c, uid: c.keys()[runs // 2 : runs // 2 + 100],
        "newest run": lambda c, uid: c.values().last().metadata,
        "by uid": lambda c, uid: c[uid].metadata,
        "by scan_id": lambda c, uid: c.search(Eq("start.scan_id", runs // 2)).values().last(),
        "by prefix of uid": lambda c, uid: c.search(Like("start.uid", f"{uid[:8]}%")).keys()[:2],
        "count of a sample": lambda c, uid: len(c.search(Eq("start.sample.name", "gold"))),
        "count of a range": lambda c, uid: len(c.search(Comparison("gt", "start.num_points", 90))),
        "count of a word": lambda c, uid: len(c.search(FullText("user7"))),
        "page of a sample": lambda c, uid: [
            v.metadata for v in c.search(Eq("start.sample.name", "gold")).values()[:100]
        ],
    }


def image_run(path: Path, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return a run of frames in one HDF5 file."""
    with h5py.File(path, "w") as file:
        images = np.arange(count * SIDE * SIDE, dtype="uint16").reshape(count, SIDE, SIDE)
        file.create_dataset("/entry/data/data", data=images, chunks=(1, SIDE, SIDE))
    run = RunBuilder(plan_name="count")
    claim = {"source": "x", "dtype": "array", "shape": [1, SIDE, SIDE], "dtype_numpy": "<u2"}
    descriptor = run.descriptor({"img": {**claim, "external": "STREAM:"}})
    place = {"dataset": "/entry/data/data", "chunk_shape": [1, SIDE, SIDE]}
    resource = run.stream_resource("img", uri=f"file://localhost{path}", parameters=place)
    run.stream_datum(resource, descriptor, (0, count))
    return run.stop(num_events={"primary": count})


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def compare(ours: Any, theirs: Any, runs: int, repeat: int, uid: str) -> None:
    print(f"{'of ' + format(runs, ',') + ' runs':<32}{'ours':>10}{'Tiled':>10}{'ratio':>8}")
    for name, operation in operations(runs).items():
        pairs = []
        for _ in range(repeat + 1):
            mine = timed(lambda: operation(ours.new_variation(), uid))  # noqa: B023
            pairs.append((mine, timed(lambda: operation(theirs.new_variation(), uid))))  # noqa: B023
        mine, other = (statistics.median(side) for side in zip(*pairs[1:]))
        print(f"{name:<32}{mine:>10.1f}{other:>10.1f}{mine / other:>8.2f}", flush=True)


def frames(ours: Any, theirs: Any, db: Any, uid: str, path: Path, repeat: int) -> None:
    """Read the same frames through both servers, from daskbroker's Dataset, and with h5py."""
    arrays = {
        "frames through ours": ours[uid]["primary"]["img"],
        "frames through Tiled's own": theirs[uid]["primary"]["img"],
    }
    sides: dict[str, Callable[[], Any]] = {
        **{name: array.read for name, array in arrays.items()},
        "frames by h.dataset()": lambda: db[uid].dataset(chunks=None)["img"].values,
        "frames by h5py": lambda: h5py.File(path)["entry/data/data"][:],
    }
    expected = sides["frames by h5py"]()
    for side in sides.values():  # once, not timed
        np.testing.assert_array_equal(np.asarray(side()).reshape(expected.shape), expected)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, side in sides.items():
            found[name].append(measured(side, arrays.get(name)))
    size = expected.nbytes / 1e6
    print(f"{'of ' + format(size, '.0f') + ' MB':<32}{'ms':>10}{'GB/s':>10}{'read':>10}{'CPU':>10}")
    for name, times in found.items():
        whole, read, used = (statistics.median(one) for one in zip(*times))
        print(f"{name:<32}{whole:>10.1f}{size / whole:>10.2f}{read:>10.1f}{used:>10.1f}")


def measured(side: Callable[[], Any], array: Any) -> tuple[float, float, float]:
    """Return milliseconds of a read, of the server's reading, and of CPU time of both processes."""
    if array is None:
        before = time.process_time()
        whole = timed(side)
        return whole, whole, (time.process_time() - before) * 1e3
    told: list[float] = []

    def tell(response: httpx.Response) -> None:
        for part in response.headers.get("server-timing", "").split(","):
            name, _, rest = part.strip().partition(";")
            if name == "read":
                told.append(float(rest.partition("dur=")[2].partition(";")[0]))

    hooks = array.context.http_client.event_hooks
    array.context.http_client.event_hooks = {**hooks, "response": [*hooks["response"], tell]}
    server = psutil.Process(array.context.server_pid)

    def used() -> float:
        times = server.cpu_times()
        return time.process_time() + float(times.user + times.system)

    before = used()
    whole = timed(side)
    spent = (used() - before) * 1e3
    array.context.http_client.event_hooks = hooks
    return whole, sum(told), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "tiled.yml").write_text(CONFIGURATION.format(folder=folder, key=KEY))
        program = str(Path(sys.executable).with_name("tiled"))
        theirs_command = [program, "serve", "config", str(folder / "tiled.yml")]
        ours_command = [sys.executable, "-m", "daskbroker", "serve", str(folder / "store")]
        with (
            daskbroker.connect(folder / "store") as db,
            serving(theirs_command, free_port()) as theirs,
        ):
            fill(db, theirs, given.runs)
            uid = db(scan_id=given.runs // 3)[0].uid
            with serving(ours_command, free_port()) as ours:
                compare(ours, theirs, given.runs, given.repeat, uid)
                docs = image_run(folder / "s.h5", given.frames)
                writer = TiledWriter(theirs)
                for kind, doc in docs:
                    db.insert(kind, doc)
                    writer(kind, dict(doc))
                frames(ours, theirs, db, docs[0][1]["uid"], folder / "s.h5", given.repeat)


if __name__ == "__main__":
    main()
