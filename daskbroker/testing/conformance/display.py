"""Conformance, display: runs are shown in the same way whichever store has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask

from ..base import Conformance, Put, insert_all
from ..runs import RunBuilder, make_run


def _scan(*, stop: bool = True) -> list[tuple[str, dict[str, Any]]]:
    """Return a line scan with a configured detector and a baseline."""
    hints = {"dimensions": [[["m"], "primary"]]}
    run = RunBuilder(plan_name="scan", sample={"name": "Ag"}, num_points=4, hints=hints)
    settings = {"det": {"data": {"det_gain": 7}, "timestamps": {}, "data_keys": {}}}
    baseline = run.descriptor({"t": 0.5}, "baseline")
    descriptor = run.descriptor({"m": 0.5, "x": 0.5}, configuration=settings)
    run.event(baseline, {"t": 300.0})
    for index in range(4 if stop else 3):
        run.event(descriptor, {"m": index * 1.0, "x": index * 2.0})
    return run.stop() if stop else run.documents


class DisplayConformance(Conformance):
    """Lists of runs, as text, HTML and frames; the page of a run."""

    def test_lists_tell_what_is_stored(self, broker: Any, reopen: Callable[[], Any]) -> None:
        """Lists show stopped and open runs, also after the store is opened again."""
        insert_all(broker, _scan())
        insert_all(broker, make_run(2, derived_from={"runs": ["a"]}))
        insert_all(broker, _scan(stop=False))
        for open_it in (lambda: broker, reopen):
            db = open_it()
            frame = db().to_dataframe()
            assert frame["uid"].tolist() == [header.uid for header in db()]
            assert frame["points"].fillna(-1).tolist() == [-1, 2, 4]
            assert frame["derived"].tolist() == [False, True, False]
            chosen = db().to_dataframe(["sample.name", "config:det:gain", "stop:exit_status"])
            assert chosen["config:det:gain"].fillna(0).tolist() == [7, 0, 7]
            assert chosen["sample.name"].fillna("").tolist() == ["Ag", "", "Ag"]
            for text in (repr(db), repr(db()), repr(db[-3:])):
                # The title of a long place takes several lines.
                rows = text[text.index("\nscan_id ") + 1 :].split("\n")[1:]
                assert len(rows) == 3, text
                assert all(h.uid[:8] in row for h, row in zip(db(), rows, strict=True))
            for html in (db._repr_html_(), db()._repr_html_(), db[-3:]._repr_html_()):
                assert all(html.count(header.uid) == 2 for header in db())

    def test_pages_count_rows_and_draw_the_signal(self, put: Put) -> None:
        """Pages are the same with rows in the journal and in chunks."""
        with dask.config.set({"daskbroker.picture-seconds": 120}):
            header = put(_scan())
            html = header._repr_html_()
        assert "primary: 4 rows, 2 data keys" in str(header)
        for part in ("<b>primary</b> 4 rows", "<svg", "x over m", "det_gain"):
            assert part in html
