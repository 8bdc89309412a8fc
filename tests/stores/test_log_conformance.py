"""The example of a store passes the public conformance suite, found as an installed package is.

CI runs one case of each test, the stage ``conformance`` of ci/long.sh all.
"""

from __future__ import annotations

import pytest

from daskbroker.testing.conformance import BrokerConformance


@pytest.mark.usefixtures("log_package")
class TestLog(BrokerConformance):
    sample = "one"
    remembers_peeks = False

    @pytest.fixture
    def store_place(self, tmp_path):
        return f"log://{tmp_path / 'store'}"
