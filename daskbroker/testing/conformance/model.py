"""Conformance of the event model: peculiarities of real documents, and the expected result."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ..base import (
    Conformance,
    Put,
    check_run,
    events_of,
    insert_all,
    insert_run,
    table_of,
)
from ..runs import (
    RunBuilder,
    baseline_run,
    external_run,
    make_run,
    ragged_run,
    rewound_run,
    stream_datum_run,
)

HOSTILE_KEYS = ("time", "Time", "seq_num", "uid", "a", "ts_a", "with space", "größe θ", "data:b")


class ModelConformance(Conformance):
    """The documents of real runs, and their tables: repetition, lies, gaps, extreme values."""

    def test_rewound_documents_keep_all_events(self, put_checked: Put) -> None:
        """A rewind repeats a ``seq_num`` with another uid."""
        docs = rewound_run()
        header = put_checked(docs)
        assert len(events_of(header.documents(fill=False))) == 4

    def test_rewound_table_shows_the_latest(self, put: Put) -> None:
        header = put(rewound_run())
        table = table_of(header)
        assert table.index.tolist() == [1, 2, 3]
        assert table["x"].tolist() == [1, 20, 3]
        assert len(header.table("primary")) == 3

    def test_rewound_table_shows_all_on_demand(self, put: Put) -> None:
        table = table_of(put(rewound_run()), duplicates="all")
        assert table.index.tolist() == [1, 2, 2, 3]
        assert table["x"].tolist() == [1, 2, 20, 3]

    def test_rewound_dataset_shows_the_latest(self, put: Put) -> None:
        dataset = put(rewound_run()).dataset("primary", fill=False)
        assert dataset["seq_num"].values.tolist() == [1, 2, 3]
        assert dataset["x"].values.tolist() == [1, 20, 3]

    @pytest.mark.parametrize("run", ["one descriptor", "two descriptors"])
    def test_rewound_by_a_clock_that_goes_back(self, put: Put, run: str) -> None:
        """The latest by time counts, as not every store keeps the order of insertion."""
        builder = RunBuilder()
        owners = [builder.descriptor({"x": 0})]
        owners.append(builder.descriptor({"x": 0}) if run == "two descriptors" else owners[0])
        begin = builder.now()
        for seq_num, x, seconds in ((1, 1, 0), (2, 2, 1), (3, 3, 2), (2, 20, -5), (4, 4, 5)):
            builder.event(owners[x > 2], {"x": x}, seq_num, time=begin + seconds)
        header = put(builder.stop())
        assert table_of(header)["x"].tolist() == [1, 2, 3, 4]
        assert header.table(fields=["x"])[["x"]].compute()["x"].tolist() == [1, 2, 3, 4]
        assert table_of(header, duplicates="all")["x"].tolist() == [1, 20, 2, 3, 4]
        assert header.dataset(fill=False)["x"].values.tolist() == [1, 2, 3, 4]
        assert header.dataset(duplicates="all")["x"].values.tolist() == [1, 20, 2, 3, 4]

    @pytest.mark.parametrize(
        "numbers", [(1, 3, 3), (2, 2), (1, 1, 3), (3, 1, 2, 3), (1, 2, 3, 2, 3, 5, 5)], ids=str
    )
    def test_rewound_numbers_with_gaps(self, put_checked: Put, numbers: tuple[int, ...]) -> None:
        """As many numbers as the range has, but not those; the latest of each counts."""
        run = RunBuilder()
        descriptor = run.descriptor({"x": 0})
        for index, number in enumerate(numbers):
            run.event(descriptor, {"x": index}, number)
        docs = run.stop()
        header = put_checked(docs)
        latest = dict(sorted({number: x for x, number in enumerate(numbers)}.items()))
        for table in (header.table(), header.table()[["time"]], header.table(fields=["x"])):
            assert len(table) == len(latest)
            assert table.compute().index.tolist() == list(latest)
        assert table_of(header)["x"].tolist() == list(latest.values())
        assert table_of(header, duplicates="all").index.tolist() == sorted(numbers)
        assert header.table().loc[3:3].compute()["x"].tolist() == [
            x for number, x in latest.items() if number == 3
        ]
        dataset = header.dataset("primary", fill=False)
        assert dataset["seq_num"].values.tolist() == list(latest)
        assert dataset["x"].values.tolist() == list(latest.values())

    def test_late_event_keeps_its_own_descriptor_and_configuration(self, put_checked: Put) -> None:
        """It has the configuration of the descriptor that it names, not the latest."""
        run = RunBuilder()
        exposures = {}
        descriptors = []
        for exposure in (0.1, 0.2):
            configuration = {
                "det": {
                    "data": {"det_exposure": exposure},
                    "timestamps": {"det_exposure": run.now()},
                    "data_keys": {"det_exposure": {"dtype": "number", "shape": [], "source": "s"}},
                }
            }
            descriptors.append(run.descriptor({"x": 0.5}, configuration=configuration))
            exposures[descriptors[-1]] = exposure
            run.event(descriptors[-1], {"x": exposure})
        run.event(descriptors[1], {"x": 4.0}, 4)
        run.event(descriptors[0], {"x": 3.0}, 3)  # late, and of the older descriptor
        docs = run.stop()
        header = put_checked(docs)
        fields = ["x", "descriptor", "config:det:det_exposure"]
        table = table_of(header, fields=fields)
        assert table.index.tolist() == [1, 2, 3, 4]
        assert table["x"].tolist() == [0.1, 0.2, 3.0, 4.0]
        first, second = descriptors
        assert table["descriptor"].tolist() == [first, second, first, second]
        wanted = [exposures[uid] for uid in table["descriptor"]]
        assert table["config:det:det_exposure"].tolist() == wanted

    def test_hostile_key_names_are_kept(self, put_checked: Put) -> None:
        """No data key is lost, renamed or overwritten by another column."""
        keys = {key: [number + 0.5, number + 1.5] for number, key in enumerate(HOSTILE_KEYS)}
        docs = make_run(keys=keys)
        header = put_checked(docs)
        shown = {"time": "data:time", "seq_num": "data:seq_num", "uid": "data:uid"}
        shown |= {"ts_a": "data:ts_a", "data:b": "data:data:b"}
        table = table_of(header, timestamps=True)
        dataset = header.dataset("primary", fill=False)
        assert table.columns[0] == "time"
        assert table["time"].dtype == "datetime64[us, UTC]"
        for key, values in keys.items():
            assert table[shown.get(key, key)].tolist() == values
            assert dataset[shown.get(key, key)].values.tolist() == values
        events = events_of(docs)
        assert table["ts_a"].tolist() == [event["timestamps"]["a"] for event in events]

    def test_baseline_of_500_keys(self, put_checked: Put) -> None:
        docs = baseline_run(500)
        header = put_checked(docs)
        table = table_of(header, "baseline")
        assert table.shape == (2, 501)
        data = events_of(docs)[0]["data"]
        assert table.columns.tolist() == ["time", *data]
        assert table.iloc[0, 1:].to_dict() == data

    def test_start_and_descriptor_and_no_more(self, broker: Any) -> None:
        """The stop is None, the table empty, and the documents end without stop."""
        run = RunBuilder()
        run.descriptor({"x": 1, "y": 0.5, "label": "a", "on": True})
        insert_all(broker, run.documents)
        header = broker[run.uid]
        assert header.stop is None
        assert [name for name, _ in header.documents()] == ["start", "descriptor"]
        self.check_empty(header)

    def test_declared_stream_without_events(self, broker: Any) -> None:
        """Its table and its Dataset are empty and have dtypes."""
        run = RunBuilder()
        run.descriptor({"x": 1, "y": 0.5, "label": "a", "on": True})
        docs = run.stop(num_events={"primary": 0})
        insert_all(broker, docs)
        header = broker[run.uid]
        check_run(header, docs)
        self.check_empty(header)

    def check_empty(self, header: Any) -> None:
        """Check that a stream without events has the dtypes of its descriptor."""
        table = table_of(header)
        assert len(table) == 0
        assert table.index.name == "seq_num"
        assert table["x"].dtype == "int64"
        assert table["y"].dtype == "float64"
        assert table["on"].dtype == "bool"
        assert table["label"].dtype == pd.Series(["a"]).dtype
        assert table["time"].dtype == "datetime64[us, UTC]"
        assert len(header.table("primary")) == 0
        dataset = header.dataset("primary", fill=False)
        assert dataset.sizes["time"] == 0
        assert {"x", "y", "label", "on"} <= set(dataset.data_vars)

    def test_stop_counts_events_of_a_stream_without_descriptor(self, broker: Any) -> None:
        """As recorded: ``num_events {"primary": 1}``, and neither descriptor nor event."""
        docs = RunBuilder().stop(num_events={"primary": 1})
        header = insert_run(broker, docs)
        check_run(header, docs)
        assert list(header.streams) == []

    @pytest.mark.parametrize(
        ("claim", "values"),
        [
            (1, [False, True, False]),
            (1, [1, 2.5, None]),
            (0.5, [1.5, "Disconnected", 2.5]),
            (0.5, [1, 2, 3]),
            ("text", [1, 2, 3]),
            (0.5, [None, None, None]),
            (1, [None, 7, 2**62]),
            ([1.0], [0.5, [1.0], None]),
        ],
        ids=repr,
    )
    def test_declared_dtype_lies(self, put_checked: Put, claim: Any, values: list[Any]) -> None:
        """Documents are as they went in; all partitions of the table have one dtype."""
        run = RunBuilder()
        descriptor = run.descriptor({"x": claim})
        for value in values:
            run.event(descriptor, {"x": value})
        docs = run.stop()
        header = put_checked(docs)
        table = header.table("primary")
        for index in range(table.npartitions):
            partition = table.partitions[index].compute()
            assert partition.dtypes.to_dict() == table.dtypes.to_dict()
        shown = [None if _is_null(value) else value for value in table.compute()["x"]]
        assert [v.tolist() if isinstance(v, np.ndarray) else v for v in shown] == values

    def test_filled_absent_empty_or_differing(self, put_checked: Put) -> None:
        """Absent means that external keys are not filled."""
        run = RunBuilder()
        spec = {"source": "x", "dtype": "array", "shape": [4], "external": "FILESTORE:"}
        descriptor = run.descriptor({"img": spec})
        resource = run.resource()
        ids = [run.datum(resource, point=n) for n in range(6)]
        run.event(descriptor, {"img": ids[0]}, filled=None)
        run.event(descriptor, {"img": ids[1]}, filled={})
        run.event(descriptor, {"img": ids[2]}, filled={"img": False})
        run.event(descriptor, {"img": ids[3]}, filled={"img": ids[3]})
        page = run.event_page(descriptor, [{"img": ids[4]}, {"img": [1, 2, 3, 4]}])
        page["filled"] = {"img": [False, True]}
        docs = run.stop()
        assert "filled" not in events_of(docs)[0]
        put_checked(docs)

    def test_frames_without_events_count_as_rows(self, put_checked: Put) -> None:
        """Their ``seq_nums`` are known, their times are not."""
        docs = stream_datum_run(frames=6, step=2)
        header = put_checked(docs)
        assert len(header.table("primary", fill=False)) == 6
        table = table_of(header, fields=["time"])
        assert table.index.tolist() == [1, 2, 3, 4, 5, 6]
        assert table["time"].isna().all()

    def test_frames_of_several_files_for_one_key(self, put_checked: Put) -> None:
        """As far as documents go; :mod:`.filling` reads the files."""
        run = RunBuilder()
        spec = {"source": "x", "dtype": "array", "shape": [5, 4, 4], "external": "STREAM:"}
        descriptor = run.descriptor({"img": spec})
        for file, indices in enumerate(((0, 2), (0, 2), (2, 4))):
            resource = run.stream_resource("img", uri=f"file://localhost/{file}.h5")
            first = 2 * file + 1
            run.stream_datum(resource, descriptor, indices, (first, first + 2))
        docs = run.stop()
        header = put_checked(docs)
        assert len(header.table("primary", fill=False)) == 6

    def test_datum_after_its_event_and_resource_of_two_streams(self, put_checked: Put) -> None:
        """As far as documents go; :mod:`.filling` reads the files."""
        docs = external_run(late=True)
        header = put_checked(docs)
        for stream in ("primary", "dark"):
            part = list(header.stream(stream, fill=False))
            assert sum(name == "resource" for name, _ in part) == 1
            assert sum(name == "event" for name, _ in part) == 3
            used = {doc["data"]["img"] for name, doc in part if name == "event"}
            assert used <= {doc["datum_id"] for name, doc in part if name == "datum"}
            assert table_of(header, stream)["img"].tolist() == sorted(used)

    @pytest.mark.parametrize(
        "cells",
        [
            [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0], []],
            [list(range(25)), list(range(27)), []],
            [[None], [None, 1], []],
            [[1, "a"], [[1, 2], [3]], {"k": [1]}],
            [[[1, 2], [3, 4]], [[1, 2]], [[]]],
            [["a", "bc"], ["d"], []],
        ],
        ids=repr,
    )
    def test_ragged_arrays_stay_as_they_are(self, put_checked: Put, cells: list[Any]) -> None:
        """They are neither padded nor stacked."""
        docs = ragged_run(cells)
        header = put_checked(docs)
        shown = table_of(header)["spectrum"]
        assert [v.tolist() if isinstance(v, np.ndarray) else v for v in shown] == cells
        assert header.dataset("primary", fill=False)["spectrum"].sizes["time"] == 3

    def test_events_with_differing_keys(self, put_checked: Put) -> None:
        """Values stay with their events."""
        rows: list[dict[str, Any]] = [{"a": 1.5}, {"b": 2}, {"a": 3.5, "b": 4}, {}]
        run = RunBuilder()
        descriptor = run.descriptor({"a": 0.5, "b": 1})
        for row in rows:
            run.event(descriptor, row)
        docs = run.stop()
        header = put_checked(docs)
        table = table_of(header)
        for key in "ab":
            shown = [None if _is_null(value) else value for value in table[key]]
            assert shown == [row.get(key) for row in rows]

    def test_legacy_resources(self, put_checked: Put) -> None:
        """Documents: everything that old recordings leave out or have on top."""
        run = RunBuilder()
        spec = {"source": "x", "dtype": "array", "shape": [4], "external": "FILESTORE:"}
        descriptor = run.descriptor({"img": spec, "img2": spec})
        first = run.resource(run_start=None, path_semantics=None, id="5a0c7e")
        second = run.resource(root="f8483b80395561ac779a5425da6646ca", resource_path="")
        third = run.resource(root="", resource_path="/absolute/path.h5")
        for resource in (first, second, third):
            data = {"img": run.datum(resource, f"datum-{resource[:8]}", n=1)}
            data["img2"] = run.datum(resource, n=2)
            run.event(descriptor, data, filled={"img": False, "img2": False})
        docs = run.stop()
        put_checked(docs)

    @pytest.mark.parametrize(
        "values",
        [
            [math.nan, math.inf, -math.inf, 1e308, 5e-324, 0.1],
            [2**53 + 1, -(2**53) - 1, 2**63 - 1],
            [2**64, 2**200, -(2**70)],
            [2**63, 2**64 - 1, 5],
            [2**53 + 1, 0.5, None],
            [True, 1, 1.0, "1"],
            [{"deep": [{"er": (1, 2)}]}, {"n": None}, {}],
            [(1, 2), (3.5, 4), ("a", None)],
            [np.float32(0.1), np.int16(3), np.bool_(True)],
            [np.arange(6).reshape(2, 3), np.arange(3.0), np.array(["a", "b"])],
            ["", "line\nbreak", "nul\0l", "\U0001f52c", "a'b\"c"],
        ],
        ids=lambda values: repr(values)[:40],
    )
    def test_extreme_values(self, put_checked: Put, values: list[Any]) -> None:
        """They are equal when read back."""
        run = RunBuilder(sample={"values": values, "shape": (1, np.int64(2))})
        descriptor = run.descriptor({"x": values[0]})
        for value in values:
            run.event(descriptor, {"x": value})
        docs = run.stop()
        header = put_checked(docs)
        assert len(table_of(header)) == len(values)

    def test_event_of_15_megabytes(self, put: Put) -> None:
        """It is equal when read back."""
        run = RunBuilder()
        image = np.arange(1_875_000, dtype=np.float64)
        descriptor = run.descriptor({"img": image, "x": 0.5})
        run.event(descriptor, {"img": image, "x": 1.5})
        run.event(descriptor, {"img": image + 1, "x": 2.5})
        header = put(run.stop())
        table = table_of(header)
        assert table["x"].tolist() == [1.5, 2.5]
        assert np.array_equal(table["img"].iloc[1], image + 1)

    def test_descriptor_with_the_least_keys(self, put_checked: Put) -> None:
        """Its stream is ``primary``, and its mappings are empty."""
        run = RunBuilder()
        least: dict[str, Any] = {
            "name": None,
            "hints": None,
            "object_keys": None,
            "configuration": None,
        }
        descriptor = run.descriptor({"x": 0.5}, **least)
        run._streams[descriptor] = "primary"
        run.event(descriptor, {"x": 1.5})
        docs = run.stop()
        header = put_checked(docs)
        assert list(header.streams) == ["primary"]
        assert table_of(header)["x"].tolist() == [1.5]
        assert set(header.fields("primary")) == {"x"}
        assert set(header.devices("primary")) == set()

    def test_caller_reuses_what_it_inserted(self, broker: Any) -> None:
        """What was inserted stays as it was."""
        docs = make_run(3, stop=False, sample={"name": "Ag"})
        array = np.arange(3.0)
        run = docs[1][1]["data_keys"]
        run["v"] = {"source": "x", "dtype": "array", "shape": [3]}
        before = []
        for name, doc in docs:
            if name == "event":
                doc["data"]["v"] = array
                doc["timestamps"]["v"] = doc["time"]
            before.append((name, copy.deepcopy(doc)))
            broker.insert(name, doc)
            array += 1
            doc["uid"] = "changed"
            doc["extra"] = "changed"
            if name == "event":
                doc["data"]["x"] = "changed"
            if name == "start":
                doc["sample"]["name"] = "changed"
        check_run(broker[before[0][1]["uid"]], before)

    def test_documents_are_immutable(self, broker: Any) -> None:
        """What is given out cannot change what is stored."""
        docs = make_run(2)
        header = insert_run(broker, docs)
        with pytest.raises(TypeError, match="immutable"):
            header.start["plan_name"] = "other"
        for _, doc in header.documents(fill=False):
            with pytest.raises(TypeError, match="immutable"):
                doc["uid"] = "other"
        check_run(header, docs)


def _is_null(value: Any) -> bool:
    return not isinstance(value, (list, dict, np.ndarray)) and bool(pd.isna(value))
