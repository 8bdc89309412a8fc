"""The suite of databroker's version 0 and 1 interface."""

from databroker.tests.test_broker import *  # noqa: F403
