"""Options of views are checked before anything is read."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.core.errors import BadQuery
from daskbroker.views.view_options import ViewOptions


@pytest.mark.parametrize("bad", ["foo", 5, "(2, i4", [("x", "<f8"), ("x", "<f8")], object()])
def test_dtypes_that_numpy_does_not_know(bad):
    with pytest.raises(BadQuery, match=r"dtypes=\{'img': \.\.\.\}: .* is not a valid dtype"):
        ViewOptions(dtypes={"img": bad})


def test_dtypes_that_numpy_knows():
    given = {"a": "f4", "b": np.uint16, "c": np.dtype(">i2"), "d": [("x", "<f8")], "e": object}
    assert ViewOptions(dtypes=given).dtypes == given
