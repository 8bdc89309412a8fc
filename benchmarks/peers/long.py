"""One long run: daskbroker in three stores, databroker 1 and 2, Tiled, pyarrow on a plain file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pymongo

import daskbroker
from benchmarks.checks import has_count, holds
from benchmarks.data import Run, mixed_columns, plain_file
from benchmarks.harness import Against, Case, Workload
from benchmarks.peers.bench import Bench
from benchmarks.peers.environment import DATABROKER, DATABROKER_2, TILED
from benchmarks.peers.process import Peer
from benchmarks.tables import count_events
from daskbroker import DataBroker

__all__ = ["SEALED", "UNSEALED", "close_and_drop", "long_run"]

EMBEDDED = "daskbroker, embedded"
UNSEALED, SEALED = "daskbroker, unsealed", "daskbroker, sealed"
PYARROW = "pyarrow"
TABLE_GOALS = {
    EMBEDDED: (
        Against(f"table: {PYARROW}", at_most=1.5),
        Against(f"table: {TILED}", times_faster=5),
        Against(f"table: {DATABROKER}", times_faster=100),
    ),
    SEALED: (Against(f"table: {DATABROKER}", times_faster=50),),
    UNSEALED: (Against(f"table: {DATABROKER}", times_faster=10),),
}
DOCUMENT_GOALS = {EMBEDDED: 20.0, SEALED: 20.0, UNSEALED: None}


def long_run(bench: Bench) -> Workload:
    """100k events x 12 columns: table, one column of it, documents."""
    run = Run(mixed_columns(bench.sizes.events))
    documents = [*run.head, *run.pages(1000), run.stop(run.rows)]
    unsealed, sealed = bench.written("long", documents)
    embedded = daskbroker.connect(bench.folder / "store")
    run.insert(embedded)
    uri = str(unsealed.uri)
    cases = [
        *_pyarrow(bench, run),
        *bench.beside(DATABROKER, lambda peer: _asked(DATABROKER, peer, run, uri=uri)),
        *bench.beside(DATABROKER_2, lambda peer: _asked(DATABROKER_2, peer, run, uri=uri)),
        *bench.beside(TILED, lambda peer: _tiled(bench, peer, run)),
    ]
    for name, broker in {EMBEDDED: embedded, SEALED: sealed, UNSEALED: unsealed}.items():
        cases += _ours(name, broker, run)

    def close() -> None:
        embedded.close()
        close_and_drop(unsealed, sealed)

    return Workload(cases, close)


def _pyarrow(bench: Bench, run: Run) -> Iterator[Case]:
    path = plain_file(bench.folder / "plain.parquet", run.columns)
    whole, one = holds("x3", run.columns["x3"], 14), holds("x3", run.columns["x3"], 1)
    yield Case(f"table: {PYARROW}", lambda: pq.read_table(path).to_pandas(), whole)
    yield Case(
        f"one column: {PYARROW}", lambda: pq.read_table(path, columns=["x3"]).to_pandas(), one
    )


def _tiled(bench: Bench, peer: Peer, run: Run) -> Iterator[Case]:
    documents = [*run.head, *run.pages(10_000), run.stop(run.rows)]
    peer.ask("write", file=bench.recorded("tiled", documents))
    return _asked(TILED, peer, run)


def _asked(name: str, peer: Peer, run: Run, **about: Any) -> Iterator[Case]:
    """Yield the cases of another program."""

    def ask(do: str, **options: Any) -> Callable[[], Any]:
        return lambda: peer.ask(do, run=run.uid, **about, **options)

    def check(found: dict[str, Any]) -> None:
        if found["rows"] != run.rows or not np.isclose(found["sum"], run.columns["x3"].sum()):
            raise AssertionError(f"the table of {name} holds other values than were written")

    yield Case(f"table: {name}", ask("table"), check, (), run.rows, "rows")
    yield Case(f"one column: {name}", ask("table", fields=["x3"]), check)
    counted = has_count(run.rows)
    yield Case(f"documents: {name}", ask("documents"), counted, (), run.rows, "documents")


def _ours(name: str, broker: DataBroker, run: Run) -> Iterator[Case]:
    values = run.columns["x3"]
    yield Case(
        f"table: {name}",
        lambda: broker[run.uid].table().compute(),
        holds("x3", values, 13),
        TABLE_GOALS[name],
        run.rows,
        "rows",
    )
    yield Case(
        f"one column: {name}",
        lambda: broker[run.uid].table()[["x3"]].compute(),
        holds("x3", values, 1),
        (Against(f"one column: {DATABROKER}"), Against(f"table: {name}")),
    )
    yield Case(
        f"documents: {name}",
        lambda: count_events(broker[run.uid].documents()),
        has_count(run.rows),
        (Against(f"documents: {DATABROKER}", times_faster=DOCUMENT_GOALS[name]),),
        run.rows,
        "documents",
    )


def close_and_drop(*brokers: DataBroker) -> None:
    """Close brokers, and drop their databases."""
    for broker in brokers:
        broker.close()
        uri = str(broker.uri)
        with pymongo.MongoClient(uri) as client:
            client.drop_database(uri.rpartition("/")[2])
