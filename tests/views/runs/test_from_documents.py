"""Documents of a run as those of a new one."""

from __future__ import annotations

from daskbroker.testing import RunBuilder
from daskbroker.views.runs import documents_to_run


def test_the_stop_that_a_run_lacked_counts_the_events_of_each_stream():
    builder = RunBuilder()
    baseline = builder.descriptor({"t": 1.0}, name="baseline")
    primary = builder.descriptor({"x": 1.0})
    builder.event(baseline, {"t": 1.0})
    for number in range(3):
        builder.event(primary, {"x": float(number)})
    builder.event_page(primary, [{"x": 5.0}, {"x": 6.0}])
    made = list(documents_to_run(builder.documents, None, time=5.0))
    name, stop = made[-1]
    assert name == "stop"
    assert stop["num_events"] == {"baseline": 1, "primary": 5}
    assert stop["time"] == max(builder.documents[-1][1]["time"])
