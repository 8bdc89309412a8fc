"""Strategies of hypothesis that generate any valid run and any query."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .runs import Documents, RunBuilder

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
)
cells = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)
"""Any JSON-like value."""

_columns = st.sampled_from(
    [
        st.floats(),
        st.integers(-5, 5),
        st.text(max_size=4),
        st.booleans(),
        st.lists(st.floats(), min_size=3, max_size=3),
        st.lists(st.integers(0, 9), max_size=3),
        cells,
    ]
)
_keys = st.sampled_from(["a", "b", "time", "uid", "ts_a", "data:a", "größe", "with space"])


@st.composite
def runs(draw: st.DrawFn) -> Documents:
    """Generate a valid run with streams, descriptors, rewinds, pages, and varying data keys."""
    run = RunBuilder(note=draw(cells))
    rows: list[tuple[str, Any, Any]] = []
    for stream in draw(st.lists(st.sampled_from(["primary", "dark"]), min_size=1, max_size=3)):
        columns = {key: draw(_columns) for key in draw(st.sets(_keys, max_size=4))}
        rows.append((run.descriptor(dict.fromkeys(columns, 0.5), stream), stream, columns))
    for _ in range(draw(st.integers(0, 8))):
        descriptor, stream, columns = draw(st.sampled_from(rows))
        data = {key: draw(values) for key, values in columns.items()}
        if draw(st.integers(0, 4)) == 0:
            run.event_page(descriptor, [data] * draw(st.integers(1, 3)))
            continue
        present = {key: value for key, value in data.items() if draw(st.integers(0, 9))}
        again = run._rows.get(stream) if draw(st.integers(0, 4)) == 0 else None
        run.event(descriptor, present, again or None)
    return run.stop() if draw(st.booleans()) else run.documents


_names = st.sampled_from(["a", "b", "c.d", "c", "tags", "c.0", "c.0.d", "c.1.0"])
_values = st.sampled_from([None, True, False, 0, 1, 1.0, 2, -0.5, "x", "y", "", [], [1], ["x", 2]])


@st.composite
def starts(draw: st.DrawFn) -> dict[str, Any]:
    """Generate metadata over a small vocabulary, so that queries match some of it."""
    out: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(["a", "b", "c", "tags"]))):
        nested = st.dictionaries(st.sampled_from(["d", "e"]), _values, max_size=2)
        items = nested | _values | st.lists(nested, max_size=2)
        out[name] = draw(items | st.lists(items, max_size=3))
    return out


_orders = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
_ordered = st.sampled_from([0, 1, 1.5, "x", True])
_tests = st.one_of(
    _values,
    st.builds(lambda value: {"$eq": value}, _values),
    st.builds(lambda value: {"$ne": value}, _values),
    st.builds(lambda order, value: {order: value}, _orders, _ordered),
    st.builds(lambda values: {"$in": values}, st.lists(_values, max_size=3)),
    st.builds(lambda values: {"$nin": values}, st.lists(_values, max_size=3)),
    st.builds(lambda there: {"$exists": there}, st.booleans()),
    st.builds(lambda size: {"$size": size}, st.integers(0, 2)),
    st.builds(lambda values: {"$all": values}, st.lists(_values, max_size=2)),
    st.builds(lambda kind: {"$type": kind}, st.sampled_from(["null", "array", "object", "number"])),
    st.builds(lambda rest: {"$mod": [2, rest]}, st.integers(0, 1)),
    st.builds(lambda value: {"$elemMatch": {"$lte": value}}, _ordered),
    st.builds(lambda value: {"$elemMatch": {"d": value}}, _values),
    st.just({"$regex": "^x"}),
    st.builds(lambda value: {"$not": {"$gt": value}}, _ordered),
)
queries = st.recursive(
    st.dictionaries(_names, _tests, max_size=2),
    lambda inner: st.builds(
        lambda kind, parts: {kind: parts},
        st.sampled_from(["$and", "$or", "$nor"]),
        st.lists(inner, min_size=1, max_size=2),
    ),
    max_leaves=3,
)
"""A query of whitelisted operators over the vocabulary of `starts`."""
