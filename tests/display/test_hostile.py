"""Documents with any content are shown, as text only."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskbroker.core.documents import Document
from daskbroker.display.facts import RunFacts
from daskbroker.display.hints import Hints, roles_of
from daskbroker.display.listing import Listing
from daskbroker.display.streams import _keys
from daskbroker.display.tree import document_markup, document_text
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\x1b[31m\u202e\n\ud800"
OURS = {
    "div", "style", "table", "thead", "tbody", "tr", "th", "td", "span", "details", "summary", "b",
    "svg", "polyline", "circle", "img", "figure", "figcaption",
}  # fmt: skip
ATTRIBUTES = {
    "class", "title", "open", "points", "fill", "stroke", "stroke-width", "viewbox", "width",
    "height", "role", "style", "src", "alt", "cx", "cy", "r",
}  # fmt: skip


class Checker(HTMLParser):
    """HTML of ours: each element is known, and is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in OURS, tag
        assert ATTRIBUTES.issuperset(name for name, _ in attrs), attrs
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] != "style":
            assert data.isprintable()
            self.text.append(data)


texts = st.sampled_from([EVIL, "", "time", "primary", "x", "x" * 5000, "$\\frac{"]) | st.text(
    max_size=5
)
plain = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | texts
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(
    [
        "uid", "time", "scan_id", "plan_name", "sample", "title", "motors", "detectors", "hints",
        "shape", "extents", "snaking", "num_points", "num_events", "exit_status", "derived_from",
    ]
)  # fmt: skip
dimensions = st.lists(
    st.tuples(st.lists(texts, max_size=2) | values, texts | values).map(list) | values, max_size=3
)
hinted = st.fixed_dictionaries(
    {}, optional={"dimensions": dimensions | values, "gridding": st.just("rectilinear") | values}
)
documents = st.builds(
    lambda odd, hints: {**odd, "hints": hints}, st.dictionaries(known, values), hinted | values
)


@settings(max_examples=100)
@given(start=documents, stop=st.none() | documents)
def test_any_start_and_stop(start, stop):
    fact = RunFacts.of(start, stop)
    listing = Listing(EVIL, [fact], 3, [EVIL])
    for width in (20, 80, 300):
        assert all(line.isprintable() for line in listing.text(width).split("\n"))
    Checker(listing.markup())
    Checker(document_markup(start))
    assert all(line.isprintable() for line in document_text(start, width=80).split("\n"))


claims = st.dictionaries(st.sampled_from(["dtype", "shape", "units", "external"]), values)
parts = st.dictionaries(texts, values, max_size=2)


@settings(max_examples=100)
@given(
    start=documents,
    data_keys=st.dictionaries(texts, claims, max_size=3),
    more=st.fixed_dictionaries(
        {},
        optional={"hints": parts | values, "object_keys": parts | values, "configuration": parts},
    ),
)
def test_any_descriptor(start, data_keys, more):
    descriptor = {"data_keys": data_keys, **more}
    hints = Hints.of(start, {"primary": [descriptor]})
    assert set(hints.signals) | set(hints.images) <= set(data_keys)
    assert roles_of(start, [descriptor]).keys() == data_keys.keys()
    assert len(_keys(start, [descriptor])) == len(data_keys)


def test_a_run_of_evil_texts(db):
    evil = EVIL.replace("\ud800", "")
    claim = {"source": evil, "dtype": "number", "shape": [], "units": evil, "object_name": evil}
    run = RunBuilder(
        uid="<b>uid</b>", plan_name=evil, sample={"name": evil}, purpose=evil, motors=[evil],
        detectors=[evil], nested={evil: [evil, {evil: evil}]}, derived_from={"runs": [evil]},
    )  # fmt: skip
    settings = {evil: {"data": {evil: evil}, "timestamps": {}, "data_keys": {}}}
    descriptor = run.descriptor({evil: claim}, evil, configuration=settings)
    for n in range(4):
        run.event(descriptor, {evil: n * 1.0})
    insert_all(db, run.stop("abort", reason=evil))
    header = db[-1]
    for shown in (db, db(), db[-1:], header, header.start, header.descriptors[evil][0]):
        html = shown._repr_html_()
        checked = Checker(html)
        assert any("<script>" in text for text in checked.text)
    assert "<svg" in header._repr_html_()
    for text in (repr(db), repr(db()), repr(db[-1:]), str(header), repr(header)):
        assert all(line.isprintable() for line in text.split("\n"))


def test_text_of_a_lone_surrogate():
    shown = Checker(document_markup(Document({"a": "\ud800"}))).text
    assert shown == ["a: ", "\\ud800"]


@pytest.mark.parametrize("shape", [[10**9, 10**9], [0, 5], [True, 3], ["a", 2], [3], None])
def test_a_grid_that_makes_no_sense_is_none(shape):
    dimensions = [[["a"], "primary"], [["b"], "primary"]]
    start = {"hints": {"dimensions": dimensions, "gridding": "rectilinear"}, "shape": shape}
    number = {"dtype": "number", "shape": []}
    keys = {"data_keys": dict.fromkeys(("a", "b", "x"), number)}
    assert Hints.of(start, {"primary": [keys]}).shape is None
