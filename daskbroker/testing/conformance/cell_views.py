"""The cells of one key, ``img``, as every view gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..base import insert_all
from ..runs import Documents


def header_of(broker: Any, docs: Documents, handlers: Mapping[str, Any] | None = None) -> Any:
    """Return the run of documents that are inserted, with these handlers registered."""
    for spec, handler in (handlers or {}).items():
        broker.register_handler(spec, handler, overwrite=True)
    insert_all(broker, docs)
    return broker[docs[0][1]["uid"]]


def views_of(runs: Any) -> dict[str, Callable[..., list[Any]]]:
    """Return all views of the images of a Header or Results, each as a list of cells."""
    return {
        "table": lambda **asked: list(runs.table(**asked).compute()["img"]),
        "column": lambda **asked: list(runs.table(**asked)["img"].compute()),
        "dataset": lambda **asked: list(runs.dataset(**asked)["img"].values),
        "lazy dataset": lambda **asked: list(runs.dataset(chunks=None, **asked)["img"].values),
        "documents": lambda **asked: cells_of(runs.documents(**asked)),
    }


def cells_of(stream: Iterable[tuple[str, Any]]) -> list[Any]:
    """Return the cells of the events among documents."""
    return [doc["data"]["img"] for name, doc in stream if name == "event"]


def assert_cells_equal(cells: Any, expected: Any) -> None:
    """Check that cells are equal to the expected ones, in number and order too."""
    assert len(cells) == len(expected)
    for cell, wanted in zip(cells, expected, strict=True):
        np.testing.assert_array_equal(cell, wanted)
