"""Conformance of the dimensions of variables: names that several data keys give to theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..base import Conformance, Put
from ..detector_runs import SHAPE, image_claim
from ..files import frames, write_hdf5
from ..runs import RunBuilder
from .cell_views import header_of


class DimensionConformance(Conformance):
    """Names of dimensions where data keys of different sizes have the same."""

    def test_cameras_of_other_sizes_with_dimensions_of_one_name(self, put: Put) -> None:
        run = RunBuilder()
        keys: dict[str, dict[str, Any]] = {
            "one": {"shape": [4, 5], "dims": ["y", "x"]},
            "two": {"shape": [2, 3], "dims": ["y", "x"]},
            "three": {"shape": [4, 5], "dims": ["y", "x"]},
            "four": {"shape": [4], "dims": ["seq_num"]},
            "five": {"shape": [4], "dims": ["motor"]},
            "six": {"shape": [6], "dims": ["six"]},
            "seven": {"shape": [3, 3], "dims": ["y", "y"]},
            "eight": {"shape": [2], "dims": ["time"]},
        }
        claims = {key: {"source": "x", "dtype": "array", **claim} for key, claim in keys.items()}
        run.documents[0][1]["hints"] = {"dimensions": [[["motor"], "primary"]]}
        descriptor = run.descriptor({**claims, "motor": 0.5})
        for number in range(2):
            data = {key: np.ones(claim["shape"]).tolist() for key, claim in keys.items()}
            run.event(descriptor, {**data, "motor": float(number)})
        header = put(run.stop())
        expected = {
            "one": ("y", "x"),
            "two": ("two_dim_0", "two_dim_1"),
            "three": ("y", "x"),
            "four": ("four_dim_0",),
            "five": ("five_dim_0",),
            "six": ("six_dim_0",),
            "seven": ("seven_dim_0", "seven_dim_1"),
            "eight": ("eight_dim_0",),
        }
        runs = header.db(uid=header.uid)
        for dataset in (
            header.dataset(),
            header.dataset(chunks=None),
            header.dataset(chunks={"time": 1}),
            header.tree()["primary"],
            runs.dataset(),
        ):
            assert {key: dataset[key].dims[1:] for key in expected} == expected
            assert float(dataset["two"].sum()) == 12
        assert header.dataset(fields=["two"])["two"].dims == ("time", "y", "x")

    def test_regions_of_cameras_with_dimensions_of_one_name(
        self, broker: Any, tmp_path: Path
    ) -> None:
        run = RunBuilder()
        write_hdf5(tmp_path / "a.h5", frames(2, SHAPE))
        claim = image_claim((1, *SHAPE), dims=["n", "y", "x"])
        descriptor = run.descriptor(dict.fromkeys(("one", "two"), claim))
        resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path="a.h5")
        for number in range(2):
            datum = run.datum(resource, point_number=number)
            run.event(descriptor, {"one": datum, "two": datum})
        header = header_of(broker, run.stop())
        assert header.dataset()["two"].dims == ("time", "n", "y", "x")
        dataset = header.dataset(roi={"one": np.s_[0, 1:3]})
        assert dataset["one"].dims == ("time", "y", "x")
        assert dataset["two"].dims == ("time", "two_dim_0", "two_dim_1", "two_dim_2")
        assert dataset["two"].shape == (2, 1, *SHAPE)
