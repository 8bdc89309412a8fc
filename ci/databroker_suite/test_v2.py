"""The tests that databroker runs on each catalog of its version 2."""

from databroker.tests.test_v2.fixtures import RE, detector, example_data, hw  # noqa: F401
from databroker.tests.test_v2.generic import *  # noqa: F403
