"""The page of a run, and documents as trees."""

from __future__ import annotations

import re
import threading
import warnings

import dask
import numpy as np
import pytest

from daskbroker.core.documents import Document
from daskbroker.display.tree import document_text
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import Squares, datum_run, squares_run
from daskbroker.testing.runs import baseline_run, stream_datum_run


class Slow(Squares):
    """A handler of files that do not answer until they are told to."""

    answers = threading.Event()

    def __call__(self, n):
        assert self.answers.wait(60)
        return super().__call__(n)


def peak(points=41, stop=True, **start):
    """A scan of a peak, as a RunEngine describes it."""
    run = RunBuilder(
        motors=["m1"], detectors=["det"], num_points=41, plan_name="scan",
        hints={"dimensions": [[["m1"], "primary"]]}, **start,
    )  # fmt: skip
    volts = {"source": "PV:det", "dtype": "number", "shape": [], "units": "V", "precision": 3}
    keys = {"m1": 0.5, "m1_setpoint": 0.5, "det": volts, "det_raw": 1}
    descriptor = run.descriptor(
        keys,
        object_keys={"m1": ["m1", "m1_setpoint"], "det": ["det", "det_raw"]},
        hints={"m1": {"fields": ["m1"]}, "det": {"fields": ["det"]}},
        configuration={"det": {"data": {"det_gain": 7}, "timestamps": {}, "data_keys": {}}},
    )
    for x in np.linspace(-3, 3, points):
        value = {"m1": x, "m1_setpoint": x, "det": np.exp(-x * x), "det_raw": int(x * 100)}
        run.event(descriptor, value)
    return run.stop() if stop else run.documents


def test_a_page_tells_what_was_done(db):
    insert_all(db, peak(sample="Ag-3", purpose="find the peak"))
    header = db[-1]
    text = str(header)
    for part in (
        "scan ", header.uid, "sample:    Ag-3", "purpose:   find the peak", "motors:    m1",
        "primary: 41 rows, 4 data keys", "motor    m1  number", "detector det (V)  number",
    ):  # fmt: skip
        assert part in text
    html = header._repr_html_()
    for part in ("<b>primary</b> 41 rows", "<td>V</td>", "<summary><span>configuration", "det_gain",
                 "<svg", "det (V) over m1"):  # fmt: skip
        assert part in html
    assert repr(header).startswith("<Header uid=")
    assert "\n" not in repr(header)


def test_what_differs_of_a_run_that_is_open_or_failed(db):
    insert_all(db, peak(5, stop=False))
    assert "primary: 5 rows" in str(db[-1])
    assert ">open</span>" in db[-1]._repr_html_()
    failed = peak(5)
    failed[-1][1].update(exit_status="fail", reason="no <beam>")
    insert_all(db, failed)
    html = db(stop={"exit_status": "fail"})[0]._repr_html_()
    assert "no &lt;beam&gt;" in html
    assert ">fail</span>" in html


def test_a_derived_run_names_its_origin(db):
    insert_all(db, make_run(2, derived_from={"runs": ["abc-1", "abc-2"], "stream": "primary"}))
    assert "made of:   abc-1, abc-2" in str(db[-1])
    assert ">derived</span>" in db[-1]._repr_html_()


def test_a_run_without_streams_has_a_page(db):
    insert_all(db, make_run(0, streams=()))
    assert "streams" not in str(db[-1])
    assert "<b>count" in db[-1]._repr_html_()


def test_many_data_keys_are_folded(db):
    insert_all(db, baseline_run(2000))
    html = db[-1]._repr_html_()
    assert "<details open" not in html
    assert "1,500 more" in html
    assert len(str(db[-1]).split("\n")) < 30


def test_ages_of_documents(db):
    """Frames that only stream_datum documents tell of are counted, too."""
    insert_all(db, stream_datum_run(6, stop=False))
    assert "primary: 6 rows" in str(db[-1])


class TestPictures:
    def test_one_frame_of_a_detector(self, db, tmp_path):
        documents, _ = datum_run(tmp_path)
        insert_all(db, documents)
        html = db[-1]._repr_html_()
        assert "img, frame 0" in html
        (size,) = re.findall(r'<img src="data:image/png;base64,[^"]+" width="(\d+)"', html)
        assert int(size) == 128

    def test_none_where_files_are_not_there(self, db, tmp_path):
        documents, _ = datum_run(tmp_path)
        insert_all(db, documents)
        (tmp_path / "a.h5").unlink()
        html = db[-1]._repr_html_()
        assert "<img" not in html
        assert "<svg" in html
        assert "<b>primary</b> 5 rows" in html

    def test_none_beyond_the_bound_of_size(self, db, tmp_path):
        documents, _ = datum_run(tmp_path)
        insert_all(db, documents)
        with dask.config.set({"daskbroker.picture-bytes": 5 * 8 * 3 + 6 * 8 * 2 - 1}):
            html = db[-1]._repr_html_()
        assert "<svg" in html
        assert "<img" not in html
        with dask.config.set({"daskbroker.picture-bytes": 5 * 8 * 3 - 1}):
            assert "<svg" not in db[-1]._repr_html_()
        with dask.config.set({"daskbroker.picture-bytes": 5 * 8 * 3 + 6 * 8 * 2}):
            assert "<img" in db[-1]._repr_html_()

    def test_none_that_takes_too_long(self, db):
        insert_all(db, peak())
        with dask.config.set({"daskbroker.picture-seconds": 0}):
            assert "<svg" not in db[-1]._repr_html_()
        with dask.config.set({"daskbroker.picture-seconds": 1e-9}):
            html = db[-1]._repr_html_()
        assert "<b>primary</b> 41 rows" in html

    def test_nobody_waits_for_slow_files(self, db):
        """The read goes on; while it does pages have no pictures."""
        db.register_handler("SLOW", Slow)
        insert_all(db, squares_run(spec="SLOW"))
        filters = list(warnings.filters)
        with dask.config.set({"daskbroker.picture-seconds": 0.2}):
            pages = []
            page = threading.Thread(target=lambda: pages.append(db[-1]._repr_html_()))
            page.start()
            while page.is_alive():  # the page waits; other threads have their warnings meanwhile
                assert list(warnings.filters) == filters
                page.join(0.01)
            (html,) = pages
            assert "<img" not in html
            assert "<b>primary</b> 4 rows" in html
            assert "<svg" not in db[-1]._repr_html_()
        Slow.answers.set()
        html = db[-1]._repr_html_()
        assert "<img" in html
        assert "<svg" in html

    @pytest.mark.parametrize("odd", [0.0, float("nan"), float("inf"), 1.7e308, -1.7e308])
    def test_of_any_numbers(self, db, odd):
        insert_all(db, make_run(keys={"x": [odd, 1.0, odd, odd]}))
        html = db[-1]._repr_html_()
        assert "<svg" in html
        assert "nan" not in html

    def test_of_a_long_line_peaks_stay(self, db):
        values = [0.0] * 3000
        values[1234] = 5.0
        insert_all(db, make_run(keys={"x": values}))
        (points,) = re.findall(r'points="([^"]+)"', db[-1]._repr_html_())
        heights = {point.split(",")[1] for point in points.split()}
        assert heights == {"0.0", "110.0"}
        assert len(points) < 5000


class TestTrees:
    def test_times_are_readable(self):
        document = Document(
            {"time": 1.76e9, "data": {"time": 3}, "timestamps": {"x": 1.76e9}, "seq_num": 3}
        )
        text = document_text(document, "Europe/Berlin")
        assert text.split("\n") == [
            "time: 2025-10-09 10:53:20+02:00",
            "data:",
            "  time: 1970-01-01 01:00:03+01:00",
            "timestamps:",
            "  x: 2025-10-09 10:53:20+02:00",
            "seq_num: 3",
        ]
        with dask.config.set({"daskbroker.timezone": "Europe/Berlin"}):
            assert "2025-10-09 10:53:20+02:00" in document._repr_html_()
        assert 'title="1760000000.0"' in document._repr_html_()

    def test_large_ones_are_bounded(self):
        deep = 1
        for _ in range(49):
            deep = {"a": deep}
        document = Document(
            {
                "deep": deep,
                "wide": {str(n): {"a": n} for n in range(5000)},
                "long": list(range(100_000)),
                "text": "x" * 100_000,
                "array": np.zeros((1000, 1000)),
            }
        )
        html = document._repr_html_()
        assert len(html) < 200_000
        assert "4,800 more" in html
        assert "99,800 more" in html
        assert "array of float64, shape (1000, 1000)" in html
        assert html.count("<details>") == html.count("</details>")

    def test_plain_lists_are_one_line(self):
        text = document_text(Document({"a": [1, [2.5, "x"], None], "b": [], "c": {}}))
        assert text == "a: [1, [2.5, 'x'], None]\nb: []\nc: {}"
