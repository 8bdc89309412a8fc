"""Plots, as hints ask for them."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count, grid_scan, scan
from matplotlib import pyplot
from matplotlib.figure import Figure
from ophyd.sim import det, det4, motor, motor1, motor2

from daskbroker.core.documents import Document
from daskbroker.core.errors import BadQuery, ConfigError, FieldNotFound, StreamNotFound
from daskbroker.display.plots import plot_run
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run, stream_run

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.fixture
def engine(db):
    engine = RunEngine({})
    engine.subscribe(db.insert)
    return engine


def drawn(axes):
    """Also that it can be drawn at all."""
    axes.figure.canvas.draw()
    return axes


class TestOfOneRun:
    def test_a_line_over_the_motor(self, db, engine):
        engine(scan([det], motor, -5, 5, 21), sample="Ag-3")
        axes = drawn(db[-1].plot())
        (line,) = axes.lines
        frame = db[-1].table().compute()
        np.testing.assert_array_equal(line.get_xdata(), frame["motor"])
        np.testing.assert_array_equal(line.get_ydata(), frame["det"])
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("motor", "det")
        assert axes.get_title().startswith("scan 1 Ag-3 20")

    def test_over_time_without_a_motor(self, db, engine):
        engine(count([det], num=3))
        axes = drawn(db[-1].plot())
        (line,) = axes.lines
        assert axes.get_xlabel() == "time since start (s)"
        assert (np.diff(line.get_xdata()) > 0).all()
        assert 0 < line.get_xdata()[0] < 60

    @pytest.mark.parametrize("snake", [False, True])
    def test_a_map_of_a_grid(self, db, engine, snake):
        engine(grid_scan([det4], motor1, -1, 1, 3, motor2, 0, 2, 4, snake_axes=snake))
        axes = drawn(db[-1].plot())
        (mesh,) = axes.collections
        frame = db[-1].table().compute()
        corners = mesh.get_coordinates()
        across = corners[0, :-1, 0] / 2 + corners[0, 1:, 0] / 2
        up = corners[:-1, 0, 1] / 2 + corners[1:, 0, 1] / 2
        np.testing.assert_allclose(across, np.linspace(0, 2, 4))
        np.testing.assert_allclose(up, np.linspace(-1, 1, 3))
        values = mesh.get_array().reshape(3, 4)
        for event in frame.itertuples():
            place = abs(up - event.motor1).argmin(), abs(across - event.motor2).argmin()
            assert values[place] == event.det4
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("motor2", "motor1")

    def test_a_grid_that_was_not_finished(self, db, engine):
        engine(grid_scan([det4], motor1, -1, 1, 3, motor2, 0, 2, 4))
        documents = [(name, dict(doc)) for name, doc in db[-1].documents()]
        again = RunBuilder(**{k: v for k, v in documents[0][1].items() if k not in ("uid", "time")})
        (claims,) = [doc for name, doc in documents if name == "descriptor"]
        descriptor = again.descriptor(
            claims["data_keys"], object_keys=claims["object_keys"], hints=claims["hints"]
        )
        events = [doc for name, doc in documents if name == "event"]
        for event in events[:5] + events[4:6]:  # it went back to the fifth
            again.event(descriptor, event["data"], event["seq_num"])
        insert_all(db, again.stop("abort"))
        (mesh,) = drawn(db[again.uid].plot()).collections
        assert mesh.get_array().count() == 6

    def test_a_grid_without_extents_is_where_the_motors_were(self, db, engine):
        engine(grid_scan([det4], motor1, -1, 1, 3, motor2, 0, 2, 4))
        header = db[-1]
        header.start = Document({k: v for k, v in header.start.items() if k != "extents"})
        (mesh,) = drawn(header.plot()).collections
        assert mesh.get_coordinates()[..., 0].max() == pytest.approx(2 + 1 / 3)

    def test_points_without_a_grid(self, db):
        run = RunBuilder(hints={"dimensions": [[["a"], "primary"], [["b"], "primary"]]})
        descriptor = run.descriptor({"a": 0.5, "b": 0.5, "x": 0.5})
        for n in range(5):
            run.event(descriptor, {"a": n * 1.0, "b": n % 2 * 1.0, "x": n * 2.0})
        insert_all(db, run.stop())
        (points,) = drawn(db[-1].plot()).collections
        assert points.get_array().tolist() == [0, 2, 4, 6, 8]
        np.testing.assert_array_equal(points.get_offsets()[:, 1], range(5))

    def test_a_frame(self, db, tmp_path):
        documents, frames = datum_run(tmp_path)
        insert_all(db, documents)
        for frame in (0, 2, -1, (1, 0)):
            axes = drawn(db[-1].plot(frame=frame))
            image = axes.images[0].get_array()
            assert axes.get_xlabel() == f"frame {frame}"
            assert axes.images[0].colorbar.ax.get_ylabel() == "img"
            number = frame if isinstance(frame, int) else frame[0]
            np.testing.assert_array_equal(image, frames[number])
        assert len(db[-1].plot(y="img").images) == 1
        assert [line.get_ydata().tolist() for line in db[-1].plot().lines] == [
            [n * 0.5 for n in range(5)]
        ]
        with pytest.raises(BadQuery, match="there are 5, from 0 to 4"):
            db[-1].plot(frame=5)
        with pytest.raises(BadQuery, match=r"has 3 numbers; 2 choose one.*\(5, 1, 6, 8\)"):
            db[-1].plot(frame=(0, 0, 1))
        with pytest.raises(BadQuery, match="does not hold one number"):
            db[-1].plot(y=["x", "img"])
        with pytest.raises(BadQuery, match="single values"):
            db[-1].plot(y="x", frame=1)

    def test_a_spectrum(self, db):
        insert_all(db, make_run(keys={"s": [[1.0, 2.0, 4.0], [3.0, 2.0, 1.0]]}))
        (line,) = drawn(db[-1].plot(y="s", frame=-1)).lines
        assert line.get_ydata().tolist() == [3.0, 2.0, 1.0]
        with pytest.raises(BadQuery, match=r"shape \(3,\)"):
            db[-1].plot(y="s")

    def test_a_spectrum_of_another_length(self, db):
        insert_all(db, make_run(keys={"s": [[1.0, 2.0, 4.0], [3.0]]}))
        assert drawn(db[-1].plot(y="s", frame=0)).lines[0].get_ydata().tolist() == [1.0, 2.0, 4.0]
        insert_all(db, make_run(keys={"s": [["a", "b"]]}, time=1.79e9))
        with pytest.raises(BadQuery, match="frame 0 of 's' holds no numbers"):
            db[-1].plot(y="s", frame=0)
        insert_all(db, make_run(keys={"s": [[1, [2]], [1.5, 2.5]]}, time=1.791e9))
        with pytest.raises(BadQuery, match="frame 0 of 's' holds no numbers"):
            db[-1].plot(y="s", frame=0)

    def test_an_image_in_colours(self, db):
        image = np.arange(6 * 7 * 3).reshape(6, 7, 3)
        insert_all(db, make_run(keys={"photo": [image.tolist()] * 2}))
        (shown,) = drawn(db[-1].plot(frame=1)).images
        np.testing.assert_allclose(shown.get_array(), image / image.max())
        assert "photo, frame 0" in db[-1]._repr_html_()

    def test_images_alone(self, db, tmp_path):
        documents, frames = stream_run(tmp_path, with_events=False)
        insert_all(db, documents)
        (shown,) = drawn(db[-1].plot()).images
        np.testing.assert_array_equal(shown.get_array(), frames[0, 0])

    def test_each_signal_has_axes(self, db):
        insert_all(db, make_run(4))
        axes = db[-1].plot()
        assert [one.get_ylabel() for one in axes] == ["x", "y", "n"]
        drawn(axes[0])
        one = db[-1].plot(y="n")
        assert db[-1].plot(y="x", ax=one) is one
        assert len(one.lines) == 2
        with pytest.raises(BadQuery, match="3 signals to plot, and 1 axes"):
            db[-1].plot(ax=one)
        figure = Figure()
        assert len(db[-1].plot(ax=figure)) == len(figure.axes) == 3

    def test_another_stream(self, db):
        insert_all(db, make_run(4, ["x"], ("primary", "dark")))
        assert drawn(db[-1].plot("dark")).get_xlabel() == "time since start (s)"

    def test_what_cannot_be_plotted_is_told(self, db):
        insert_all(db, make_run(0, streams=()))
        with pytest.raises(StreamNotFound, match="nothing to plot"):
            db[-1].plot()
        insert_all(db, make_run(keys={"label": ["a", "b"], "x": [1.0, 2.0]}))
        with pytest.raises(StreamNotFound, match="'dark'"):
            db[-1].plot("dark")
        with pytest.raises(FieldNotFound, match="'lable' to plot; there are: label, x"):
            db[-1].plot(y="lable")
        with pytest.raises(BadQuery, match="'label' does not hold one number"):
            db[-1].plot(y="label")
        insert_all(db, make_run(keys={"label": ["a", "b"]}))
        with pytest.raises(BadQuery, match="choose one with y="):
            db[-1].plot()

    def test_names_that_clash(self, db):
        insert_all(db, make_run(keys={"time": [5.0, 6.0], "x y": [1.0, 2.0]}))
        axes = db[-1].plot(y=["x y"])
        assert drawn(axes).lines[0].get_ydata().tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("text", ["$\\frac{", "$x$", "_hidden", "a\nb\x1b[31m", "<b>"])
    def test_text_of_documents_is_text(self, db, text):
        keys = {text: {"source": "x", "dtype": "number", "shape": [], "units": text}}
        run = RunBuilder(plan_name=text, sample=text)
        del run.documents[0][1]["scan_id"]
        descriptor = run.descriptor(keys)
        for n in range(3):
            run.event(descriptor, {text: n * 1.0})
        insert_all(db, run.stop())
        axes = drawn(db[-1].plot())
        assert axes.get_ylabel().isprintable()
        assert text.strip("\n")[:2].strip() in axes.get_title().replace("\\n", "\n")
        together = drawn(db().plot())
        assert len(together.get_legend().get_texts()) == 1


class TestOfManyRuns:
    def test_lines_over_one_another(self, db, engine):
        for sample in ("Ag", "Au"):
            engine(scan([det], motor, -5, 5, 11), sample=sample)
        axes = drawn(db().plot())
        assert len(axes.lines) == 2
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["2 Au", "1 Ag"]
        assert len(db[-2:].plot().lines) == 2

    def test_runs_that_lack_it_are_named(self, db):
        insert_all(db, make_run(4, ["x"]))
        insert_all(db, make_run(4, ["y"]))
        with pytest.warns(UserWarning, match="1 of 2 runs are not drawn.*no data key 'x'"):
            axes = db().plot(y="x")
        assert len(axes.lines) == 1
        with pytest.raises(BadQuery, match="none of 2 runs"):
            db().plot(y="z")

    def test_no_more_than_can_be_told_apart(self, db):
        with db.batch():
            for _ in range(51):
                insert_all(db, make_run(1))
        with pytest.raises(BadQuery, match="at most 50"):
            db().plot()


def test_matplotlib_is_imported_when_something_is_plotted(tmp_path):
    code = "import daskbroker, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stdout == b"False\n"


def test_without_matplotlib_it_is_told_how_to_get_it(db, monkeypatch):
    insert_all(db, make_run(4))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'daskbroker\[plot\]'"):
        plot_run(db[-1], None, None, None, None)
    assert "<svg" in db[-1]._repr_html_()
