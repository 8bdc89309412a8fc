"""Python blocks of README and docs run, as they are written.

The blocks of a page run one after the other in one namespace, in a folder of their own. What a page
takes for granted (a run ``h``, a broker ``db``, a RunEngine) is there before; places that
only a facility has (hosts, absolute paths) are replaced. A block ```` ```text ```` after one of
Python is what it prints, and one that prints has such a block. README's blocks run on what the
demo leaves, see test_demo.py.
"""

from __future__ import annotations

import ast
import contextlib
import signal
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import daskbroker
from ci.pages import BLOCK, blocks, run_block
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all
from daskbroker.testing.files import write_hdf5

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "decisions" not in page.parts and "_build" not in page.parts]
CANNOT_RUN = {
    # Of a facility: a batch system, Kubernetes, certificates.
    "dask_jobqueue": "docs/cluster.md",
    "dask_kubernetes": "docs/cluster.md",
    "tls_ca_file": "docs/cluster.md",
    # They go on for ever; tests/cli/test_listen.py and tests/test_kafka.py do the same.
    "dispatcher.start()": "docs/how-to/message-streams.md",
    "BlueskyConsumer(": "docs/how-to/message-streams.md",
    # Pieces of functions and classes; examples/log_store.py, which they are of, has its tests.
    "self._log.writing()": "docs/writing-a-store.md",
    "return builder.plan()": "docs/writing-a-store.md",
    "class RecordReader": "docs/writing-a-store.md",
    "def open_log": "docs/writing-a-store.md",
    # Of a run whose files have twice as many frames; testing/conformance/filling_extra.py is of it.
    "multiplier=2": "docs/detector-data.md",
    # A test module, as tests/stores/test_log_conformance.py is.
    "class TestLog": "docs/writing-a-store.md",
}
VARIES = {  # what these print is told in a comment, or is a uid
    "# 812 runs done": "docs/cluster.md",
}
SIDE = 128
WITH_BLOCKS = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf8"))]
LIVE, ON_A_CLUSTER = "docs/live.md", "docs/cluster.md"
COMPUTE_ON_ONE = "docs/how-to/cluster.md"
APART = ("README.md", LIVE, ON_A_CLUSTER, COMPUTE_ON_ONE)


def named(page):
    return str(page.relative_to(ROOT))


def cannot_run(page, code):
    return is_one_of(CANNOT_RUN, page, code)


def is_one_of(known, page, code):
    return any(part in code and named(page) == where for part, where in known.items())


def run_page(page, namespace, places):
    """Run all blocks of a page that can be run, compare their output, and return their number."""
    ran = 0
    for line, code, said in blocks(page):
        if cannot_run(page, code):
            continue
        ran += 1
        for place, there in places.items():
            code = code.replace(place, there)
        printed = run_block(page, line, code, namespace)
        if not is_one_of(VARIES, page, code):
            assert printed == (said or ""), f"{named(page)}, line {line}"
    return ran


def scan_with_everything(folder, **start):
    """A scan with all data that pages use: a spectrum, images, configuration, a baseline."""
    rng = np.random.default_rng(0)
    path = write_hdf5(folder / f"{start['scan_id']}.h5",
                      rng.integers(0, 99, (6, SIDE, SIDE)).astype("u2"))  # fmt: skip
    run = RunBuilder(
        plan_name="scan", motors=["motor"], time=1.7956e9 + start["scan_id"], num_points=6,
        hints={"dimensions": [[["motor"], "primary"]]}, **start,
    )  # fmt: skip
    number = {"source": "SIM", "dtype": "number", "shape": []}
    image = {"source": "SIM", "dtype": "array", "shape": [SIDE, SIDE], "dtype_numpy": "<u2",
             "external": "FILESTORE:"}  # fmt: skip
    settings = {"data": {"exposure_time": 0.1}, "timestamps": {}, "data_keys": {}}
    primary = run.descriptor(
        dict.fromkeys(("motor", "det", "I0", "i0"), number) | {"mca": [0.0] * 16, "img": image},
        object_keys={"motor": ["motor"], "det": ["det", "I0", "i0"], "eiger": ["img", "mca"]},
        hints={"det": {"fields": ["det"]}}, configuration={"eiger": settings},
    )  # fmt: skip
    baseline = run.descriptor({"temperature": number}, name="baseline")
    run.event(baseline, {"temperature": 294.0})
    resource = run.resource("AD_HDF5", root=str(folder), resource_path=path.name)
    for place in range(6):
        datum = run.datum(resource, point_number=place)
        data = {"motor": place / 2, "det": 1.0 / (1 + place), "I0": 2.0, "i0": 2.0,
                "mca": [float(n) for n in range(16)], "img": datum}  # fmt: skip
        run.event(primary, data, filled={"img": False})
    return run.stop()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Make a working folder with a store ``data`` of two scans, and other paths of the pages."""
    monkeypatch.chdir(tmp_path)
    with daskbroker.connect(tmp_path / "data") as db:
        insert_all(db, scan_with_everything(tmp_path, scan_id=1, sample="Ag-3"))
        insert_all(db, scan_with_everything(tmp_path, scan_id=2, sample={"name": "LaB6"}))
    return {
        "/data/beamline/store": str(tmp_path / "data"),
        "/data/beamline/derived": str(tmp_path / "derived"),
        "/data/store": str(tmp_path / "data"),
        "/backups/": f"{tmp_path}/",
        "/var/spool/daskbroker": str(tmp_path / "spool"),
    }


@pytest.fixture
def granted(places):
    """Return the namespace of a page, with the names that it uses without defining them."""
    from bluesky import RunEngine
    from bluesky.callbacks.zmq import Publisher

    with (
        daskbroker.connect("./data") as db,
        daskbroker.connect("./other") as other,
        dask.config.set({"daskbroker.mongo-spool": None}),  # a page sets it, for good
    ):
        namespace = {
            "__name__": "__main__", "daskbroker": daskbroker, "dask": dask, "np": np, "xr": xr,
            "db": db, "h": db[-1], "uid": db[-1].uid, "db2": other, "RE": RunEngine({}),
            "run": db[-1], "writer": other.insert,
        }  # fmt: skip
        yield namespace
        publishers = [value for value in namespace.values() if isinstance(value, Publisher)]
        for publisher in publishers:
            publisher.close()


PLAIN = [
    page for page in WITH_BLOCKS
    if named(page) not in APART and not all(cannot_run(page, code) for _, code, _ in blocks(page))
]  # fmt: skip


# Of dask's `to_parquet`, with pandas 3.1.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index is deprecated")
@pytest.mark.parametrize("page", PLAIN, ids=named)
def test_blocks_run(page, granted, places, request, monkeypatch):
    if named(page) in ("docs/mongodb.md", "docs/how-to/existing-mongodb.md"):
        uri = request.getfixturevalue("mongo_database")
        Path("my_beamline.yml").write_text(f"uri: {uri}\n")
        monkeypatch.setenv("DASKBROKER_PATH", ".")
        places["mongodb://host/metadata"] = uri
    if named(page) == "docs/from-databroker.md":
        places['connect("my_beamline")'] = 'connect("./data")'
    with without_windows():
        assert run_page(page, granted, places)


@contextlib.contextmanager
def without_windows():
    import matplotlib

    matplotlib.use("agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture
def on_a_cluster(cluster, granted, places):
    """Yield the namespace of a page that makes a Client, and close the Client."""
    places["tcp://scheduler:8786"] = cluster.scheduler_address
    granted["Client"] = Client
    with dask.config.set(scheduler="dask.distributed"):
        yield granted
        granted["client"].close()


@pytest.mark.parametrize("page", [ON_A_CLUSTER, COMPUTE_ON_ONE])
def test_blocks_run_on_a_cluster(page, on_a_cluster, places):
    functions = """
def my_function(header, threshold=0.5):
    return len(header.table())

def normalized(header):
    return header.table(fields=["det"])

def use(uid, result):
    assert result == 6
"""
    run_block(page, 0, functions, on_a_cluster)
    assert run_page(ROOT / page, on_a_cluster, places) > 1


@pytest.fixture
def default_interrupts():
    """Make Ctrl-C raise KeyboardInterrupt, in place of any other handler."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("default_interrupts")
def test_blocks_of_a_live_run(granted, places):
    """The run is taken while the page looks at it; watching ends as for users, by an interrupt."""
    page, db = ROOT / LIVE, granted["db"]
    granted |= {"total": 0, "plot": lambda frame: None}
    ended = threading.Event()
    for line, code, _ in blocks(page):
        run = RunBuilder(plan_name="scan", scan_id=3 + line, time=time.time())
        descriptor = run.descriptor({"det": 1.0})
        insert_all(db, run.documents)
        granted["h"] = db[run.uid]
        taker = threading.Thread(
            target=take, args=(db, run, descriptor, ended if "watch" in code else None)
        )
        taker.start()
        if "db.watch" in code:
            with pytest.raises(KeyboardInterrupt):
                run_block(page, line, code, granted)
            ended.set()
        else:
            run_block(page, line, code, granted)
        taker.join()
    assert granted["total"] == 3


def take(db, run, descriptor, ended):
    """Take the rest of a run; afterwards interrupt whoever watches for more, until it has ended."""
    if ended is not None:
        time.sleep(1)
        run = RunBuilder(plan_name="scan", scan_id=99, time=time.time())
        descriptor = run.descriptor({"det": 1.0})
    seen = 0 if ended is not None else len(run.documents)
    for _ in range(3):
        run.event(descriptor, {"det": 1.0})
    insert_all(db, run.stop()[seen:])
    # Python only prints an interrupt that meets a function called by the collector of garbage.
    while ended is not None and not ended.wait(2):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=named)
def test_blocks_that_cannot_run_are_python(page):
    for line, code, _ in blocks(page):
        if cannot_run(page, code):
            indented = "".join(f"    {line}" for line in code.splitlines(keepends=True))
            assert ast.parse(f"def piece():\n{indented}", f"{page}:{line}").body


def test_exceptions_are_there():
    known = CANNOT_RUN | VARIES
    found = {
        part for page in WITH_BLOCKS for _, code, _ in blocks(page)
        for part, where in known.items() if part in code and named(page) == where
    }  # fmt: skip
    assert found == set(known)
